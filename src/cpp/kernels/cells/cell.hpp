// What a cell is to the time loop. A cell is a struct of constants and two pointwise functions over vectors; it knows
// nothing of time, batch or memory.
//
//   gates           G, the number of gates
//   states          1: the hidden state h alone; 2: h and a cell state c
//   saved           vectors per hidden unit that forward leaves for backward, besides the states
//   hidden_carry    whether part of dh_{t-1} bypasses the recurrent product (h' = z*h + ...)
//   split_gradient  whether du differs from dx for some gate
//
//   forward (x[G], u[G], prev[states], next[states], saved[])
//       x = W x_t + b_ih and u = U h_{t-1} + b_hh arrive apart; next is the new state, h first.
//   backward(saved[], prev[states], next[states], dh, carry[states], dx[G], du[G])
//       dh is the gradient of the new h without what carry[0] holds. carry holds the gradients that reach the new state
//       and is replaced by those of the previous one; carry[0] only if there is a hidden_carry. dx and du are the
//       gradients of x and u.
#pragma once

#include "../math.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <class V>
inline V one_minus(V x) {
    return 1 - x;
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
