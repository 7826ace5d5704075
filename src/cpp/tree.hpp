// Whole calls of networks over trees, forward and backward: cuts each level of a forest into blocks of rows for the
// threads and lends the kernels their workspace; does no arithmetic of its own.
#pragma once

#include <cstdint>

#include "forest.hpp"
#include "memory.hpp"

namespace rnncore {

TreeSizes tree_sizes(TreeCell cell, int64_t H);

// What a call is about. Arrays are as the caller has them.
template <class T>
struct TreeCall {
    const Forest* forest;
    TreeCell cell;
    int64_t I, H;
    const T* x;         // (R, I)
    const T* weight;    // (sizes.pre, I)
    const T* bias;      // (sizes.pre) or null
    const T* u;         // (sizes.product, sizes.operand)
    const T* b;         // (sizes.product)
    const T* u_forget;  // (H, H) of child_sum, null of others
    const T* b_forget;  // (H)
};

// What forward leaves for backward. All in the order of the forest's rows.
template <class T>
struct TreeTape {
    T *h, *c, *forget, *operand, *gates;
    Arrays<T> memory;
};

// y (R, H) and the roots' states (trees, H), last[1] only of cells that have a c. tape may be null.
template <class T>
void tree_forward(const KernelTable& table, const TreeCall<T>& call, T* y, T* const* last, TreeTape<T>* tape);

template <class T>
struct TreeGradients {
    T* x;  // (R, I)
    T *weight, *bias;
    T *u, *b;
    T *u_forget, *b_forget;
};

// dy (R, H) or null, dlast (trees, H) or null each. The tape is only read.
template <class T>
void tree_backward(const KernelTable& table, const TreeCall<T>& call, const TreeTape<T>& tape, const T* dy,
                   const T* const* dlast, const TreeGradients<T>& gradients);

}  // namespace rnncore
