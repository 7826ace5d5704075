// The packed form of a matrix that stands on the right of a product: panels of a few vectors of columns, each panel
// with all of k, so that a tile reads it front to back.
#pragma once

#include "../api.hpp"
#include "tile.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// How the columns of a packed operand form panels: blocks of L columns (times gates, lying together), so many blocks to
// a panel, the last panel with what is left.
struct Panels {
    int gates;
    int panel_blocks;
    int64_t blocks;
    int64_t stride = 0;  // between the rows of an operand that is not packed, whose columns fill whole blocks

    int64_t count() const { return ceil_div(blocks, panel_blocks); }
    Span all() const { return {0, count()}; }
    int64_t first_block(int64_t panel) const { return panel * panel_blocks; }
    // Vectors of `side` panels from `panel` on.
    int vectors(int64_t panel, int64_t side = 1) const {
        return gates * static_cast<int>(least(side * panel_blocks, blocks - first_block(panel)));
    }
};

// Columns [column, column + L) of up to L rows of a matrix as up to L vectors, each one column; absent rows and columns
// are zeros.
template <class T>
inline void load_transposed(const T* in, int64_t stride, int64_t rows, int64_t columns, Vec<T>* out) {
    constexpr int L = kLanes<T>;
    const Tail part{static_cast<int>(least(columns, L))};
#pragma GCC unroll 16
    for (int r = 0; r < L; ++r) {
        out[r] = r >= rows ? Vec<T>{} : columns >= L ? load(in + r * stride) : load(in + r * stride, part);
    }
    transpose(out);
}

// w (G*H, K), gate-major as torch has it, to panels of [K][block][gate][L], zeros behind the last unit.
template <class T, int G>
void pack_gates(const T* w, int64_t K, int64_t H, T* out) {
    constexpr int64_t L = kLanes<T>;
    const Panels panels{G, kMaxVectors / G, ceil_div(H, L)};
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
        const int64_t V = panels.vectors(panel);
        for (int64_t v = 0; v < V; ++v) {
            const int64_t unit = (panels.first_block(panel) + v / G) * L;
            const T* rows = w + (v % G * H + unit) * K;
            for (int64_t k = 0; k < K; k += L) {
                Vec<T> columns[L];
                load_transposed(rows + k, K, H - unit, K - k, columns);
                for (int64_t c = 0; c < least(L, K - k); ++c) store(out + ((k + c) * V + v) * L, columns[c]);
            }
        }
        out += K * V * L;
    }
}

// Of a matrix that is packed by pack_columns, or, with a stride, read as it is.
template <class T>
Panels column_panels(int64_t columns, int64_t stride = 0) {
    return {1, kMaxVectors, ceil_div(columns, kLanes<T>), stride};
}

// Columns [first, first + width) of w (K, columns), whose rows lie `stride` apart, as [K][width], width a multiple of
// L, zeros beyond the last column.
template <class T>
void copy_columns(const T* w, int64_t K, int64_t columns, int64_t stride, int64_t first, int64_t width, T* out) {
    constexpr int L = kLanes<T>;
    const int64_t present = least(width, columns - first);
    for (int64_t k = 0; k < K; ++k, out += width) {
        const T* row = w + k * stride + first;
        int64_t c = 0;
        for (; c + L <= present; c += L) store(out + c, load(row + c));
        if (c < present) store(out + c, load(row + c, Tail{static_cast<int>(present - c)}));
    }
}

template <class T>
void pack_columns(const T* w, int64_t K, int64_t columns, T* out) {
    const Panels panels = column_panels<T>(columns);
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
        const int64_t width = panels.vectors(panel) * kLanes<T>;
        copy_columns(w, K, columns, columns, panel * kMaxVectors * kLanes<T>, width, out);
        out += K * width;
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
