// One layer in one direction: forward, and forward with a tape whose backward may be called many times.
#include "layer.hpp"

#include <memory>
#include <variant>

#include "../engine.hpp"
#include "../pieces.hpp"
#include "arrays.hpp"
#include "call.hpp"
#include "ragged.hpp"

namespace rnncore {
namespace {

// The arguments common to forward and record. The objects keep the arrays alive.
struct Arguments {
    py::object x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths;
    Layout layout;
    int64_t I, H;
};

// Whether nothing has to be converted: all arrays of the dtype of w_ih, and x with a batch axis. Weights of many
// networks are for many.cpp.
bool ready(const Arguments& a) {
    if (!is_ready(a.w_ih, kFloat32 | kFloat64) || py::reinterpret_borrow<py::array>(a.w_ih).ndim() == 3) return false;
    const int numbers = py::reinterpret_borrow<py::array>(a.w_ih).itemsize() == sizeof(float) ? kFloat32 : kFloat64;
    const bool x_is_ready = is_ready(a.x, numbers)
                                ? py::reinterpret_borrow<py::array>(a.x).ndim() != 2 || as_ragged(a.lengths)
                                : as_lookup(a.x) != nullptr;
    return x_is_ready && is_ready(a.w_hh, numbers) && is_ready_or_none(a.b_ih, numbers) &&
           is_ready_or_none(a.b_hh, numbers) && is_ready_or_none(a.h_0, numbers) && is_ready_or_none(a.c_0, numbers) &&
           (is_ready_or_none(a.lengths, kInt64) || as_ragged(a.lengths));
}

template <class T>
struct Layer {
    Weights<T> weights;
    Input<T> input;
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
    const Lookup* lookup = as_lookup(a.x);
    const Ragged* ragged = as_ragged(a.lengths);
    const py::array x = lookup   ? checked_array("table", lookup->table, kNumbers<T>, {{"V"}, {"I", a.I}})
                        : ragged ? checked_array("x", a.x, kNumbers<T>, {{"R"}, {"I", a.I}})
                                 : checked_array("x", a.x, kNumbers<T>,
                                                 {{batch_first ? "N" : "T"}, {batch_first ? "T" : "N"}, {"I", a.I}});
    const py::array& series = lookup ? lookup->tokens : x;
    set_sizes(a.layout, series, ragged);
    const Dim batch{"N", a.layout.N};

    check_size(series, a.layout, G * a.H, a.I);
    if (!ragged) a.layout.lengths = checked_lengths(a.lengths, a.layout);
    Layer<T> layer{};
    layer.weights = {cell,
                     a.I,
                     a.H,
                     static_cast<const T*>(w_ih.data()),
                     static_cast<const T*>(w_hh.data()),
                     read_optional<T>("b_ih", a.b_ih, {gates}),
                     read_optional<T>("b_hh", a.b_hh, {gates})};
    layer.input.x = static_cast<const T*>(x.data());
    if (lookup) {
        layer.input.tokens = checked_tokens(*lookup, a.layout);
        layer.input.V = x.shape(0);
    }
    layer.input.first[0] = read_optional<T>("h_0", a.h_0, {batch, hidden});
    if (states_of(cell) > 1) {
        layer.input.first[1] = read_optional<T>("c_0", a.c_0, {batch, hidden});
    } else if (!a.c_0.is_none()) {
        throw py::type_error("c_0: expected None, since this cell has no cell state");
    }
    return layer;
}

// The arrays of Output<T>, new.
template <class T>
struct NewOutput {
    py::tuple arrays;
    Output<T> pointers{};

