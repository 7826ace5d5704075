// The part of the contract across the ISA boundary (api.hpp) that is about trees.
//
// R nodes of all trees, I inputs, H hidden units.
#pragma once

#include <cstdint>

namespace rnncore {

// The nodes of all trees of a forest as rows, level by level: leaves first, then nodes whose children are all leaves,
// and so on, so that a level needs nothing but what the levels below have made. In each, roots come last.
struct TreeNodes {
    const int64_t* caller_row;   // (R) row of the caller's x, y, dx and dy
    const int64_t* parent;       // (R) row of the parent; of the root of tree n, -1 - n
    const int64_t* side;         // (R) of its parent's children: 0 for the left, 1 for the right one
    const int64_t* first_child;  // (R+1) where in `child` the children of each begin, in their order
    const int64_t* child;        // (R - trees) rows
    int64_t leaves;              // rows that have none
};

enum class TreeCell : int { rnn_tanh, rnn_relu, child_sum, binary };

// How many numbers a node has: of W x, of the operand that its children's h make for the product with U, and of that.
struct TreeSizes {
    int64_t pre, operand, product;
};

inline constexpr int64_t kTreeRows = 64;  // of a block of a level at most

template <class T>
struct TreeForward {
    TreeCell cell;
    int64_t I, H;
    TreeSizes sizes;
    TreeNodes nodes;
    const T* x;         // (caller rows, I)
    bool packed;        // whether the weights are packed by pack_transposed and the biases go on with zeros to whole
                        // vectors, or all are as the caller has them: then there are no more than unpacked_rows rows
    const T* w;         // (sizes.pre, I)
    const T* b_ih;      // (sizes.pre) or null
    const T* u;         // (sizes.product, sizes.operand)
    const T* b;         // (sizes.product)
    const T* u_forget;  // (H, H) child_sum: of the forget gates, which multiplies the h of each child
    const T* b_forget;  // (H)
    T* h;               // (R, H)
    T* c;               // (R, H)
    T* forget;          // (R, H) of each node, the gate that its parent has for it
    T* y;               // (caller rows, H)
    T* operand;         // (R - leaves, sizes.operand) of the nodes that are no leaves; null if not kept
    T* gates;           // (R, 3*H) i, g, o; null if not kept
};

template <class T>
struct TreeBackward {
    TreeCell cell;
    int64_t H;
    TreeSizes sizes;
    TreeNodes nodes;
    const T* u;  // as in TreeForward, packed by pack_columns
    const T* u_forget;
    const T *h, *c, *forget, *gates;  // as forward left them
    const T* dy;                      // (caller rows, H) or null
    const T* dlast[2];                // (trees, H) gradients of the roots' h and c, or null
    T* dc;                            // (R, H) what reaches c from the parent
    T* dforget;                       // (R, H) child_sum: gradients of what goes into the forget gates
    T* dpre;                          // (caller rows, sizes.pre)
    T* du;                            // (R, sizes.product)
    T* doperand;                      // (R - leaves, sizes.operand)
};

}  // namespace rnncore
