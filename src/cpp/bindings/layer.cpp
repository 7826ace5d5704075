// One layer in one direction: forward, and forward with a tape whose backward may be called many times.
#include "layer.hpp"

#include <variant>

#include "../engine.hpp"
#include "arrays.hpp"

namespace rnncore {
namespace {

// The arguments common to forward and record, checked. The objects keep the arrays alive.
struct Arguments {
    py::object x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths;
    Layout layout;
    int64_t I, H;
};

template <class T>
Layer<T> checked_layer(Cell cell, Arguments& a) {
    const int64_t G = gates_of(cell);
    const py::array w_hh = checked_array("w_hh", a.w_hh, kNumbers<T>, {{"G*H"}, {"H"}});
    a.H = w_hh.shape(1);
    if (a.H < 1) throw py::value_error("w_hh: expected at least one hidden unit, got " + describe(w_hh));
    const Dim gates{"G*H", G * a.H}, hidden{"H", a.H};
    if (w_hh.shape(0) != gates.size) read<T>("w_hh", w_hh, {gates, hidden});  // throws
    const py::array w_ih = checked_array("w_ih", a.w_ih, kNumbers<T>, {gates, {"I"}});
    a.I = w_ih.shape(1);

    const bool batch_first = a.layout.batch_first;
    const py::array x =
        checked_array("x", a.x, kNumbers<T>, {{batch_first ? "N" : "T"}, {batch_first ? "T" : "N"}, {"I", a.I}});
    a.layout.N = x.shape(batch_first ? 0 : 1);
    a.layout.T = x.shape(batch_first ? 1 : 0);
    const Dim batch{"N", a.layout.N};

    // Every size the engine computes stays far inside 64 bits.
    const double most = static_cast<double>(a.layout.N + 1) * static_cast<double>(a.layout.T + 1) *
                        (8.0 * static_cast<double>(G * a.H) + static_cast<double>(a.I));
    if (most > 1e17) throw py::value_error("x: " + describe(x) + " is too large for H = " + std::to_string(a.H));

    a.layout.lengths = read_optional<int64_t>("lengths", a.lengths, {batch});
    for (int64_t n = 0; a.layout.lengths && n < a.layout.N; ++n) {
        const int64_t length = a.layout.lengths[n];
        if (length >= 0 && length <= a.layout.T) continue;
        throw py::value_error("lengths: expected values from 0 to T = " + std::to_string(a.layout.T) + ", got " +
                              std::to_string(length) + " at row " + std::to_string(n));
    }
    Layer<T> layer{};
    layer.cell = cell;
    layer.I = a.I;
    layer.H = a.H;
    layer.x = static_cast<const T*>(x.data());
    layer.w_ih = static_cast<const T*>(w_ih.data());
    layer.w_hh = static_cast<const T*>(w_hh.data());
    layer.b_ih = read_optional<T>("b_ih", a.b_ih, {gates});
    layer.b_hh = read_optional<T>("b_hh", a.b_hh, {gates});
    layer.first[0] = read_optional<T>("h_0", a.h_0, {batch, hidden});
    if (states_of(cell) > 1) {
        layer.first[1] = read_optional<T>("c_0", a.c_0, {batch, hidden});
    } else if (!a.c_0.is_none()) {
        throw py::type_error("c_0: expected None, since this cell has no cell state");
    }
    return layer;
}

template <class T>
T* data(py::array& array) {
    return static_cast<T*>(array.mutable_data());
}

// The arrays of Output<T>, new.
template <class T>
struct NewOutput {
    py::tuple arrays;
    Output<T> pointers{};

    NewOutput(Cell cell, const Arguments& a) : arrays(static_cast<size_t>(1 + states_of(cell))) {
        const auto [N, T_, batch_first, reverse, lengths] = a.layout;
        py::array_t<T> y({batch_first ? N : T_, batch_first ? T_ : N, a.H});
        pointers.y = data<T>(y);
        arrays[0] = std::move(y);
        for (int s = 0; s < states_of(cell); ++s) {
            py::array_t<T> last({N, a.H});
            pointers.last[s] = data<T>(last);
            arrays[static_cast<size_t>(1 + s)] = std::move(last);
        }
    }
};

template <class T>
py::tuple forward_as(Cell cell, Arguments& arguments) {
    const Layer<T> layer = checked_layer<T>(cell, arguments);
    NewOutput<T> output(cell, arguments);
    {
        const py::gil_scoped_release nogil;
        forward(layer, arguments.layout, output.pointers);
    }
    return output.arrays;
}

// What backward needs: the arguments of the forward call, which are not copied, and the core's own tape.
template <class T>
struct Recording {
    Arguments arguments;
    Layer<T> layer;
    Tape<T> tape;

