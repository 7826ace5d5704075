// An affine map of rows with an activation as the epilogue of its product, and the gradient of what goes into the
// activation. The gradients of x, W and b are products that others here make (multiply_rows, outer_panel).
#pragma once

#include "../api.hpp"
#include "activations.hpp"
#include "gemm.hpp"
#include "unpacked.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <class T>
void apply_activation(Activation activation, const T* x, T* y, int64_t n) {
    const FlushDenormals guard;
    row_activations<T>[static_cast<int>(activation)].forward(x, y, n, {});
}

// StoreRows of one gate with an activation. (Called by pointer, row by row, so that all activations share one
// multiply.)
template <class T, class OutRow>
struct ActivateRows {
    StoreRows<T, OutRow> rows;
    void (*activation)(const T* a, T* y, int64_t n, Parameters<T>);  // or null

    T* row(int64_t i, int64_t panel, int64_t side) const { return rows.row(i, panel, side); }
    void finish(int64_t begin, int64_t end, int64_t panel, int64_t side) const {
        if (!activation) return rows.finish(begin, end, panel, side);
        const int64_t columns = least(rows.columns, rows.first_column(panel + side)) - rows.first_column(panel);
        for (int64_t i = begin; i < end; ++i) activation(row(i, panel, side), rows.out(i, panel), columns, {});
    }
};

template <class T>
void linear(const Linear<T>& task, Span rows) {
    const FlushDenormals guard;
    T scratch[kScratchSize<T>];
    const Panels panels = column_panels<T>(task.O);
    const int64_t* caller_row = task.caller_row + rows.begin;
    const auto x_row = [=, x = task.x, I = task.I](int64_t i) { return x + caller_row[i] * I; };
    const auto y_row = [=, y = task.y, stride = task.y_stride](int64_t i) { return y + caller_row[i] * stride; };
    const bool plain = task.activation == Activation::none;
    const ActivateRows<T, decltype(y_row)> sink{
        {task.O, y_row, {panels, scratch}},
        plain ? nullptr : row_activations<T>[static_cast<int>(task.activation)].forward};
    const int64_t n = rows.end - rows.begin;
    if (task.packed) {
        multiply(n, task.I, panels, panels.all(), task.weight, task.bias, x_row, sink);
    } else {
        multiply_unpacked(n, task.I, task.O, panels, panels.all(), task.weight, task.bias, x_row, sink);
    }
}

template <class T>
void linear_gradient(const Linear<T>& task, Span rows, const T* dy, T* da) {
    const FlushDenormals guard;
    const auto backward = row_activations<T>[static_cast<int>(task.activation)].backward;
    for (int64_t r = rows.begin; r < rows.end; ++r, da += task.O) {
        const int64_t at = task.caller_row[r] * task.y_stride;
        if (task.activation == Activation::none) {  // and perhaps no y
            __builtin_memcpy(da, dy + at, sizeof(T) * task.O);
        } else {
            backward(task.y + at, dy + at, da, task.O, {});
        }
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
