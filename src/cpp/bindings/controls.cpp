// Threads, instruction sets, what was built; and the core's own functions, so that their accuracy can be measured.
#include "controls.hpp"

#include <pybind11/stl.h>

#include "../dispatch.hpp"
#include "../schedule.hpp"
#include "../threads.hpp"
#include "arrays.hpp"

namespace rnncore {
namespace {

template <class T>
using Function = void (*)(const T*, T*, int64_t);

template <class T>
py::array map(const py::array& x, Function<T> f) {
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

// A function of the kernel table, on vectors.
void def_function(py::module_& m, const char* name, Function<float> Kernels<float>::*as_float,
                  Function<double> Kernels<double>::*as_double) {
    m.def(name, [=](const py::object& object) {
        const py::array x = checked_array("x", object, kFloat32 | kFloat64, {{"n"}});
        return x.itemsize() == sizeof(float) ? map(x, kernels().f32.*as_float) : map(x, kernels().f64.*as_double);
    });
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
    def_function(m, "sigmoid", &Kernels<float>::sigmoid, &Kernels<double>::sigmoid);
    def_function(m, "tanh", &Kernels<float>::tanh, &Kernels<double>::tanh);
    def_function(m, "exp", &Kernels<float>::exp, &Kernels<double>::exp);
    def_function(m, "log", &Kernels<float>::log, &Kernels<double>::log);
}

}  // namespace rnncore
