// Threads, instruction sets, what was built; and the core's sigmoid and tanh, so that their accuracy can be measured.
#include "controls.hpp"

#include <pybind11/stl.h>

#include "../dispatch.hpp"
#include "../schedule.hpp"
#include "../threads.hpp"
#include "arrays.hpp"

namespace rnncore {
namespace {

template <class T>
py::array map(const py::array& x, void (*f)(const T*, T*, int64_t)) {
    py::array_t<T> y(x.size());
    const T* in = static_cast<const T*>(x.data());
    T* out = y.mutable_data();
    const int64_t n = x.size();
    {
        const py::gil_scoped_release nogil;
        f(in, out, n);
    }
    return y;
}

py::array checked_vector(const py::object& x) {
    return checked_array("x", x, kFloat32 | kFloat64, {{"n"}});
}

}  // namespace

void register_controls(py::module_& m) {
    m.def("num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads);
    m.def("available_isas", &available_isas);
    m.def("active_isa", &active_isa);
    m.def("use_isa", &use_isa);
    m.def("cut_pass", [](int threads, int64_t rows, double weight_bytes, int64_t panels) {
        const Cut cut = cut_pass(threads, rows, weight_bytes, panels);
        return py::make_tuple(cut.rows, cut.units, cut.step_ns);
    });
    m.def("compiler", [] {
#if defined(__clang__)
        return "clang " __clang_version__;
#else
        return "gcc " __VERSION__;
#endif
    });
    m.def("sigmoid", [](const py::object& object) {
        const py::array x = checked_vector(object);
        return x.itemsize() == sizeof(float) ? map(x, kernels().f32.sigmoid) : map(x, kernels().f64.sigmoid);
    });
    m.def("tanh", [](const py::object& object) {
        const py::array x = checked_vector(object);
        return x.itemsize() == sizeof(float) ? map(x, kernels().f32.tanh) : map(x, kernels().f64.tanh);
    });
}

}  // namespace rnncore
