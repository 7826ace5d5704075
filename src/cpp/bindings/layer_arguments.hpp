// The arguments of a call of one layer in one direction: whether they are as the core takes them, and what it makes of
// them.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <utility>

#include "../engine.hpp"
#include "../pieces.hpp"
#include "arrays.hpp"
#include "call.hpp"
#include "ragged.hpp"

namespace rnncore {

inline constexpr const char* kFirst[] = {"h_0", "c_0", "n_0", "m_0"};
inline constexpr const char* kLast[] = {"dh_n", "dc_n", "dn_n", "dm_n"};
inline constexpr const char* kStart[] = {"h_reset", "c_reset", "n_reset", "m_reset"};

using States = std::array<py::object, kMaxStates>;  // None for zeros, and where a cell has no such state

// The arguments common to forward and record. The objects keep the arrays alive.
struct Arguments {
    py::object x;
    WeightArrays weights;
    States first;
    py::object lengths;
    Layout layout;

    int numbers() const {
        return py::reinterpret_borrow<py::array>(weights[0]).itemsize() == sizeof(float) ? kFloat32 : kFloat64;
    }
};

template <class Objects>
bool all_ready(const Objects& objects, int numbers) {
    return std::all_of(objects.begin(), objects.end(),
                       [=](const py::object& o) { return is_ready_or_none(o, numbers); });
}

// Whether nothing has to be converted: all arrays of the dtype of w_ih, and x with a batch axis. Weights of many
// networks are for many.cpp.
inline bool ready(const Arguments& a) {
    const py::object& w_ih = a.weights[0];
    if (!is_ready(w_ih, kFloat32 | kFloat64) || py::reinterpret_borrow<py::array>(w_ih).ndim() == 3) return false;
    const int numbers = a.numbers();
    const bool x_is_ready = is_ready(a.x, numbers)
                                ? py::reinterpret_borrow<py::array>(a.x).ndim() != 2 || as_ragged(a.lengths)
                                : as_lookup(a.x) != nullptr;
    return x_is_ready && all_ready(a.weights, numbers) && all_ready(a.first, numbers) &&
           (is_ready_or_none(a.lengths, kInt64) || as_ragged(a.lengths));
}

template <class T>
struct Layer {
    Weights<T> weights;
    Sizes sizes;
    int states;
    Input<T> input;
};

// One array for each state of (N, size), of which each may be None.
template <class T, class Objects>
void read_states(const char* const* names, const Objects& objects, const Layer<T>& layer, int64_t N, const T** to) {
    for (int s = 0; s < kMaxStates; ++s) {
        const py::object& object = objects[static_cast<size_t>(s)];
        if (s < layer.states) {
            to[s] = read_optional<T>(names[s], object, {{"N", N}, {"H", layer.sizes.state[s]}});
        } else if (!object.is_none()) {
            throw py::type_error(std::string(names[s]) + ": expected None, since this cell has no " +
                                 (s == 1 ? "cell state" : "such state"));
        }
    }
}

template <class T>
Layer<T> checked_layer(const Spec& spec, Arguments& a) {
    Layer<T> layer{};
    layer.weights = read_weights<T>(spec, a.weights, layer.sizes);
    layer.states = states_of(spec.cell);
    const int64_t I = layer.weights.I, H = layer.weights.H;
    const bool batch_first = a.layout.batch_first;
    const Lookup* lookup = as_lookup(a.x);
    const Ragged* ragged = as_ragged(a.lengths);
    const py::array x = lookup   ? checked_array("table", lookup->table, kNumbers<T>, {{"V"}, {"I", I}})
                        : ragged ? checked_array("x", a.x, kNumbers<T>, {{"R"}, {"I", I}})
                                 : checked_array("x", a.x, kNumbers<T>,
                                                 {{batch_first ? "N" : "T"}, {batch_first ? "T" : "N"}, {"I", I}});
    const py::array& series = lookup ? lookup->tokens : x;
    set_sizes(a.layout, series, ragged);
    check_size(series, a.layout, gates_of(spec.cell) * H, I);
    if (!ragged) a.layout.lengths = checked_lengths(a.lengths, a.layout);
    layer.input.x = static_cast<const T*>(x.data());
    if (lookup) {
        layer.input.tokens = checked_tokens(*lookup, a.layout);
        layer.input.V = x.shape(0);
    }
    read_states(kFirst, a.first, layer, a.layout.N, layer.input.first);
    return layer;
}

// The arrays of Output<T>, new.
template <class T>
struct NewOutput {
    py::tuple arrays;
    Output<T> pointers{};

