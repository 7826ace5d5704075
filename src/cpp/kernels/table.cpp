// The kernel table of one instruction set. Compiled once per ISA with RNNCORE_ISA naming it; exports one symbol.
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "cells/rnn.hpp"
#include "cross_entropy.hpp"
#include "ctc.hpp"
#include "linear.hpp"
#include "outer.hpp"
#include "scan.hpp"
#include "sequence.hpp"
#include "update.hpp"

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

// A function over an array, so that its accuracy can be measured from outside.
template <class Function, class T>
void map(const T* x, T* y, int64_t n) {
    const FlushDenormals guard;
    activate<Function>(x, y, n);
}

struct Exp {
    template <class V>
    static V value(V x) {
        return exp(x);
    }
};
struct Log {
    template <class V>
    static V value(V x) {
        return log(x);
    }
};

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
        pack_gates<T, 1>,
        linear<T>,
        linear_gradient<T>,
        outer_tiles,
        pack_outer_rows<T>,
        outer_panel<T>,
        unpack_outer<T>,
        outer_few_rows<T>,
        add_rows<T>,
        sgd<T>,
        rmsprop<T>,
        adam<T>,
        sum_of_squares<T>,
        scale<T>,
        cross_entropy<T>,
        ctc_workspace<T>,
        ctc<T>,
        apply_activation<T>,
        map<Sigmoid, T>,
        map<Tanh, T>,
        map<Exp, T>,
        map<Log, T>,
        kTileLines,
        kScanBlock<T>,
        scan<T>,
        scan_gradient<T>,
        summarize_scan<T>,
        summarize_scan_gradient<T>};
}

}  // namespace

extern const KernelTable kernel_table;
const KernelTable kernel_table = {kernels<float>(), kernels<double>()};

}  // namespace rnncore::RNNCORE_ISA
