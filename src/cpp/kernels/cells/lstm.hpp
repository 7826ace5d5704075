// Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000), gates in the order i, f, g, o:
//
//   i, f, o = sigmoid(x + u)      g = tanh(x + u)
//   c' = f c + i g                h' = o tanh(c')
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Lstm {
    static constexpr int gates = 4;
    static constexpr int states = 2;
    static constexpr int saved = 4;  // i, f, g, o; tanh(c') is computed again
    static constexpr bool hidden_carry = false;
    static constexpr bool split_gradient = false;

    template <class V>
    static void forward(const V* x, const V* u, const V* prev, V* next, V* saved) {
        const V i = sigmoid(x[0] + u[0]);
        const V f = sigmoid(x[1] + u[1]);
        const V g = tanh(x[2] + u[2]);
        const V o = sigmoid(x[3] + u[3]);
        const V c = fma(f, prev[1], i * g);
        next[0] = o * tanh(c);
        next[1] = c;
        saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o;
    }

    // do = dh tanh(c')              dc' += dh o (1 - tanh(c')^2)
    // di = dc' g    df = dc' c      dg = dc' i      dc = dc' f
    // and each gate's gradient goes through its activation: sigmoid' = s (1 - s), tanh' = 1 - t^2
    template <class V>
    static void backward(const V* saved, const V* prev, const V* next, V dh, V&, V& dc, V* dx, V* du) {
        const V i = saved[0], f = saved[1], g = saved[2], o = saved[3];
        const V t = tanh(next[1]);
        const V dc_new = fma(dh * o, fma(-t, t, V{} + 1), dc);
        dx[0] = du[0] = dc_new * g * (i * one_minus(i));
        dx[1] = du[1] = dc_new * prev[1] * (f * one_minus(f));
        dx[2] = du[2] = dc_new * i * fma(-g, g, V{} + 1);
        dx[3] = du[3] = dh * t * (o * one_minus(o));
        dc = dc_new * f;
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
