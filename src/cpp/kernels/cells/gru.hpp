// Gated recurrent unit (Cho et al. 2014) in the reset-after form (as in torch, cuDNN and Keras), gates in the order
// r, z, n:
//
//   r, z = sigmoid(x + u)         n = tanh(x_n + r u_n)         h' = z h + (1 - z) n
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Gru {
    static constexpr int gates = 3;
    static constexpr int states = 1;
    static constexpr int saved = 4;  // r, z, n, u_n
    static constexpr bool hidden_carry = true;
    static constexpr bool split_gradient = true;

    template <class V>
    static void forward(const V* x, const V* u, const V* prev, V* next, V* saved) {
        const V r = sigmoid(x[0] + u[0]);
        // z = 1/Z and n = m/D with one division
        const V Z = sigmoid_denominator(x[1] + u[1]);
        const auto [m, D] = tanh_quotient(fma(r, u[2], x[2]));
        const V inverse = 1 / (Z * D);
        const V z = D * inverse, n = m * Z * inverse;
        next[0] = fma(z, prev[0] - n, n);
        saved[0] = r, saved[1] = z, saved[2] = n, saved[3] = u[2];
    }

    // dn = dh (1 - z) (1 - n^2)     dz = dh (h - n) z (1 - z)     dr = dn u_n r (1 - r)
    // dh_{t-1} takes dh z directly; the candidate's recurrent input takes dn r
    template <class V>
    static void backward(const V* saved, const V* prev, const V*, V dh, V* carry, V* dx, V* du) {
        const V r = saved[0], z = saved[1], n = saved[2], u_n = saved[3];
        const V dh_new = dh + carry[0];
        const V dn = dh_new * one_minus(z) * fma(-n, n, V{} + 1);
        dx[0] = du[0] = dn * u_n * (r * one_minus(r));
        dx[1] = du[1] = dh_new * (prev[0] - n) * (z * one_minus(z));
        dx[2] = dn;
        du[2] = dn * r;
        carry[0] = dh_new * z;
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
