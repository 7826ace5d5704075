// The kernel table of one instruction set. Compiled once per ISA with RNNCORE_ISA naming it; exports one symbol.
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "cells/rnn.hpp"
#include "cross_entropy.hpp"
#include "ctc.hpp"
#include "outer.hpp"
#include "sequence.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <class Cell, class T>
constexpr CellKernels<T> cell_kernels() {
    return {Cell::gates,          Cell::states,
            Cell::saved,          Cell::hidden_carry,
            Cell::split_gradient, forward_panels<Cell, T>,
            backward_panels<T>,   pack_gates<T, Cell::gates>,
            input<Cell, T>,       forward<Cell, T>,
            backward<Cell, T>,    backward_first<Cell, T>};
}

// f over an array, so that its accuracy can be measured from outside.
template <class T, class F>
void map(const T* x, T* y, int64_t n, F f) {
    const FlushDenormals guard;
    each_vector<T>(n, [=](int64_t i, auto part) { store(y + i, f(load(x + i, part)), part); });
}
template <class T>
void map_sigmoid(const T* x, T* y, int64_t n) {
    map(x, y, n, [](Vec<T> v) { return sigmoid(v); });
}
template <class T>
void map_tanh(const T* x, T* y, int64_t n) {
    map(x, y, n, [](Vec<T> v) { return tanh(v); });
}
template <class T>
void map_exp(const T* x, T* y, int64_t n) {
    map(x, y, n, [](Vec<T> v) { return exp(v); });
}
template <class T>
void map_log(const T* x, T* y, int64_t n) {
    map(x, y, n, [](Vec<T> v) { return log(v); });
}

template <class T>
constexpr Kernels<T> kernels() {
    return {
        kLanes<T>,
        kUnpackedRows,
        kFewRows,
        kLanes<T> * kMaxVectors,
        // in the order of enum class Cell
        {cell_kernels<Rnn<Tanh>, T>(), cell_kernels<Rnn<Relu>, T>(), cell_kernels<Lstm, T>(), cell_kernels<Gru, T>()},
        pack_columns<T>,
        multiply_rows<T>,
        outer_tiles,
        pack_outer_rows<T>,
        outer_panel<T>,
        unpack_outer<T>,
        outer_few_rows<T>,
        cross_entropy<T>,
        ctc_workspace<T>,
        ctc<T>,
        map_sigmoid<T>,
        map_tanh<T>,
        map_exp<T>,
        map_log<T>};
}

}  // namespace

extern const KernelTable kernel_table;
const KernelTable kernel_table = {kernels<float>(), kernels<double>()};

}  // namespace rnncore::RNNCORE_ISA
