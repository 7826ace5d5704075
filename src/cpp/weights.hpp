// Weights in the form that the kernels read, made from those that the caller has.
#pragma once

#include <vector>

#include "api.hpp"
#include "memory.hpp"

namespace rnncore {

// The caller's weights of one layer in one direction. Biases may be null, which stands for zeros.
template <class T>
struct Weights {
    Cell cell;
    int64_t I, H;
    const T* w_ih;  // (G*H, I)
    const T* w_hh;  // (G*H, H)
    const T* b_ih;  // (G*H)
    const T* b_hh;  // (G*H)
};

// The same as the kernels of one instruction set take them: packed, or where a single step is all they are for, just
// so. Never written again.
template <class T>
struct PackedWeights {
    int64_t I;
    bool packed;
    Array<T> memory;
    const T* w;
    const T* u;
    const T* b_ih;
    const T* b_hh;
};

// Layers of one cell and one size on top of each other, each with one direction or two: what a forward call runs.
template <class T>
struct Stack {
    const KernelTable* kernels;
    Cell cell;
    int64_t H;
    int directions;
    std::vector<PackedWeights<T>> passes;  // layer by layer, and in each direction by direction

    // Packs the weights on the threads that are worth their waking, unless they are for one step of `rows` rows alone
    // (0: for anything) and so few that it does not pay.
    Stack(const std::vector<Weights<T>>& weights, int directions, int64_t rows_of_single_step = 0);

    const CellKernels<T>& cell_kernels() const;
    int64_t layers() const { return static_cast<int64_t>(passes.size()) / directions; }
};

// Number of gates and of states of a cell; gates_of throws std::invalid_argument if there is no such cell.
int gates_of(Cell cell);
int states_of(Cell cell);

int64_t round_up(int64_t n, int64_t to);

}  // namespace rnncore
