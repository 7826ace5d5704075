// Weights in the form that the kernels read, made from those that the caller has.
#pragma once

#include <vector>

#include "api.hpp"
#include "memory.hpp"

namespace rnncore {

// A cell and what a layer adds to it.
struct Spec {
    Cell cell;
    Options options{};
    bool skip = false;  // whether the layers of a stack but the first add what they read to their output
};

// Number of gates and of states of a cell; gates_of throws std::invalid_argument if there is no such cell.
int gates_of(Cell cell);
int states_of(Cell cell);
bool multiplies(Cell cell);  // whether a step has products
template <class T>
Needs needs_of(const Spec& spec, int64_t H, int64_t P);
// All states of a row, and the weights of all products.
int64_t state_size(const Needs& needs);
int64_t product_size(const Needs& needs);
// Rows of w_inner, and of b_inner.
int64_t inner_rows(const Needs& needs);
int64_t inner_biases(const Needs& needs);

// The caller's weights of one layer in one direction. Biases may be null, which stands for zeros.
template <class T>
struct Weights {
    Spec spec;
    int64_t I, H, P;
    const T* w_ih;     // (G*H, I)
    const T* w_hh;     // (G*H, P); null where a cell has no products
    const T* b_ih;     // (G*H)
    const T* b_hh;     // (G*H)
    const T* w_inner;  // of all inner products: (P, H) of a projection, or those of a deep transition, (rows, H)
    const T* b_inner;  // (rows), of those that have one
    const T* vectors;  // (vectors)

    const T* of(const Product& product) const { return (product.inner ? w_inner : w_hh) + product.first * product.K; }
    const T* bias_of(const Product& product) const {
        const T* bias = product.inner ? b_inner : b_hh;
        return product.bias && bias ? bias + product.first : nullptr;
    }
};

// The same as the kernels of one instruction set take them: packed, or where a single step is all they are for, just
// so. Never written again.
template <class T>
struct PackedWeights {
    int64_t I;
    bool packed;
    Array<T> memory;
    const T* w;
    const T* b_ih;
    const T* u[kMaxProducts];  // of each product, and its
    const T* b_hh[kMaxProducts];
    const T* vectors;

    // Takes the caller's as they are.
    void point_to(const Weights<T>& weights, const Needs& needs);
};

// Layers of one cell and one size on top of each other, each with one direction or two: what a forward call runs.
template <class T>
struct Stack {
    const KernelTable* kernels;
    Spec spec;
    int64_t H, P;
    Needs needs;
    int directions;
    std::vector<PackedWeights<T>> passes;  // layer by layer, and in each direction by direction

    // Packs the weights on the threads that are worth their waking, unless they are for one step of `rows` rows alone
    // (0: for anything) and so few that it does not pay.
    Stack(const std::vector<Weights<T>>& weights, int directions, int64_t rows_of_single_step = 0);

    const CellKernels<T>& cell_kernels() const;
    int64_t layers() const { return static_cast<int64_t>(passes.size()) / directions; }
    // Of a row and step of a layer with I inputs.
    double multiply_adds(int64_t I) const {
        return static_cast<double>(cell_kernels().gates * H) * static_cast<double>(I) +
               static_cast<double>(product_size(needs));
    }
};

}  // namespace rnncore
