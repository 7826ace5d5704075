// The kernel table of one instruction set. Compiled once per ISA with RNNCORE_ISA naming it; exports one symbol.
#include "attention.hpp"
#include "cells/gru.hpp"
#include "cells/gru_rows.hpp"
#include "cells/ind_rnn.hpp"
#include "cells/lru.hpp"
#include "cells/lstm.hpp"
#include "cells/lstm_rows.hpp"
#include "cells/mgu.hpp"
#include "cells/min_gru.hpp"
#include "cells/min_lstm.hpp"
#include "cells/qrnn.hpp"
#include "cells/rnn.hpp"
#include "cells/rnn_rows.hpp"
#include "cells/slstm.hpp"
#include "cells/sru.hpp"
#include "cross_entropy.hpp"
#include "ctc.hpp"
#include "elementwise.hpp"
#include "linear.hpp"
#include "outer.hpp"
#include "reservoir.hpp"
#include "rows.hpp"
#include "scan.hpp"
#include "sequence.hpp"
#include "trees.hpp"
#include "update.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// Cells that are the epilogue of their product.
template <class Cell, class T>
constexpr CellKernels<T> fused() {
    return {Cell::gates,
            Cell::states,
            true,
            true,
            Cell::gates,
            needs<Cell, T>,
            forward_panels<Cell, T>,
            backward_panels<T>,
            pack_interleaved<Cell, T>,
            input<Cell::gates, T>,
            forward<Cell, T>,
            backward<Cell, T>,
            backward_first<Cell, T>};
}

// Cells that work row by row and take options.
template <class Cell, class T>
constexpr CellKernels<T> by_rows() {
    return {Cell::gates,
            Cell::states,
            true,
            false,
            1,
            row_needs<Cell, T>,
            one_panel,
            one_panel,
            pack_gates<T, 1>,
            input_rows<Cell, T>,
            forward_rows<Cell, T>,
            backward_rows<Cell, T>,
            backward_first_rows<Cell, T>};
}

// Cells without a product.
template <class Cell, class T>
constexpr CellKernels<T> elementwise() {
    return {Cell::gates,
            1,
            false,
            false,
            1,
            elementwise_needs<Cell, T>,
            one_panel,
            one_panel,
            pack_gates<T, 1>,
            input_rows<Cell, T>,
            forward_elementwise<Cell, T>,
            backward_elementwise<Cell, T>,
            backward_first_elementwise<Cell, T>};
}

// A function over an array, so that its accuracy can be measured from outside.
template <class Function, class T>
void map(const T* x, T* y, int64_t n) {
    const FlushDenormals guard;
    activate<Function, T>(x, y, n);
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
    return {kLanes<T>,
            kUnpackedRows,
            kFewRows,
            kLanes<T> * kMaxVectors,
            // in the order of enum class Cell
            {
                fused<Rnn<Tanh>, T>(),
                fused<Rnn<Relu>, T>(),
                fused<Lstm, T>(),
                fused<Gru, T>(),
                fused<Slstm, T>(),
                by_rows<RnnRows, T>(),
                by_rows<LstmRows<false>, T>(),
                by_rows<LstmRows<true>, T>(),
                by_rows<GruRows, T>(),
                by_rows<GruBefore, T>(),
                by_rows<Mgu, T>(),
                elementwise<IndRnn<Relu>, T>(),
                elementwise<IndRnn<Tanh>, T>(),
                elementwise<MinGru, T>(),
                elementwise<MinLstm, T>(),
                elementwise<Sru, T>(),
                elementwise<Qrnn, T>(),
                elementwise<Lru, T>(),
                elementwise<LruComplex, T>(),
            },
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
            summarize_scan_gradient<T>,
            attend<T>,
            attend_gradient<T>,
            sum_outer<T>,
            tree_forward<T>,
            tree_backward<T>};
}

}  // namespace

extern const KernelTable kernel_table;
const KernelTable kernel_table = {kernels<float>(),
                                  kernels<double>(),
                                  {kLanes<double> * kReservoirVectors, reservoir<double>, reservoir_lanes<double>}};

}  // namespace rnncore::RNNCORE_ISA
