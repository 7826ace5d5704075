// Whole calls: a stack of layers forward, one layer in one direction for training, and its backward pass. Cuts the work
// into tasks for the threads and lends the kernels their workspace; does no arithmetic of its own.
#pragma once

#include "plan.hpp"
#include "weights.hpp"

namespace rnncore {

// Initial states may be null, which stands for zeros. States of a stack are those of its passes, one after the other.
template <class T>
struct Input {
    const T* x;                       // (caller rows, I); with tokens a table, (V, I)
    const T* first[kMaxStates];       // (passes, N, H)
    const int64_t* tokens = nullptr;  // (caller rows) or null: the row of the table that is each row's input
    int64_t V = 0;

    // Whether a product is made for all rows of the table, not for each of so many packed rows. A function of nothing
    // else, since it has a part in the order in which gradients are summed. (At half of the rows, finding those of a
    // table that is too large for L2 took forward longer than their products, by 7 % at I = 32.)
    bool whole_table(int64_t packed_rows) const { return tokens && 4 * V < packed_rows; }
};

template <class T>
struct Output {
    T* y;                 // (caller rows, directions * H)
    T* last[kMaxStates];  // (passes, N, H)
};

template <class T>
struct Gradients {
    T* x;                  // (caller rows, I); with tokens (V, I), which is added to
    T* w_ih;               // (G*H, I)
    T* w_hh;               // (G*H, H)
    T* b_ih;               // (G*H)
    T* b_hh;               // (G*H)
    T* first[kMaxStates];  // (N, H)
};

// What backward needs of a forward pass besides the layer's arrays. Never written again, so backward can run many
// times, on many threads. A large batch is kept in groups of rows: backward goes through all steps of one before it
// turns to the next, so that a step's gradients stay in cache until the step before has used them.
template <class T>
struct Tape {
    struct Group {
        Plan plan;
        Array<T> states[kMaxStates];  // (N + R, H)
        Array<T> saved;               // (R, saved * H)
    };
    explicit Tape(const KernelTable* kernels) : kernels(kernels) {}
    Tape(Tape&&) = default;
    const KernelTable* kernels;  // the layout of `saved` is that of one instruction set
    std::vector<Group> groups;
};

// With two directions, the first must not be reversed in `layout`: the second is.
template <class T>
void forward(const Stack<T>& stack, const Layout& layout, const Input<T>& input, const Output<T>& output);

// One layer in one direction, with weights that are not packed.
template <class T>
void forward(const Weights<T>& weights, const Layout& layout, const Input<T>& input, const Output<T>& output);

// The same, for `backward` to follow.
template <class T>
Tape<T> forward_for_training(const Weights<T>& weights, const Layout& layout, const Input<T>& input,
                             const Output<T>& output);

// dy and dlast may be null, which stands for zeros.
template <class T>
void backward(const Weights<T>& weights, const Input<T>& input, const Tape<T>& tape, const Output<const T>& cotangents,
              const Gradients<T>& gradients);

// Number of gates and of states of a cell; gates_of throws std::invalid_argument if there is no such cell.
int gates_of(Cell cell);
int states_of(Cell cell);

}  // namespace rnncore