    NewOutput(Cell cell, const Arguments& a) : arrays(static_cast<size_t>(1 + states_of(cell))) {
        py::array y = new_series<T>(a.layout, a.H);
        pointers.y = data<T>(y);
        arrays[0] = std::move(y);
        for (int s = 0; s < states_of(cell); ++s) {
            py::array last = new_array<T>({a.layout.N, a.H});
            pointers.last[s] = data<T>(last);
            arrays[static_cast<size_t>(1 + s)] = std::move(last);
        }
    }
};

// Where states start anew in a sequence, and at what: the arguments of calls that have more than `Arguments`.
struct ResetArguments {
    py::object mask, h, c;
};

bool ready(const ResetArguments& r, int numbers) {
    const auto of_each_row = [=](const py::object& start) {
        return start.is_none() || (is_ready(start, numbers) && py::reinterpret_borrow<py::array>(start).ndim() != 1);
    };
    return is_ready(r.mask, kBool) && of_each_row(r.h) && of_each_row(r.c);
}

// None if the call has none of it.
template <class T>
struct Resets {
    Pieces pieces;
    const T* start[kMaxStates];  // (N, H), for the forward pass alone: nobody keeps them
    bool with_start[kMaxStates];
};
template <class T>
std::unique_ptr<const Resets<T>> checked_resets(Cell cell, const Arguments& a, const ResetArguments* r) {
    if (!r) return nullptr;
    const Dim batch{"N", a.layout.N}, hidden{"H", a.H};
    if (states_of(cell) < 2 && !r->c.is_none()) {
        throw py::type_error("c_reset: expected None, since this cell has no cell state");
    }
    const uint8_t* mask = checked_resets(r->mask, a.layout);
    const T* h = read_optional<T>("h_reset", r->h, {batch, hidden});
    const T* c = read_optional<T>("c_reset", r->c, {batch, hidden});
    return std::make_unique<const Resets<T>>(Resets<T>{Pieces(a.layout, mask), {h, c}, {h != nullptr, c != nullptr}});
}

template <class T>
py::object forward_as(Cell cell, Arguments& arguments, const ResetArguments* reset = nullptr) {
    const Layer<T> layer = checked_layer<T>(cell, arguments);
    const auto resets = checked_resets<T>(cell, arguments, reset);
    NewOutput<T> output(cell, arguments);
    {
        const py::gil_scoped_release nogil;
        if (resets) {
            forward(layer.weights, resets->pieces, layer.input, resets->start, output.pointers);
        } else {
            forward(layer.weights, arguments.layout, layer.input, output.pointers);
        }
    }
    return output.arrays;
}

// What backward needs: the arguments of the forward call, which are not copied, and the core's own tape.
template <class T>
struct Recording {
    Arguments arguments;
    Layer<T> layer;
    Tape<T> tape;
    std::unique_ptr<const Resets<T>> resets;  // or null

