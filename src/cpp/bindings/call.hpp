// What calls of one layer and of a stack of layers have in common: checks of sizes, lengths and tokens.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "../plan.hpp"
#include "../weights.hpp"
#include "arrays.hpp"

namespace rnncore {

// Every size the engine computes stays far inside 64 bits; ValueError otherwise. `units` is the largest number of
// values a step makes for one row.
void check_size(const py::array& x, const Layout& layout, int64_t units, int64_t inputs);

// The lengths of the rows, each in [0, T], or null for None.
const int64_t* checked_lengths(py::handle lengths, const Layout& layout);

// Where states start anew: bool, laid out like the steps of x.
const uint8_t* checked_resets(py::handle mask, const Layout& layout);

// Sets N and T by a series, which is x or the tokens in place of it, and, where it has no padding, all that `ragged`
// says.
void set_sizes(Layout& layout, const py::array& series, const Ragged* ragged);

// A new series laid out like x, (N, T, size) or (T, N, size) or (R, size).
template <class T>
py::array new_series(const Layout& layout, int64_t size) {
    if (layout.ragged) return new_array<T>({layout.ragged->R, size});
    const auto [N, T_] = std::pair(layout.N, layout.T);
    return new_array<T>({layout.batch_first ? N : T_, layout.batch_first ? T_ : N, size});
}

// A series whose steps are rows of a table, in place of x.
struct Lookup {
    py::array table;     // (V, I)
    py::array tokens;    // (N, T) or (T, N), or (R): rows of the table
    py::array gradient;  // (V, I), which backward adds to
};
// Null if x is none.
const Lookup* as_lookup(py::handle x);

// The tokens of a call, each in [0, V) but for those of padded steps.
const int64_t* checked_tokens(const Lookup& lookup, const Layout& layout);

// The arrays of one layer in one direction: w_ih, w_hh, b_ih, b_hh, w_inner, b_inner, vectors. None where a layer
// has no such thing.
inline constexpr size_t kWeights = 7;
using WeightArrays = std::array<py::object, kWeights>;
// From a tuple, which may end after b_hh.
WeightArrays weight_arrays(py::handle tuple);
// What a call has to know of what a layer needs. (Small calls notice a copy of all that products are.)
struct Sizes {
    int64_t state[kMaxStates];
    int64_t vectors, inner_rows, inner_biases;
};
// Sets `sizes` too.
template <class T>
Weights<T> read_weights(const Spec& spec, const WeightArrays& arrays, Sizes& sizes);

// Weights of layers that fit on top of each other, a tuple for each pass, and whether the first is float32. TypeError
// or ValueError otherwise.
template <class T>
std::vector<Weights<T>> checked_weights(const Spec& spec, const py::list& weights, int directions);
bool is_single(const py::list& weights);

// What is between a series of one layer and the caller's: masks of the new states laid out like y, and of h (N, P).
struct MaskArrays {
    py::object h, c, recurrent;
};

void register_lookup(py::module_& m);
void register_spec(py::module_& m);

}  // namespace rnncore
