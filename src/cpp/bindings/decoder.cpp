// Decoders with attention: packed once, then run forward, and forward with a tape whose backward may be called many
// times.
#include "decoder.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "../decoder.hpp"
#include "../dispatch.hpp"
#include "arrays.hpp"
#include "call.hpp"

namespace rnncore {
namespace {

// Weights as the caller has them, and packed. The objects keep the arrays alive.
template <class T>
struct PackedDecoder {
    py::object objects;
    DecoderWeights<T> weights;
    Needs needs;
    std::unique_ptr<const Decoder<T>> decoder;

    int64_t layers() const { return static_cast<int64_t>(weights.layers.size()); }
    int states() const { return states_of(weights.layers[0].spec.cell); }
};

template <class T>
PackedDecoder<T> checked_decoder(const Spec& spec, const py::list& layers, Score score, Feed feed,
                                 const py::object& w_q, const py::object& v, const py::object& w_c,
                                 const py::object& b_c) {
    PackedDecoder<T> made{};
    made.objects = py::make_tuple(py::tuple(layers), w_q, v, w_c, b_c);
    DecoderWeights<T>& weights = made.weights;
    weights.layers = checked_weights<T>(spec, layers, 1);
    weights.score = score, weights.feed = feed;
    made.needs = needs_of<T>(spec, weights.layers[0].H, weights.P());
    const py::array combine = checked_array("weight_combine", w_c, kNumbers<T>, {{"C"}, {"E+P"}});
    weights.C = combine.shape(0), weights.E = combine.shape(1) - weights.P();
    if (weights.C < 1 || weights.E < 1) {
        throw py::value_error("weight_combine: expected more columns than the " + std::to_string(weights.P()) +
                              " numbers of h, got " + describe(combine));
    }
    weights.w_c = static_cast<const T*>(combine.data());
    weights.b_c = read<T>("bias_combine", b_c, {{"C", weights.C}});
    weights.A = weights.P();
    if (score != Score::dot) {
        const py::array query = checked_array("weight_query", w_q, kNumbers<T>, {{"A"}, {"P", weights.P()}});
        weights.w_q = static_cast<const T*>(query.data());
        weights.A = query.shape(0);
        if (weights.A < 1) throw py::value_error("weight_query: expected at least one row");
    } else if (!w_q.is_none()) {
        throw py::type_error("weight_query: expected None, since queries are h itself");
    }
    if (score == Score::additive) weights.v = read<T>("weight_score", v, {{"A", weights.A}});
    weights.I = weights.layers[0].I - weights.fed();
    if (weights.I < 1) {
        throw py::value_error("weights: expected more inputs than the " + std::to_string(weights.fed()) +
                              " that are fed, got " + std::to_string(weights.layers[0].I));
    }
    const py::gil_scoped_release nogil;
    made.decoder = std::make_unique<const Decoder<T>>(weights);
    return made;
}

// A call: sizes, pointers, and new arrays for what it writes.
template <class T>
struct Call {
    py::object objects;
    Layout layout{};
    DecoderInput<T> input{};
    DecoderOutput<T> output{};
    int64_t sources = 0;
    bool own_keys = false;
    py::array y, weights;
    py::tuple last;
    py::object last_fed = py::none();
};

template <class T>
Call<T> checked_call(const PackedDecoder<T>& of, const py::object& x, const py::tuple& state, const py::object& fed,
                     const py::object& lengths, const py::object& memory, const py::object& keys,
                     const py::object& source_lengths, const py::object& source) {
    const DecoderWeights<T>& weights = of.weights;
    Call<T> call;
    call.objects = py::make_tuple(x, state, fed, lengths, memory, keys, source_lengths, source);
    const py::array series = checked_array("x", x, kNumbers<T>, {{"N"}, {"T"}, {"I", weights.I}});
    const int64_t N = series.shape(0), steps = series.shape(1), C = weights.C;
    call.layout = {N, steps, true, false, nullptr};
    call.layout.lengths = checked_lengths(lengths, call.layout);
    const py::array remembered = checked_array("memory", memory, kNumbers<T>, {{"sources"}, {"S"}, {"E", weights.E}});
    const int64_t sources = call.sources = remembered.shape(0), S = remembered.shape(1);
    check_size(series, call.layout, std::max({gates_of(weights.layers[0].spec.cell) * weights.layers[0].H, S, C}),
               weights.layers[0].I);
    check_size(remembered, {sources, S, true, false, nullptr}, std::max(weights.A, weights.E), weights.E);

    DecoderInput<T>& input = call.input;
    input.x = static_cast<const T*>(series.data());
    input.S = S;
    input.memory = static_cast<const T*>(remembered.data());
    call.own_keys = !keys.is_none();
    if (weights.score == Score::location) {
        if (call.own_keys) throw py::type_error("keys: expected None for scores by location");
    } else if (call.own_keys) {
        input.keys = read<T>("keys", keys, {{"sources", sources}, {"S", S}, {"A", weights.A}});
    } else if (weights.score == Score::dot && weights.A == weights.E) {
        input.keys = input.memory;
    } else {
        throw py::value_error("keys: expected float (sources, S, " + std::to_string(weights.A) + "), got None");
    }
    input.source_length = read<int64_t>("source_lengths", source_lengths, {{"sources", sources}});
    const int64_t most = weights.score == Score::location ? std::min(S, weights.A) : S;
    for (int64_t k = 0; k < sources; ++k) {
        if (input.source_length[k] >= 0 && input.source_length[k] <= most) continue;
        throw py::value_error("source_lengths: expected from 0 to " + std::to_string(most) + ", got " +
                              std::to_string(input.source_length[k]) + " at index " + std::to_string(k));
    }
    if (source.is_none()) {
        if (sources != N) {
            throw py::value_error("memory: expected " + std::to_string(N) + " sources as x has rows, got " +
                                  std::to_string(sources));
        }
    } else {
        input.source = read<int64_t>("source", source, {{"N", N}});
        for (int64_t n = 0; n < N; ++n) {
            if (input.source[n] >= 0 && input.source[n] < sources) continue;
            throw py::value_error("source: expected from 0 to " + std::to_string(sources - 1) + ", got " +
                                  std::to_string(input.source[n]) + " at index " + std::to_string(n));
        }
    }

    const auto states = static_cast<size_t>(of.states());
    if (state.size() != states) throw py::value_error("state: expected " + std::to_string(states) + " arrays");
    call.last = py::tuple(states);
    for (size_t s = 0; s < states; ++s) {
        const int64_t size = of.needs.state[s];
        input.first[s] = read_optional<T>("state", state[s], {{"L", of.layers()}, {"N", N}, {"H", size}});
        py::array last = new_array<T>({of.layers(), N, size});
        call.output.last[s] = data<T>(last);
        call.last[s] = std::move(last);
    }
    if (weights.feed == Feed::output) {
        input.first_fed = read_optional<T>("fed", fed, {{"N", N}, {"C", C}});
        py::array last = new_array<T>({N, C});
        call.output.last_fed = data<T>(last);
        call.last_fed = std::move(last);
    } else if (!fed.is_none()) {
        throw py::type_error("fed: expected None, since outputs are not fed");
    }
    call.y = new_array<T>({N, steps, C});
    call.weights = new_array<T>({N, steps, S});
    call.output.y = data<T>(call.y);
    call.output.weights = data<T>(call.weights);
    return call;
}

template <class T>
py::tuple results(const Call<T>& call) {
    return py::make_tuple(call.y, call.weights, call.last, call.last_fed);
}

template <class T>
struct DecoderRecording {
    std::shared_ptr<const PackedDecoder<T>> decoder;
    Call<T> call;
    std::unique_ptr<const DecoderTape<T>> tape;

