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

    // With i = 1/I, f = 1/F, g = n/D and o = 1/O, tanh(c') = m/E: two divisions instead of five,
    //
    //   c' = (I D c + F n) / (I F D)      h' = m / (O E)
    template <class V>
    static void forward(const V* x, const V* u, const V* prev, V* next, V* saved) {
        const V I = sigmoid_denominator(x[0] + u[0]);
        const V F = sigmoid_denominator(x[1] + u[1]);
        const auto [n, D] = tanh_quotient(x[2] + u[2]);
        const V ID = I * D;
        const V inverse = 1 / (F * ID);
        const V c = fma(ID, prev[1], F * n) * inverse;

        const V O = sigmoid_denominator(x[3] + u[3]);
        const auto [m, E] = tanh_quotient(c);
        const V inverse_h = 1 / (O * E);
        next[0] = m * inverse_h;
        next[1] = c;
        saved[0] = F * D * inverse, saved[1] = ID * inverse, saved[2] = I * F * n * inverse, saved[3] = E * inverse_h;
    }

    // do = dh tanh(c')              dc' += dh o (1 - tanh(c')^2)
    // di = dc' g    df = dc' c      dg = dc' i      dc = dc' f
    // and each gate's gradient goes through its activation: sigmoid' = s (1 - s), tanh' = 1 - t^2
    template <class V>
    static void backward(const V* saved, const V* prev, const V* next, V dh, V* carry, V* dx, V* du) {
        const V i = saved[0], f = saved[1], g = saved[2], o = saved[3];
        const V t = tanh(next[1]);
        const V dc_new = fma(dh * o, fma(-t, t, V{} + 1), carry[1]);
        dx[0] = du[0] = dc_new * g * (i * one_minus(i));
        dx[1] = du[1] = dc_new * prev[1] * (f * one_minus(f));
        dx[2] = du[2] = dc_new * i * fma(-g, g, V{} + 1);
        dx[3] = du[3] = dh * t * (o * one_minus(o));
        carry[1] = dc_new * f;
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
