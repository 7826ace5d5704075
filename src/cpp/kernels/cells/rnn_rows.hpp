// Elman's cell (1990) with options: h~ = act(x + u).
#pragma once

#include "../rowwise.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct RnnRows {
    static constexpr int gates = 1, output = 0, kept = 0, peepholes = 0, states = 1, products = 1;
    static constexpr bool split_gradient = false, projects = false;
    static constexpr bool is_candidate(int) { return true; }
    static constexpr int gates_of_product(int) { return 1; }

    template <class T>
    static void forward(const RowLayer<T>& layer, int, const RowForward<T>& row) {
        map<T>(
            layer.H, row.u[0], [](auto x, auto u) { return x + u; }, row.x, row.u[0]);
        layer.forward_gate(0, row.u[0], row.saved);
        __builtin_memcpy(row.next[0], layer.record(row.saved, 0).value, sizeof(T) * layer.H);
    }

    template <class T>
    static void backward(const RowLayer<T>& layer, int, const RowBackward<T>& row) {
        layer.backward_gate(0, row.saved, row.d[0], row.dx, row.sums);
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
