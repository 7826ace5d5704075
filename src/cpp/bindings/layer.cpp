// One layer in one direction: forward, and forward with a tape whose backward may be called many times.
#include "layer.hpp"

#include <memory>
#include <optional>
#include <variant>

#include "../engine.hpp"
#include "../pieces.hpp"
#include "arrays.hpp"
#include "call.hpp"
#include "layer_arguments.hpp"

namespace rnncore {
namespace {

template <class T>
py::object forward_as(const Spec& spec, Arguments& arguments, const ResetArguments* reset = nullptr) {
    const Layer<T> layer = checked_layer<T>(spec, arguments);
    const auto resets = checked_resets<T>(layer, arguments.layout, reset);
    NewOutput<T> output(layer, arguments.layout);
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
    MaskArrays masks;

    // Gradients as they come: of x, of the weights, of the initial states, of those after resets.
    struct Result {
        py::object x;
        WeightArrays weights;
        States first, start;  // as many as there are states
    };

    // Nothing if a gradient would have to be converted.
    std::optional<Result> backward(const py::object& dy, const States& dlast) const {
        if (!is_ready_or_none(dy, kNumbers<T>) || !all_ready(dlast, kNumbers<T>)) return std::nullopt;
        const Layout& layout = arguments.layout;
        const Weights<T>& weights = layer.weights;
        const int64_t I = weights.I, H = weights.H, P = weights.P, GH = gates_of(weights.spec.cell) * H;
        const Dim batch{"N", layout.N}, steps{"T", layout.T}, hidden{"H", P};
        const Dim outer = layout.batch_first ? batch : steps, inner = layout.batch_first ? steps : batch;
        Output<const T> cotangents{};
        cotangents.y = layout.ragged ? read_optional<T>("dy", dy, {{"R", layout.ragged->R}, hidden})
                                     : read_optional<T>("dy", dy, {outer, inner, hidden});
        read_states(kLast, dlast, layer, layout.N, cotangents.last);

        const Lookup* lookup = as_lookup(arguments.x);
        Result result;
        Gradients<T> gradients{};
        const auto make = [](py::object& object, T*& pointer, std::initializer_list<int64_t> shape) {
            py::array array = new_array<T>(shape);
            pointer = data<T>(array);
            object = std::move(array);
        };
        result.weights.fill(py::none());
        py::array dx = lookup ? lookup->gradient : new_series<T>(layout, I);
        gradients.x = data<T>(dx);
        result.x = lookup ? py::object(py::none()) : std::move(dx);
        make(result.weights[0], gradients.w_ih, {GH, I});
        make(result.weights[2], gradients.b_ih, {GH});
        if (weights.w_hh) {
            make(result.weights[1], gradients.w_hh, {GH, P});
            make(result.weights[3], gradients.b_hh, {GH});
        }
        if (weights.w_inner) make(result.weights[4], gradients.w_inner, {layer.sizes.inner_rows, H});
        if (layer.sizes.inner_biases > 0) make(result.weights[5], gradients.b_inner, {layer.sizes.inner_biases});
        if (layer.sizes.vectors > 0) make(result.weights[6], gradients.vectors, {layer.sizes.vectors});
        T* dstart[kMaxStates] = {};
        for (int s = 0; s < layer.states; ++s) {
            py::object first, start = py::none();
            make(first, gradients.first[s], {layout.N, layer.sizes.state[s]});
            if (resets && resets->with_start[s]) make(start, dstart[s], {layout.N, layer.sizes.state[s]});
            result.first[static_cast<size_t>(s)] = std::move(first);
            result.start[static_cast<size_t>(s)] = std::move(start);
        }
        {
            const py::gil_scoped_release nogil;
            if (resets) {
                rnncore::backward(weights, resets->pieces, layer.input, tape, cotangents, gradients, dstart);
            } else {
                rnncore::backward(weights, layer.input, tape, cotangents, gradients);
            }
        }
        return result;
    }
};

using AnyRecording = std::variant<Recording<float>, Recording<double>>;

template <class T>
py::object record_as(const Spec& spec, Arguments& arguments, int64_t checkpoint_every,
                     const ResetArguments* reset = nullptr,
                     const MaskArrays& masks = {py::none(), py::none(), py::none()}) {
    if (checkpoint_every < 0) throw py::value_error("checkpoint_every: expected 0 or a number of steps");
    Layer<T> layer = checked_layer<T>(spec, arguments);
    read_masks(masks, arguments.layout, layer);
    auto resets = checked_resets<T>(layer, arguments.layout, reset);
    NewOutput<T> output(layer, arguments.layout);
    auto tape = [&] {
        const py::gil_scoped_release nogil;
        return resets ? forward_for_training(layer.weights, resets->pieces, layer.input, resets->start, output.pointers,
                                             checkpoint_every)
                      : forward_for_training(layer.weights, arguments.layout, layer.input, output.pointers,
                                             checkpoint_every);
    }();
    return py::make_tuple(output.arrays, AnyRecording(Recording<T>{std::move(arguments), layer, std::move(tape),
                                                                   std::move(resets), masks}));
}

// In the dtype of w_ih; None if something would have to be converted.
template <class Float, class Double>
py::object by_dtype(const Arguments& a, Float as_float, Double as_double, const ResetArguments* reset = nullptr) {
    if (!ready(a)) return py::none();
    if (reset && !ready(*reset, a.numbers())) return py::none();
    return a.numbers() == kFloat32 ? as_float() : as_double();
}

// From the arguments of functions, which are not needed any more. (Small calls notice every count of references.)
WeightArrays flat_weights(py::object& w_ih, py::object& w_hh, py::object& b_ih, py::object& b_hh) {
    return {std::move(w_ih), std::move(w_hh), std::move(b_ih), std::move(b_hh), py::none(), py::none(), py::none()};
}
States flat_states(py::object& h_0, py::object& c_0) {
    return {std::move(h_0), std::move(c_0), py::none(), py::none()};
}

}  // namespace

void register_layer(py::module_& m) {
    py::enum_<Cell>(m, "Cell")
        .value("rnn_tanh", Cell::rnn_tanh)
        .value("rnn_relu", Cell::rnn_relu)
        .value("lstm", Cell::lstm)
        .value("gru", Cell::gru)
        .value("slstm", Cell::slstm)
        .value("rnn_rows", Cell::rnn_rows)
        .value("lstm_rows", Cell::lstm_rows)
        .value("lstm_coupled", Cell::lstm_coupled)
        .value("gru_rows", Cell::gru_rows)
        .value("gru_before", Cell::gru_before)
        .value("mgu", Cell::mgu)
        .value("ind_rnn_relu", Cell::ind_rnn_relu)
        .value("ind_rnn_tanh", Cell::ind_rnn_tanh)
        .value("min_gru", Cell::min_gru)
        .value("min_lstm", Cell::min_lstm)
        .value("sru", Cell::sru)
        .value("qrnn", Cell::qrnn)
        .value("lru", Cell::lru)
        .value("lru_complex", Cell::lru_complex);

    register_lookup(m);
    register_spec(m);

    // Of cells without options, flat, as functions have their arguments.
    m.def("forward", [](Cell cell, py::object x, py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh,
                        py::object h_0, py::object c_0, py::object lengths, bool reverse, bool batch_first) {
        Arguments a{std::move(x),
                    flat_weights(w_ih, w_hh, b_ih, b_hh),
                    flat_states(h_0, c_0),
                    std::move(lengths),
                    {0, 0, batch_first, reverse, nullptr}};
        return by_dtype(
            a, [&] { return forward_as<float>({cell}, a); }, [&] { return forward_as<double>({cell}, a); });
    });
    m.def("record",
          [](int64_t checkpoint_every, Cell cell, py::object x, py::object w_ih, py::object w_hh, py::object b_ih,
             py::object b_hh, py::object h_0, py::object c_0, py::object lengths, bool reverse, bool batch_first) {
              Arguments a{std::move(x),
                          flat_weights(w_ih, w_hh, b_ih, b_hh),
                          flat_states(h_0, c_0),
                          std::move(lengths),
                          {0, 0, batch_first, reverse, nullptr}};
              return by_dtype(
                  a, [&] { return record_as<float>({cell}, a, checkpoint_every); },
                  [&] { return record_as<double>({cell}, a, checkpoint_every); });
          });
    // Of any layer: weights, states and what starts them anew (None, or a mask and states) are tuples, and so are
    // masks.
    m.def("forward_layer", [](const Spec& spec, py::object x, const py::tuple& weights, const py::tuple& state,
                              py::object lengths, bool reverse, bool batch_first, const py::object& resets) {
        Arguments a{x, weight_arrays(weights), states_from(state), lengths, {0, 0, batch_first, reverse, nullptr}};
        const auto reset = resets_from(resets);
        const ResetArguments* r = reset ? &*reset : nullptr;
        return by_dtype(
            a, [&] { return forward_as<float>(spec, a, r); }, [&] { return forward_as<double>(spec, a, r); }, r);
    });
    m.def("record_layer", [](int64_t checkpoint_every, const Spec& spec, py::object x, const py::tuple& weights,
                             const py::tuple& state, py::object lengths, bool reverse, bool batch_first,
                             const py::object& resets, const py::tuple& masks) {
        Arguments a{x, weight_arrays(weights), states_from(state), lengths, {0, 0, batch_first, reverse, nullptr}};
        const auto reset = resets_from(resets);
        const ResetArguments* r = reset ? &*reset : nullptr;
        if (masks.size() != 3) throw py::value_error("masks: expected those of h, of c and of the products");
        const MaskArrays m{masks[0], masks[1], masks[2]};
        return by_dtype(
            a, [&] { return record_as<float>(spec, a, checkpoint_every, r, m); },
            [&] { return record_as<double>(spec, a, checkpoint_every, r, m); }, r);
    });
    py::class_<AnyRecording>(m, "Recording")
        .def("backward",
             [](const AnyRecording& any, py::object dy, py::object dh_n, py::object dc_n) -> py::object {
                 const States dlast{dh_n, dc_n, py::none(), py::none()};
                 return std::visit(
                     [&](const auto& recording) -> py::object {
                         auto result = recording.backward(dy, dlast);
                         if (!result) return py::none();
                         const auto states = static_cast<size_t>(recording.layer.states);
                         py::tuple flat(5 + 2 * states);
                         flat[0] = std::move(result->x);
                         for (size_t w = 0; w < 4; ++w) flat[1 + w] = std::move(result->weights[w]);
                         for (size_t s = 0; s < states; ++s) {
                             flat[5 + s] = std::move(result->first[s]);
                             flat[5 + states + s] = std::move(result->start[s]);
                         }
                         return flat;
                     },
                     any);
             })
        .def("pull_back", [](const AnyRecording& any, py::object dy, const py::tuple& dstate) -> py::object {
            return std::visit(
                [&](const auto& recording) -> py::object {
                    const auto result = recording.backward(dy, states_from(dstate));
                    if (!result) return py::none();
                    const auto states = static_cast<size_t>(recording.layer.states);
                    const auto tuple = [](const auto& objects, size_t count) {
                        py::tuple made(count);
                        for (size_t i = 0; i < count; ++i) made[i] = objects[i];
                        return made;
                    };
                    return py::make_tuple(result->x, tuple(result->weights, kWeights), tuple(result->first, states),
                                          tuple(result->start, states));
                },
                any);
        });
}

}  // namespace rnncore
