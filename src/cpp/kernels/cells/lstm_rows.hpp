// Long short-term memory with options; gates in the order i, f, g, o, or, coupled (f = 1 - i), i, g, o:
//
//   i, f = gate(x + u + p c)      g = act(x + u)      c~ = clip(f c + i g)
//   o = gate(x + u + p c~)        m = o act(c~)       h~ = m, or W_hr m with a projection
//
// where act(c~) normalises c~ first if the gates are normalised.
#pragma once

#include "../rowwise.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <bool Coupled>
struct LstmRows {
    static constexpr int gates = Coupled ? 3 : 4, output = 1, kept = 1, states = 2, products = 1;
    static constexpr int peepholes = Coupled ? 2 : 3;
    static constexpr bool split_gradient = false, projects = true;
    static constexpr int i = 0, f = 1, g = Coupled ? 1 : 2, o = gates - 1, t = gates;
    static constexpr bool is_candidate(int k) { return k == g; }
    static constexpr int gates_of_product(int) { return gates; }

    template <class T>
    static void forward(const RowLayer<T>& layer, int stage, const RowForward<T>& row) {
        const int64_t H = layer.H;
        if (stage == 1) {  // h~ = W_hr m
            __builtin_memcpy(row.next[0], row.u[1], sizeof(T) * layer.P);
            return;
        }
        T *a = row.u[0], *saved = row.saved;
        const T *c = row.previous[1], *p = layer.peephole;
        map<T>(
            gates * H, a, [](auto x, auto u) { return x + u; }, row.x, a);
        const auto peep = [](auto at, auto weight, auto cell) { return fma(weight, cell, at); };
        if (p) {
            map<T>(H, a + i * H, peep, a + i * H, p, c);
            if (!Coupled) map<T>(H, a + f * H, peep, a + f * H, p + H, c);
        }
        for (int k = 0; k < o; ++k) layer.forward_gate(k, a + k * H, saved);
        const auto value = [&](int k) { return layer.record(saved, k).value; };
        T* cell = layer.kept(saved, 0);
        if constexpr (Coupled) {  // (1 - i) c + i g
            map<T>(
                H, cell, [](auto i, auto g, auto c) { return fma(i, g - c, c); }, value(i), value(g), c);
        } else {
            const auto update = [](auto i, auto f, auto g, auto c) { return fma(f, c, i * g); };
            map<T>(H, cell, update, value(i), value(f), value(g), c);
        }
        if (layer.cell_clip > 0) {
            map<T>(
                H, cell, [&](auto c) { return clamp(c, -layer.cell_clip, layer.cell_clip); }, cell);
        }
        if (row.next[1] != cell) __builtin_memcpy(row.next[1], cell, sizeof(T) * H);
        if (p) map<T>(H, a + o * H, peep, a + o * H, p + (peepholes - 1) * H, cell);
        layer.forward_gate(o, a + o * H, saved);
        layer.forward_gate(t, cell, saved);
        map<T>(
            H, row.operand, [](auto o, auto t) { return o * t; }, value(o), value(t));
    }

    // do = dm act(c~)      dc~ += dm o act'(c~) + p da_o
    // di = dc~ g    df = dc~ c    dg = dc~ i    dc = dc~ f + p da_i + p da_f
    template <class T>
    static void backward(const RowLayer<T>& layer, int stage, const RowBackward<T>& row) {
        const int64_t H = layer.H;
        if (stage == 1) {
            __builtin_memcpy(row.du[1], row.d[0], sizeof(T) * layer.P);
            return;
        }
        const T *saved = row.saved, *c = row.previous[1], *p = layer.peephole, *dm = row.doperand;
        const T* cell = layer.kept(saved, 0);
        const auto value = [&](int k) { return layer.record(saved, k).value; };
        const auto times = [](auto a, auto b) { return a * b; };
        const auto sum = [](auto a, auto b) { return a + b; };
        const auto add_product = [](auto to, auto a, auto b) { return fma(a, b, to); };
        const auto da = [&](int k) { return row.dx + k * H; };
        const auto peep = [&](int k, int index, const T* state, T* dstate) {
            map<T>(H, row.sums + index * H, add_product, row.sums + index * H, da(k), state);
            map<T>(H, dstate, add_product, dstate, da(k), p + index * H);
        };

        T* dcell = row.room;
        map<T>(H, dcell, times, dm, value(o));
        layer.backward_gate(t, saved, dcell, dcell, row.sums);
        map<T>(H, dcell, sum, dcell, row.d[1]);
        map<T>(H, da(o), times, dm, value(t));
        layer.backward_gate(o, saved, da(o), da(o), row.sums);
        if (p) peep(o, peepholes - 1, cell, dcell);
        if (layer.cell_clip > 0) {
            const auto passed = [&](auto c, auto d) { return magnitude(c) < layer.cell_clip ? d : decltype(d){}; };
            map<T>(H, dcell, passed, cell, dcell);
        }

        if constexpr (Coupled) {
            const auto of_i = [](auto d, auto g, auto c) { return d * (g - c); };
            map<T>(H, da(i), of_i, dcell, value(g), c);
            const auto of_c = [](auto to, auto d, auto i) { return fma(d, 1 - i, to); };
            map<T>(H, row.dprevious[1], of_c, row.dprevious[1], dcell, value(i));
        } else {
            map<T>(H, da(i), times, dcell, value(g));
            map<T>(H, da(f), times, dcell, c);
            map<T>(H, row.dprevious[1], add_product, row.dprevious[1], dcell, value(f));
        }
        map<T>(H, da(g), times, dcell, value(i));
        for (int k = 0; k < o; ++k) layer.backward_gate(k, saved, da(k), da(k), row.sums);
        if (p) {
            peep(i, 0, c, row.dprevious[1]);
            if (!Coupled) peep(f, 1, c, row.dprevious[1]);
        }
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
