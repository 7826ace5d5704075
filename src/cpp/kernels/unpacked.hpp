// Rows times weights as the caller has them, transposed on the way through registers: for a single step of a few rows,
// where packing would cost as much again. The bits are those of multiply.
#pragma once

#include "panels.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

inline constexpr int64_t kUnpackedRows = 4;

// R rows times the weights (G*H, K) of one vector of hidden units and one gate, of which `units` exist.
template <class T, int R>
void unpacked_vector(int64_t K, int64_t units, const T* const* a, const T* w, const T* init, T* const* out) {
    constexpr int64_t L = kLanes<T>;
    Vec<T> start{}, acc[R];
    if (init) start = units >= L ? load(init) : load(init, Tail{static_cast<int>(units)});
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) acc[r] = start;
    for (int64_t k = 0; k < K; k += L) {
        Vec<T> columns[L];
        load_transposed(w + k, K, units, K - k, columns);
        const int64_t present = least(L, K - k);
        for (int64_t c = 0; c < present; ++c) {
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) acc[r] = fma(splat(a[r][k + c]), columns[c], acc[r]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) store(out[r], acc[r]);
}

// As multiply: w (G*H, K) and init (G*H) or null are gate-major, rows at most kUnpackedRows.
template <class T, class ARow, class Sink>
void multiply_unpacked(int64_t rows, int64_t K, int64_t H, Panels panels, Span span, const T* w, const T* init,
                       ARow a_row, Sink sink) {
    constexpr int64_t L = kLanes<T>;
    const T* a[kUnpackedRows];
    for (int64_t r = 0; r < rows; ++r) a[r] = a_row(r);
    for (int64_t panel = span.begin; panel < span.end; ++panel) {
        for (int v = 0; v < panels.vectors(panel); ++v) {
            const int64_t unit = (panels.first_block(panel) + v / panels.gates) * L;
            const int64_t first = v % panels.gates * H + unit;
            T* out[kUnpackedRows];
            for (int64_t r = 0; r < rows; ++r) out[r] = sink.row(r, panel, 1) + v * L;
            const T* from = init ? init + first : nullptr;
            switch (rows) {
                case 1:
                    unpacked_vector<T, 1>(K, H - unit, a, w + first * K, from, out);
                    break;
                case 2:
                    unpacked_vector<T, 2>(K, H - unit, a, w + first * K, from, out);
                    break;
                case 3:
                    unpacked_vector<T, 3>(K, H - unit, a, w + first * K, from, out);
                    break;
                default:
                    unpacked_vector<T, 4>(K, H - unit, a, w + first * K, from, out);
            }
        }
        sink.finish(0, rows, panel, 1);
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
