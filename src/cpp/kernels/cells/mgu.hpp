// Minimal gated unit (Zhou et al. 2016), gates in the order f, n: one gate that resets and updates.
//
//   f = gate(x_f + u_f)      n = act(x_n + U_n (f h) + b)      h~ = (1 - f) h + f n
#pragma once

#include "../rowwise.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Mgu {
    static constexpr int gates = 2, output = 0, kept = 0, peepholes = 0, states = 1, products = 2;
    static constexpr bool split_gradient = false, projects = false;
    static constexpr int f = 0, n = 1;
    static constexpr bool is_candidate(int k) { return k == n; }
    static constexpr int gates_of_product(int) { return 1; }

    template <class T>
    static void forward(const RowLayer<T>& layer, int stage, const RowForward<T>& row) {
        const int64_t H = layer.H;
        T* a = row.u[stage];
        map<T>(
            H, a, [](auto x, auto u) { return x + u; }, row.x + stage * H, a);
        layer.forward_gate(stage, a, row.saved);
        const T *forget = layer.record(row.saved, f).value, *fresh = layer.record(row.saved, n).value;
        if (stage == 0) {
            map<T>(
                H, row.operand, [](auto f, auto h) { return f * h; }, forget, row.h);
        } else {
            map<T>(
                H, row.next[0], [](auto f, auto n, auto h) { return fma(f, n - h, h); }, forget, fresh,
                row.previous[0]);
        }
    }

    // dn = dh f      df = dh (n - h) + d(f h) h      dh_{t-1} takes dh (1 - f) + d(f h) f
    template <class T>
    static void backward(const RowLayer<T>& layer, int stage, const RowBackward<T>& row) {
        const int64_t H = layer.H;
        const T *forget = layer.record(row.saved, f).value, *fresh = layer.record(row.saved, n).value;
        const T *d = row.d[0], *h = row.previous[0];
        T *df = row.dx, *dn = row.dx + H;
        if (stage == 1) {
            map<T>(
                H, df, [](auto d, auto n, auto h) { return d * (n - h); }, d, fresh, h);
            map<T>(
                H, dn, [](auto d, auto f) { return d * f; }, d, forget);
            map<T>(
                H, row.dprevious[0], [](auto to, auto d, auto f) { return fma(d, 1 - f, to); }, row.dprevious[0], d,
                forget);
            layer.backward_gate(n, row.saved, dn, dn, row.sums);
        } else {
            const auto add_product = [](auto to, auto a, auto b) { return fma(a, b, to); };
            map<T>(H, df, add_product, df, row.doperand, row.h);
            map<T>(H, row.dh, add_product, row.dh, row.doperand, forget);
            layer.backward_gate(f, row.saved, df, df, row.sums);
        }
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