    NewOutput(const Layer<T>& layer, const Layout& layout) : arrays(static_cast<size_t>(1 + layer.states)) {
        py::array y = new_series<T>(layout, layer.weights.P);
        pointers.y = data<T>(y);
        arrays[0] = std::move(y);
        for (int s = 0; s < layer.states; ++s) {
            py::array last = new_array<T>({layout.N, layer.sizes.state[s]});
            pointers.last[s] = data<T>(last);
            arrays[static_cast<size_t>(1 + s)] = std::move(last);
        }
    }
};

// Where states start anew in a sequence, and at what: the arguments of calls that have more than `Arguments`.
struct ResetArguments {
    py::object mask;
    States start;
};

inline bool ready(const ResetArguments& r, int numbers) {
    return is_ready(r.mask, kBool) && std::all_of(r.start.begin(), r.start.end(), [=](const py::object& start) {
               return start.is_none() ||
                      (is_ready(start, numbers) && py::reinterpret_borrow<py::array>(start).ndim() != 1);
           });
}

// None if the call has none of it.
template <class T>
struct Resets {
    Pieces pieces;
    const T* start[kMaxStates];  // (N, state), for the forward pass alone: nobody keeps them
    bool with_start[kMaxStates];
};
template <class T>
std::unique_ptr<const Resets<T>> checked_resets(const Layer<T>& layer, const Layout& layout, const ResetArguments* r) {
    if (!r) return nullptr;
    Resets<T> resets{Pieces(layout, checked_resets(r->mask, layout)), {}, {}};
    read_states(kStart, r->start, layer, layout.N, resets.start);
    for (int s = 0; s < kMaxStates; ++s) resets.with_start[s] = resets.start[s] != nullptr;
    return std::make_unique<const Resets<T>>(std::move(resets));
}

template <class T>
void read_masks(const MaskArrays& masks, const Layout& layout, Layer<T>& layer) {
    const auto like_y = [&](const char* name, const py::object& mask, int64_t size) -> const T* {
        if (layout.ragged) return read_optional<T>(name, mask, {{"R", layout.ragged->R}, {"H", size}});
        const Dim batch{"N", layout.N}, steps{"T", layout.T};
        return read_optional<T>(name, mask,
                                {layout.batch_first ? batch : steps, layout.batch_first ? steps : batch, {"H", size}});
    };
    layer.input.take[0] = like_y("h_mask", masks.h, layer.sizes.state[0]);
    layer.input.take[1] = like_y("c_mask", masks.c, layer.sizes.state[1]);
    layer.input.recurrent_mask =
        read_optional<T>("recurrent_mask", masks.recurrent, {{"N", layout.N}, {"H", layer.sizes.state[0]}});
}

// One object for each state from a tuple of as many.
inline States states_from(const py::tuple& parts) {
    States states;
    states.fill(py::none());
    if (parts.size() > states.size()) throw py::value_error("state: expected at most 4 arrays");
    for (size_t s = 0; s < parts.size(); ++s) states[s] = parts[s];
    return states;
}

inline std::optional<ResetArguments> resets_from(const py::object& resets) {
    if (resets.is_none()) return std::nullopt;
    const auto [mask, start] = resets.cast<std::pair<py::object, py::tuple>>();
    return ResetArguments{mask, states_from(start)};
}

}  // namespace rnncore
