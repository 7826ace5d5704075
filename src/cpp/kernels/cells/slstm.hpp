// The sLSTM of xLSTM (Beck et al. 2024), gates in the order i, f, g, o: exponential input gates, a normaliser n, and a
// stabiliser m, which keeps their exponents at or below 0. States in the order h, c, n, m:
//
//   k  = log sigmoid(x_f + u_f) + m      m' = max(k, a_i), and a_i where n = 0, at the start
//   i  = e^(a_i - m')                    f  = e^(k - m'), and 0 at the start
//   c' = f c + i tanh(x_g + u_g)         n' = f n + i         h' = sigmoid(x_o + u_o) c' / n'
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Slstm {
    static constexpr int gates = 4;
    static constexpr int states = 4;
    static constexpr int saved = 5;  // i, f, g, o, sigmoid(-a_f)
    static constexpr bool hidden_carry = false;
    static constexpr bool split_gradient = false;

    template <class V>
    static void forward(const V* x, const V* u, const V* prev, V* next, V* saved) {
        const V a_i = x[0] + u[0], a_f = x[1] + u[1];
        const V log_f = min(V{}, a_f) - log(1 + exp(-max(a_f, -a_f)));
        const V k = log_f + prev[3];
        const V kept = k > a_i ? k : a_i;
        const V m = prev[2] == 0 ? a_i : kept;
        const V i = exp(a_i - m), carried = exp(k - m);
        const V f = prev[2] == 0 ? V{} : carried;
        const V g = tanh(x[2] + u[2]), o = sigmoid(x[3] + u[3]);
        next[1] = fma(f, prev[1], i * g);
        next[2] = fma(f, prev[2], i);
        next[3] = m;
        next[0] = o * (next[1] / next[2]);
        saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o, saved[4] = sigmoid(-a_f);
    }

    // do = dh c' / n'      dc' += dh o / n'      dn' -= dh h' / n'
    // di = dc' g + dn'     df = dc' c + dn' n    dg = dc' i       dc = dc' f    dn = dn' f
    // da_i = di i          dk = df f             dm' -= da_i + dk, and goes to the larger of k and a_i
    template <class V>
    static void backward(const V* saved, const V* prev, const V* next, V dh, V* carry, V* dx, V* du) {
        const V i = saved[0], f = saved[1], g = saved[2], o = saved[3];
        const V share = dh / next[2];
        const V dc = fma(share, o, carry[1]), dn = fma(-share, next[0], carry[2]);
        const V da_i = fma(dc, g, dn) * i, dk = fma(dc, prev[1], dn * prev[2]) * f;
        const V dm = carry[3] - da_i - dk;
        const V to_i = f < 1 ? dm : V{};  // m' = k makes f = 1
        const V dk_all = dk + (dm - to_i);
        dx[0] = du[0] = da_i + to_i;
        dx[1] = du[1] = dk_all * saved[4];
        dx[2] = du[2] = dc * i * fma(-g, g, V{} + 1);
        dx[3] = du[3] = share * next[1] * (o * one_minus(o));
        carry[1] = dc * f;
        carry[2] = dn * f;
        carry[3] = dk_all;
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