    // Gradients of x, of the initial states, of what was fed first, of memory and keys, of w_q, v, w_c, b_c; and of
    // each layer's weights.
    py::tuple backward(const py::object& dy, const py::tuple& dstate, const py::object& dfed) const {
        const DecoderWeights<T>& weights = decoder->weights;
        const int64_t N = call.layout.N, steps = call.layout.T, S = call.input.S, C = weights.C;
        const int64_t L = decoder->layers();
        const auto states = static_cast<size_t>(decoder->states());
        DecoderOutput<const T> cotangents{};
        cotangents.y = read_optional<T>("dy", dy, {{"N", N}, {"T", steps}, {"C", C}});
        cotangents.weights = call.output.weights;
        if (dstate.size() != states) throw py::value_error("dstate: expected " + std::to_string(states) + " arrays");
        for (size_t s = 0; s < states; ++s) {
            cotangents.last[s] =
                read_optional<T>("dstate", dstate[s], {{"L", L}, {"N", N}, {"H", decoder->needs.state[s]}});
        }
        cotangents.last_fed = read_optional<T>("dfed", dfed, {{"N", N}, {"C", C}});

        DecoderGradients<T> gradients{};
        const auto make = [](T*& pointer, std::initializer_list<int64_t> shape) -> py::object {
            py::array array = new_array<T>(shape);
            pointer = data<T>(array);
            return array;
        };
        py::tuple result(10);
        result[0] = make(gradients.x, {N, steps, weights.I});
        py::tuple first(states);
        T* dfirst[kMaxStates];
        for (size_t s = 0; s < states; ++s) first[s] = make(dfirst[s], {L, N, decoder->needs.state[s]});
        result[1] = first;
        result[2] = py::none();
        if (weights.feed == Feed::output) result[2] = make(gradients.first_fed, {N, C});
        result[3] = make(gradients.memory, {N, S, weights.E});
        result[4] = py::none();
        if (call.own_keys) result[4] = make(gradients.keys, {N, S, weights.A});
        result[5] = py::none();
        result[6] = py::none();
        if (weights.w_q) result[5] = make(gradients.w_q, {weights.A, weights.P()});
        if (weights.score == Score::additive) result[6] = make(gradients.v, {weights.A});
        result[7] = make(gradients.w_c, {C, weights.E + weights.P()});
        result[8] = make(gradients.b_c, {C});
        py::tuple of_layers(static_cast<size_t>(L));
        for (int64_t l = 0; l < L; ++l) {
            const Weights<T>& layer = weights.layers[static_cast<size_t>(l)];
            const int64_t GH = gates_of(layer.spec.cell) * layer.H;
            Gradients<T>& to = gradients.layers.emplace_back();
            WeightArrays arrays;
            arrays.fill(py::none());
            arrays[0] = make(to.w_ih, {GH, layer.I});
            arrays[2] = make(to.b_ih, {GH});
            if (layer.w_hh) {
                arrays[1] = make(to.w_hh, {GH, layer.P});
                arrays[3] = make(to.b_hh, {GH});
            }
            if (layer.w_inner) arrays[4] = make(to.w_inner, {inner_rows(decoder->needs), layer.H});
            if (const int64_t biases = inner_biases(decoder->needs)) arrays[5] = make(to.b_inner, {biases});
            if (decoder->needs.vectors > 0) arrays[6] = make(to.vectors, {decoder->needs.vectors});
            for (size_t s = 0; s < states; ++s) to.first[s] = dfirst[s] + l * N * decoder->needs.state[s];
            py::tuple of_layer(kWeights);
            for (size_t w = 0; w < kWeights; ++w) of_layer[w] = arrays[w];
            of_layers[static_cast<size_t>(l)] = of_layer;
        }
        result[9] = of_layers;
        {
            const py::gil_scoped_release nogil;
            decode_backward(weights, call.input, *tape, cotangents, gradients);
        }
        return result;
    }
};

template <class T>
using Shared = std::shared_ptr<const PackedDecoder<T>>;
using AnyDecoder = std::variant<Shared<float>, Shared<double>>;
using AnyRecording = std::variant<DecoderRecording<float>, DecoderRecording<double>>;

template <class T>
AnyDecoder pack(const Spec& spec, const py::list& layers, Score score, Feed feed, const py::object& w_q,
                const py::object& v, const py::object& w_c, const py::object& b_c) {
    return std::make_shared<const PackedDecoder<T>>(checked_decoder<T>(spec, layers, score, feed, w_q, v, w_c, b_c));
}

template <class T>
py::tuple run(const Shared<T>& decoder, Call<T> call) {
    {
        const py::gil_scoped_release nogil;
        decode(*decoder->decoder, call.layout, call.input, call.output);
    }
    return results(call);
}

template <class T>
py::tuple record(const Shared<T>& decoder, Call<T> call) {
    if (call.input.source) throw py::value_error("source: expected None in training");
    std::unique_ptr<const DecoderTape<T>> tape;
    {
        const py::gil_scoped_release nogil;
        tape = std::make_unique<const DecoderTape<T>>(
            decode_for_training(*decoder->decoder, call.layout, call.input, call.output));
    }
    py::tuple outputs = results(call);
    return py::make_tuple(std::move(outputs),
                          AnyRecording(DecoderRecording<T>{decoder, std::move(call), std::move(tape)}));
}

}  // namespace

void register_decoder(py::module_& m) {
    py::enum_<Score>(m, "Score")
        .value("dot", Score::dot)
        .value("additive", Score::additive)
        .value("location", Score::location);
    py::enum_<Feed>(m, "Feed")
        .value("nothing", Feed::nothing)
        .value("output", Feed::output)
        .value("context", Feed::context);

    py::class_<AnyDecoder>(m, "Decoder")
        .def(py::init([](const Spec& spec, const py::list& layers, Score score, Feed feed, const py::object& w_q,
                         const py::object& v, const py::object& w_c, const py::object& b_c) {
            return is_single(layers) ? pack<float>(spec, layers, score, feed, w_q, v, w_c, b_c)
                                     : pack<double>(spec, layers, score, feed, w_q, v, w_c, b_c);
        }))
        .def("forward",
             [](const AnyDecoder& any, const py::object& x, const py::tuple& state, const py::object& fed,
                const py::object& lengths, const py::object& memory, const py::object& keys,
                const py::object& source_lengths, const py::object& source) {
                 return std::visit(
                     [&](const auto& decoder) {
                         return run(decoder, checked_call(*decoder, x, state, fed, lengths, memory, keys,
                                                          source_lengths, source));
                     },
                     any);
             })
        .def("record", [](const AnyDecoder& any, const py::object& x, const py::tuple& state, const py::object& fed,
                          const py::object& lengths, const py::object& memory, const py::object& keys,
                          const py::object& source_lengths) {
            return std::visit(
                [&](const auto& decoder) {
                    return record(decoder, checked_call(*decoder, x, state, fed, lengths, memory, keys, source_lengths,
                                                        py::none()));
                },
                any);
        });
    py::class_<AnyRecording>(m, "DecoderRecording")
        .def("backward",
             [](const AnyRecording& any, const py::object& dy, const py::tuple& dstate, const py::object& dfed) {
                 return std::visit([&](const auto& recording) { return recording.backward(dy, dstate, dfed); }, any);
             });
}

}  // namespace rnncore
