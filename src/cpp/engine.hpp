// Whole calls: a stack of layers forward, one layer in one direction for training, and its backward pass. Cuts the work
// into tasks for the threads and lends the kernels their workspace; does no arithmetic of its own.
#pragma once

#include <optional>
#include <vector>

#include "plan.hpp"
#include "weights.hpp"

namespace rnncore {

// Initial states may be null, which stands for zeros. States of a stack are those of its passes, one after the other. N
// is the number of sequences that are run: of rows, or of pieces if the layout has any.
template <class T>
struct Input {
    const T* x;                       // (caller rows, I); with tokens a table, (V, I)
    const T* first[kMaxStates];       // (passes, N, state)
    const int64_t* tokens = nullptr;  // (caller rows) or null: the row of the table that is each row's input
    int64_t V = 0;
    // For training, of one layer: which part of the new h and c is taken, and what h is multiplied with in products.
    const T* take[2] = {};              // (caller rows, state) or null
    const T* recurrent_mask = nullptr;  // (N, P) or null

    // Whether a product is made for all rows of the table, not for each of so many packed rows. A function of nothing
    // else, since it has a part in the order in which gradients are summed. (At half of the rows, finding those of a
    // table that is too large for L2 took forward longer than their products, by 7 % at I = 32.)
    bool whole_table(int64_t packed_rows) const { return tokens && 4 * V < packed_rows; }
};

template <class T>
struct Output {
    T* y;                 // (caller rows, directions * P)
    T* last[kMaxStates];  // (passes, N, state)
};

template <class T>
struct Gradients {
    T* x;        // (caller rows, I); with tokens (V, I), which is added to
    T* w_ih;     // (G*H, I)
    T* w_hh;     // (G*H, P)
    T* b_ih;     // (G*H)
    T* b_hh;     // (G*H)
    T* w_inner;  // as in Weights, and so is
    T* b_inner;
    T* vectors;            // (vectors)
    T* first[kMaxStates];  // (N, state)

    T* of(const Product& product) const { return (product.inner ? w_inner : w_hh) + product.first * product.K; }
    T* bias_of(const Product& product) const {
        return product.bias ? (product.inner ? b_inner : b_hh) + product.first : nullptr;
    }
};

// What successive steps of a batch leave for backward; `rows` are their packed rows.
template <class T>
struct Kept {
    Array<T> states[kMaxStates];     // (N + rows, state), those before the first of the steps in front
    Array<T> saved;                  // (rows, saved)
    std::vector<Array<T>> operands;  // (rows, K) of the products that have one which is not h itself; or none at all

    Kept() = default;
    Kept(const Needs& needs, int64_t N, int64_t rows, bool masked) : saved(rows * needs.saved) {
        for (int s = 0; s < kMaxStates && needs.state[s] > 0; ++s) states[s] = Array<T>((N + rows) * needs.state[s]);
        if (needs.products > 1 || masked) operands.resize(static_cast<size_t>(needs.products));
        for (size_t p = masked ? 0 : 1; p < operands.size(); ++p) {
            const Product& product = needs.product[p];
            if (product.operand == static_cast<int>(p)) operands[p] = Array<T>(rows * product.K);
        }
    }
    T* operand(int product) const {
        if (operands.empty()) return nullptr;
        return operands[static_cast<size_t>(product)];
    }
};

// What backward needs of a forward pass besides the layer's arrays. Never written again, so backward can run many
// times, on many threads. A large batch is kept in groups of rows: backward goes through all steps of one before it
// turns to the next, so that a step's gradients stay in cache until the step before has used them.
//
// With checkpoints (Chen et al. 2016), a group has no more than the states before each of its segments of steps.
// Backward runs a segment again before it goes through its steps.
template <class T>
struct Tape {
    struct Group {
        Plan plan;
        std::vector<int64_t> segments;  // boundaries, first 0, last T: of one segment if there are no checkpoints
        Kept<T> kept;                   // of all steps, or nothing
        std::vector<int64_t> checkpoint_rows;  // boundaries: where each segment has its rows in
        Array<T> checkpoints[kMaxStates];      // (checkpoint_rows.back(), state), of the rows alive at its first step
    };
    explicit Tape(const KernelTable* kernels) : kernels(kernels) {}
    Tape(Tape&&) = default;
    const KernelTable* kernels;  // the layout of `saved` is that of one instruction set
    std::vector<Group> groups;
    std::optional<Stack<T>> stack;  // to run segments again, if there are checkpoints
};

// Packed rows of a chunk of the backward pass: long enough for the products over rows to amortise their sums, short
// enough for the gate gradients to stay in cache between the time loop and those products. A function of nothing but
// this constant and the batch, since it fixes the order of summation.
inline constexpr int64_t kBackwardChunkRows = 512;

// With two directions, the first must not be reversed in `layout`: the second is.
template <class T>
void forward(const Stack<T>& stack, const Layout& layout, const Input<T>& input, const Output<T>& output);

// One layer in one direction, with weights that are not packed.
template <class T>
void forward(const Weights<T>& weights, const Layout& layout, const Input<T>& input, const Output<T>& output);

// The same, for `backward` to follow; with checkpoints every so many steps, or more to make up whole chunks, unless 0.
template <class T>
Tape<T> forward_for_training(const Weights<T>& weights, const Layout& layout, const Input<T>& input,
                             const Output<T>& output, int64_t checkpoint_every = 0);

// dy and dlast may be null, which stands for zeros.
template <class T>
void backward(const Weights<T>& weights, const Input<T>& input, const Tape<T>& tape, const Output<const T>& cotangents,
              const Gradients<T>& gradients);

}  // namespace rnncore