    // None if a gradient would have to be converted.
    py::object backward(py::object dy, py::object dh_n, py::object dc_n) const {
        if (!is_ready_or_none(dy, kNumbers<T>) || !is_ready_or_none(dh_n, kNumbers<T>) ||
            !is_ready_or_none(dc_n, kNumbers<T>)) {
            return py::none();
        }
        const Layout& layout = arguments.layout;
        const Weights<T>& weights = layer.weights;
        const int64_t I = weights.I, H = weights.H, GH = gates_of(weights.cell) * H;
        const int states = states_of(weights.cell);
        const Dim batch{"N", layout.N}, steps{"T", layout.T}, hidden{"H", H};
        const Dim outer = layout.batch_first ? batch : steps, inner = layout.batch_first ? steps : batch;
        Output<const T> cotangents{};
        cotangents.y = layout.ragged ? read_optional<T>("dy", dy, {{"R", layout.ragged->R}, hidden})
                                     : read_optional<T>("dy", dy, {outer, inner, hidden});
        cotangents.last[0] = read_optional<T>("dh_n", dh_n, {batch, hidden});
        if (states > 1) {
            cotangents.last[1] = read_optional<T>("dc_n", dc_n, {batch, hidden});
        } else if (!dc_n.is_none()) {
            throw py::type_error("dc_n: expected None, since this cell has no cell state");
        }

        const Lookup* lookup = as_lookup(arguments.x);
        py::array dx = lookup ? lookup->gradient : new_series<T>(layout, I), dw_ih = new_array<T>({GH, I}),
                  dw_hh = new_array<T>({GH, H}), db_ih = new_array<T>({GH}), db_hh = new_array<T>({GH});
        Gradients<T> gradients{data<T>(dx), data<T>(dw_ih), data<T>(dw_hh), data<T>(db_ih), data<T>(db_hh), {}};
        py::tuple result(static_cast<size_t>(5 + 2 * states));
        T* dstart[kMaxStates] = {};
        for (int s = 0; s < states; ++s) {
            py::array first = new_array<T>({layout.N, H});
            gradients.first[s] = data<T>(first);
            result[static_cast<size_t>(5 + s)] = std::move(first);
            py::object start = py::none();
            if (resets && resets->with_start[s]) {
                py::array array = new_array<T>({layout.N, H});
                dstart[s] = data<T>(array);
                start = std::move(array);
            }
            result[static_cast<size_t>(5 + states + s)] = std::move(start);
        }
        {
            const py::gil_scoped_release nogil;
            if (resets) {
                rnncore::backward(weights, resets->pieces, layer.input, tape, cotangents, gradients, dstart);
            } else {
                rnncore::backward(weights, layer.input, tape, cotangents, gradients);
            }
        }
        result[0] = lookup ? py::object(py::none()) : std::move(dx);
        result[1] = std::move(dw_ih);
        result[2] = std::move(dw_hh);
        result[3] = std::move(db_ih);
        result[4] = std::move(db_hh);
        return result;
    }
};

using AnyRecording = std::variant<Recording<float>, Recording<double>>;

template <class T>
py::object record_as(Cell cell, Arguments& arguments, int64_t checkpoint_every, const ResetArguments* reset = nullptr) {
    const Layer<T> layer = checked_layer<T>(cell, arguments);
    auto resets = checked_resets<T>(cell, arguments, reset);
    NewOutput<T> output(cell, arguments);
    auto tape = [&] {
        const py::gil_scoped_release nogil;
        return resets ? forward_for_training(layer.weights, resets->pieces, layer.input, resets->start, output.pointers,
                                             checkpoint_every)
                      : forward_for_training(layer.weights, arguments.layout, layer.input, output.pointers,
                                             checkpoint_every);
    }();
    return py::make_tuple(output.arrays,
                          AnyRecording(Recording<T>{arguments, layer, std::move(tape), std::move(resets)}));
}

// In the dtype of w_ih; None if something would have to be converted.
template <class Float, class Double>
py::object by_dtype(const Arguments& a, Float as_float, Double as_double, const ResetArguments* reset = nullptr) {
    if (!ready(a)) return py::none();
    const bool single = py::reinterpret_borrow<py::array>(a.w_ih).itemsize() == sizeof(float);
    if (reset && !ready(*reset, single ? kFloat32 : kFloat64)) return py::none();
    return single ? as_float() : as_double();
}

}  // namespace

void register_layer(py::module_& m) {
    py::enum_<Cell>(m, "Cell")
        .value("rnn_tanh", Cell::rnn_tanh)
        .value("rnn_relu", Cell::rnn_relu)
        .value("lstm", Cell::lstm)
        .value("gru", Cell::gru);

    register_lookup(m);

    m.def("forward", [](Cell cell, py::object x, py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh,
                        py::object h_0, py::object c_0, py::object lengths, bool reverse, bool batch_first) {
        Arguments a{x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, {0, 0, batch_first, reverse, nullptr}, 0, 0};
        return by_dtype(
            a, [&] { return forward_as<float>(cell, a); }, [&] { return forward_as<double>(cell, a); });
    });
    m.def("record",
          [](int64_t checkpoint_every, Cell cell, py::object x, py::object w_ih, py::object w_hh, py::object b_ih,
             py::object b_hh, py::object h_0, py::object c_0, py::object lengths, bool reverse, bool batch_first) {
              if (checkpoint_every < 0) throw py::value_error("checkpoint_every: expected 0 or a number of steps");
              Arguments a{x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, {0, 0, batch_first, reverse, nullptr}, 0, 0};
              return by_dtype(
                  a, [&] { return record_as<float>(cell, a, checkpoint_every); },
                  [&] { return record_as<double>(cell, a, checkpoint_every); });
          });
    m.def("forward_with_resets", [](py::object mask, py::object h_reset, py::object c_reset, Cell cell, py::object x,
                                    py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh, py::object h_0,
                                    py::object c_0, py::object lengths, bool reverse, bool batch_first) {
        Arguments a{x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, {0, 0, batch_first, reverse, nullptr}, 0, 0};
        const ResetArguments r{mask, h_reset, c_reset};
        return by_dtype(
            a, [&] { return forward_as<float>(cell, a, &r); }, [&] { return forward_as<double>(cell, a, &r); }, &r);
    });
    m.def("record_with_resets",
          [](py::object mask, py::object h_reset, py::object c_reset, int64_t checkpoint_every, Cell cell, py::object x,
             py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh, py::object h_0, py::object c_0,
             py::object lengths, bool reverse, bool batch_first) {
              if (checkpoint_every < 0) throw py::value_error("checkpoint_every: expected 0 or a number of steps");
              Arguments a{x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, {0, 0, batch_first, reverse, nullptr}, 0, 0};
              const ResetArguments r{mask, h_reset, c_reset};
              return by_dtype(
                  a, [&] { return record_as<float>(cell, a, checkpoint_every, &r); },
                  [&] { return record_as<double>(cell, a, checkpoint_every, &r); }, &r);
          });
    py::class_<AnyRecording>(m, "Recording")
        .def("backward", [](const AnyRecording& recording, py::object dy, py::object dh_n, py::object dc_n) {
            return std::visit([&](const auto& r) { return r.backward(dy, dh_n, dc_n); }, recording);
        });
}

}  // namespace rnncore