    py::tuple backward(py::object dy, py::object dh_n, py::object dc_n) const {
        const auto& [N, T_, batch_first, reverse, lengths] = arguments.layout;
        const int64_t I = layer.I, H = layer.H, GH = gates_of(layer.cell) * H;
        const int states = states_of(layer.cell);
        const Dim batch{"N", N}, steps{"T", T_}, hidden{"H", H};
        const Dim outer = batch_first ? batch : steps, inner = batch_first ? steps : batch;
        Output<const T> cotangents{};
        cotangents.y = read_optional<T>("dy", dy, {outer, inner, hidden});
        cotangents.last[0] = read_optional<T>("dh_n", dh_n, {batch, hidden});
        if (states > 1) {
            cotangents.last[1] = read_optional<T>("dc_n", dc_n, {batch, hidden});
        } else if (!dc_n.is_none()) {
            throw py::type_error("dc_n: expected None, since this cell has no cell state");
        }

        py::array_t<T> dx({outer.size, inner.size, I}), dw_ih({GH, I}), dw_hh({GH, H}), db_ih(GH), db_hh(GH);
        Gradients<T> gradients{data<T>(dx), data<T>(dw_ih), data<T>(dw_hh), data<T>(db_ih), data<T>(db_hh), {}};
        py::tuple result(static_cast<size_t>(5 + states));
        for (int s = 0; s < states; ++s) {
            py::array_t<T> first({N, H});
            gradients.first[s] = data<T>(first);
            result[static_cast<size_t>(5 + s)] = std::move(first);
        }
        {
            const py::gil_scoped_release nogil;
            rnncore::backward(layer, arguments.layout, tape, cotangents, gradients);
        }
        result[0] = std::move(dx);
        result[1] = std::move(dw_ih);
        result[2] = std::move(dw_hh);
        result[3] = std::move(db_ih);
        result[4] = std::move(db_hh);
        return result;
    }
};

using AnyRecording = std::variant<Recording<float>, Recording<double>>;

template <class T>
py::tuple record_as(Cell cell, Arguments& arguments) {
    const Layer<T> layer = checked_layer<T>(cell, arguments);
    NewOutput<T> output(cell, arguments);
    auto tape = [&] {
        const py::gil_scoped_release nogil;
        return forward_for_training(layer, arguments.layout, output.pointers);
    }();
    return py::make_tuple(output.arrays, AnyRecording(Recording<T>{arguments, layer, std::move(tape)}));
}

// The dtype of w_ih decides; the others must agree.
template <class Float, class Double>
py::tuple by_dtype(const py::object& w_ih, Float as_float, Double as_double) {
    const py::array array = checked_array("w_ih", w_ih, kFloat32 | kFloat64, {{"G*H"}, {"I"}});
    return array.itemsize() == sizeof(float) ? as_float() : as_double();
}

}  // namespace

void register_layer(py::module_& m) {
    py::enum_<Cell>(m, "Cell")
        .value("rnn_tanh", Cell::rnn_tanh)
        .value("rnn_relu", Cell::rnn_relu)
        .value("lstm", Cell::lstm)
        .value("gru", Cell::gru);

    m.def("forward", [](Cell cell, py::object x, py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh,
                        py::object h_0, py::object c_0, py::object lengths, bool reverse, bool batch_first) {
        Arguments a{x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, {0, 0, batch_first, reverse, nullptr}, 0, 0};
        return by_dtype(
            w_ih, [&] { return forward_as<float>(cell, a); }, [&] { return forward_as<double>(cell, a); });
    });
    m.def("record", [](Cell cell, py::object x, py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh,
                       py::object h_0, py::object c_0, py::object lengths, bool reverse, bool batch_first) {
        Arguments a{x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, {0, 0, batch_first, reverse, nullptr}, 0, 0};
        return by_dtype(
            w_ih, [&] { return record_as<float>(cell, a); }, [&] { return record_as<double>(cell, a); });
    });
    py::class_<AnyRecording>(m, "Recording")
        .def("backward", [](const AnyRecording& recording, py::object dy, py::object dh_n, py::object dc_n) {
            return std::visit([&](const auto& r) { return r.backward(dy, dh_n, dc_n); }, recording);
        });
}

}  // namespace rnncore
