// Gated recurrent unit with options, gates in the order r, z, n, in both forms: the reset gate after the product,
//
//   r, z = gate(x + u)       n = act(x_n + r u_n)                  h~ = z h + (1 - z) n
//
// or before it, as in the paper (Cho et al. 2014): n = act(x_n + U_n (r h) + b).
#pragma once

#include "../rowwise.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// What both forms have in common: h~ from n, z and h, and its gradients.
template <class Cell, class T>
inline void gru_state(const RowLayer<T>& layer, const RowForward<T>& row) {
    const T* z = layer.record(row.saved, Cell::z).value;
    const T* n = layer.record(row.saved, Cell::n).value;
    map<T>(
        layer.H, row.next[0], [](auto z, auto n, auto h) { return fma(z, h - n, n); }, z, n, row.previous[0]);
}

// dn = dh (1 - z)       dz = dh (h - n)       dh_{t-1} takes dh z
template <class Cell, class T>
inline void gru_state_backward(const RowLayer<T>& layer, const RowBackward<T>& row) {
    const int64_t H = layer.H;
    const T* z = layer.record(row.saved, Cell::z).value;
    const T* n = layer.record(row.saved, Cell::n).value;
    const T *d = row.d[0], *h = row.previous[0];
    T *dz = row.dx + Cell::z * H, *dn = row.dx + Cell::n * H;
    map<T>(
        H, dz, [](auto d, auto h, auto n) { return d * (h - n); }, d, h, n);
    map<T>(
        H, dn, [](auto d, auto z) { return d * (1 - z); }, d, z);
    map<T>(
        H, row.dprevious[0], [](auto to, auto d, auto z) { return fma(d, z, to); }, row.dprevious[0], d, z);
    layer.backward_gate(Cell::z, row.saved, dz, dz, row.sums);
    layer.backward_gate(Cell::n, row.saved, dn, dn, row.sums);
}

struct GruRows {
    static constexpr int gates = 3, output = 0, kept = 1, peepholes = 0, states = 1, products = 1;
    static constexpr bool split_gradient = true, projects = false;
    static constexpr int r = 0, z = 1, n = 2;
    static constexpr bool is_candidate(int k) { return k == n; }
    static constexpr int gates_of_product(int) { return 3; }

    template <class T>
    static void forward(const RowLayer<T>& layer, int, const RowForward<T>& row) {
        const int64_t H = layer.H;
        T *a = row.u[0], *u_n = layer.kept(row.saved, 0);
        map<T>(
            2 * H, a, [](auto x, auto u) { return x + u; }, row.x, a);
        layer.forward_gate(r, a, row.saved);
        layer.forward_gate(z, a + H, row.saved);
        __builtin_memcpy(u_n, a + n * H, sizeof(T) * H);
        const auto candidate = [](auto x, auto r, auto u) { return fma(r, u, x); };
        map<T>(H, a + n * H, candidate, row.x + n * H, layer.record(row.saved, r).value, u_n);
        layer.forward_gate(n, a + n * H, row.saved);
        gru_state<GruRows>(layer, row);
    }

    // with da_n of the candidate's input: du_n = da_n r       dr = da_n u_n
    template <class T>
    static void backward(const RowLayer<T>& layer, int, const RowBackward<T>& row) {
        const int64_t H = layer.H;
        gru_state_backward<GruRows>(layer, row);
        const auto times = [](auto a, auto b) { return a * b; };
        const T* da_n = row.dx + n * H;
        map<T>(H, row.dx, times, da_n, layer.kept(row.saved, 0));
        layer.backward_gate(r, row.saved, row.dx, row.dx, row.sums);
        __builtin_memcpy(row.du[0], row.dx, sizeof(T) * 2 * H);
        map<T>(H, row.du[0] + n * H, times, da_n, layer.record(row.saved, r).value);
    }
};

struct GruBefore {
    static constexpr int gates = 3, output = 0, kept = 0, peepholes = 0, states = 1, products = 2;
    static constexpr bool split_gradient = false, projects = false;
    static constexpr int r = 0, z = 1, n = 2;
    static constexpr bool is_candidate(int k) { return k == n; }
    static constexpr int gates_of_product(int product) { return product ? 1 : 2; }

    template <class T>
    static void forward(const RowLayer<T>& layer, int stage, const RowForward<T>& row) {
        const int64_t H = layer.H;
        const auto sum = [](auto x, auto u) { return x + u; };
        if (stage == 0) {
            map<T>(2 * H, row.u[0], sum, row.x, row.u[0]);
            layer.forward_gate(r, row.u[0], row.saved);
            layer.forward_gate(z, row.u[0] + H, row.saved);
            const T* reset = layer.record(row.saved, r).value;
            map<T>(
                H, row.operand, [](auto r, auto h) { return r * h; }, reset, row.h);
        } else {
            map<T>(H, row.u[1], sum, row.x + n * H, row.u[1]);
            layer.forward_gate(n, row.u[1], row.saved);
            gru_state<GruBefore>(layer, row);
        }
    }

    // with d(r h) of the candidate's product: dr = d(r h) h       dh takes d(r h) r
    template <class T>
    static void backward(const RowLayer<T>& layer, int stage, const RowBackward<T>& row) {
        const int64_t H = layer.H;
        if (stage == 1) return gru_state_backward<GruBefore>(layer, row);
        const T* reset = layer.record(row.saved, r).value;
        map<T>(
            H, row.dx, [](auto d, auto h) { return d * h; }, row.doperand, row.h);
        map<T>(
            H, row.dh, [](auto to, auto d, auto r) { return fma(d, r, to); }, row.dh, row.doperand, reset);
        layer.backward_gate(r, row.saved, row.dx, row.dx, row.sums);
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
