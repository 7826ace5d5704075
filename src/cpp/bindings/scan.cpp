// The linear scan and its gradients.
#include "scan.hpp"

#include "../dispatch.hpp"
#include "../scan.hpp"
#include "arrays.hpp"
#include "call.hpp"

namespace rnncore {
namespace {

constexpr int kReal = kFloat32 | kFloat64;

// How the steps are read.
struct Reading {
    py::object lengths;
    bool is_complex, reverse;
    int64_t chunk;
};

bool is_single(const py::object& a) {
    return py::reinterpret_borrow<py::array>(a).itemsize() == sizeof(float);
}

// The call for a series (N, T, C) such as b or y.
template <class T>
LinearScan<T> checked(const py::object& a, const char* name, const py::object& like, const py::object& first,
                      const Reading& reading) {
    const py::array series = checked_array(name, like, kNumbers<T>, {{"N"}, {"T"}, {"C"}});
    const Dim N{"N", series.shape(0)}, T_{"T", series.shape(1)}, C{"C", series.shape(2)};
    const Layout layout{N.size, T_.size, true, false, nullptr};
    check_size(series, layout, C.size, C.size);
    const bool constant = py::isinstance<py::array>(a) && py::reinterpret_borrow<py::array>(a).ndim() == 1;
    if (C.size < 1)
        throw py::value_error(std::string(name) + ": expected at least one channel, got " + describe(series));
    if (reading.is_complex && C.size % 2) {
        throw py::value_error(std::string(name) + ": expected pairs of reals, got " + describe(series));
    }
    if (reading.chunk < 0) {
        throw py::value_error("chunk: expected an integer >= 0, got " + std::to_string(reading.chunk));
    }
    return {N.size,
            T_.size,
            C.size,
            reading.is_complex,
            constant,
            reading.reverse,
            checked_lengths(reading.lengths, layout),
            reading.chunk,
            constant ? read<T>("a", a, {C}) : read<T>("a", a, {N, T_, C}),
            read_optional<T>("h_0", first, {N, C})};
}

template <class T>
py::tuple forward_as(const py::object& a, const py::object& b, const py::object& first, const Reading& reading) {
    const LinearScan<T> call = checked<T>(a, "b", b, first, reading);
    py::array y = new_array<T>({call.N, call.T_, call.C}), last = new_array<T>({call.N, call.C});
    {
        const py::gil_scoped_release nogil;
        linear_scan<T>(kernels(), call, data<T>(py::reinterpret_borrow<py::array>(b)), data<T>(y), data<T>(last));
    }
    return py::make_tuple(std::move(y), std::move(last));
}

template <class T>
py::tuple backward_as(const py::object& a, const py::object& y, const py::object& first, const py::object& dy,
                      const py::object& dlast, const Reading& reading) {
    const LinearScan<T> call = checked<T>(a, "y", y, first, reading);
    const Dim N{"N", call.N}, T_{"T", call.T_}, C{"C", call.C};
    const T* dy_data = read<T>("dy", dy, {N, T_, C});
    const T* dlast_data = read_optional<T>("dh_n", dlast, {N, C});
    py::array da = call.constant ? new_array<T>({call.C}) : new_array<T>({call.N, call.T_, call.C}),
              db = new_array<T>({call.N, call.T_, call.C}), dfirst = new_array<T>({call.N, call.C});
    {
        const py::gil_scoped_release nogil;
        linear_scan_backward<T>(kernels(), call, data<T>(py::reinterpret_borrow<py::array>(y)), dy_data, dlast_data,
                                {data<T>(da), data<T>(db), data<T>(dfirst)});
    }
    return py::make_tuple(std::move(da), std::move(db), std::move(dfirst));
}

}  // namespace

void register_scan(py::module_& m) {
    m.def("linear_scan", [](const py::object& a, const py::object& b, const py::object& h_0, const py::object& lengths,
                            bool is_complex, bool reverse, int64_t chunk) {
        checked_array("b", b, kReal, {{"N"}, {"T"}, {"C"}});
        const Reading reading{lengths, is_complex, reverse, chunk};
        return is_single(b) ? forward_as<float>(a, b, h_0, reading) : forward_as<double>(a, b, h_0, reading);
    });
    m.def("linear_scan_backward",
          [](const py::object& a, const py::object& y, const py::object& h_0, const py::object& dy,
             const py::object& dh_n, const py::object& lengths, bool is_complex, bool reverse, int64_t chunk) {
              checked_array("y", y, kReal, {{"N"}, {"T"}, {"C"}});
              const Reading reading{lengths, is_complex, reverse, chunk};
              return is_single(y) ? backward_as<float>(a, y, h_0, dy, dh_n, reading)
                                  : backward_as<double>(a, y, h_0, dy, dh_n, reading);
          });
}

}  // namespace rnncore
