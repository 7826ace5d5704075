// Elman's cell (1990): h' = act(x + u), act = tanh or relu.
#pragma once

#include "../activations.hpp"
#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <class Activation>
struct Rnn {
    static constexpr int gates = 1;
    static constexpr int states = 1;
    static constexpr int saved = 0;
    static constexpr bool hidden_carry = false;
    static constexpr bool split_gradient = false;

    template <class V>
    static void forward(const V* x, const V* u, const V*, V* next, V*) {
        next[0] = Activation::value(x[0] + u[0]);
    }

    // dx = du = dh act'(a)
    template <class V>
    static void backward(const V*, const V*, const V* next, V dh, V*, V* dx, V* du) {
        dx[0] = du[0] = dh * Activation::slope(next[0]);
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
