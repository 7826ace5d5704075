// Matrix products over packed operands: the micro-kernel, the loop over panels and row tiles with a hook for what
// follows, and the packing.
//
// Every element of a result is acc = init, then acc = fma(a[k], b[k], acc) for k = 0, 1, 2, ... and nothing else,
// whatever tile it lies in. So its bits do not depend on the number of rows, on threads or on how k is blocked.
#pragma once

#include "../api.hpp"
#include "simd.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// --- the micro-kernel ---------------------------------------------------------------------------------------------

// Accumulators are rows x vectors. The tile leaves room for one row of B and one broadcast of A: 6 x 4, 8 x 3 or 12 x 2
// of 32 registers, 3 x 4, 4 x 3 or 6 x 2 of 16.
inline constexpr int kMaxVectors = 4;
constexpr int max_rows(int vectors) {
    const int rows = kVectorRegisters * 3 / 4 / vectors;
    return rows < 12 ? rows : 12;
}
inline constexpr int kMaxRows = 12;

// With few rows one panel has too few independent accumulators to hide the latency of fma (4 cycles, 2 a cycle) and
// that of the epilogue, so several panels run side by side. Narrow panels are only ever the last one.
inline constexpr int kWantedAccumulators = kVectorRegisters / 2;
constexpr int side_by_side(int rows, int vectors) {
    const int panels = kWantedAccumulators / (rows * vectors);
    return vectors < 3 || panels < 1 ? 1 : panels;
}
inline constexpr int kMaxSideBySide = kWantedAccumulators / 3;

// out[r][p][v] = init[r][p][v] + sum over k of a[r][k] * b[p][k][v] for R rows, P panels of V vectors. A is read as
// rows (a[r] points at row r) or, if Packed, as [k][R] from a[0].
template <class T, int R, int P, int V, bool Packed>
void tile(int64_t K, const T* const* a, const T* b, int64_t panel_stride, const T* const* init, T* const* out) {
    constexpr int L = kLanes<T>;
    Vec<T> acc[R][P * V];
    const T* row[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        row[r] = a[Packed ? 0 : r];
#pragma GCC unroll 16
        for (int v = 0; v < P * V; ++v) acc[r][v] = load(init[r] + v * L);
    }
    for (int64_t k = 0; k < K; ++k) {
        Vec<T> bk[P * V];
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) bk[p * V + v] = load(b + p * panel_stride + (k * V + v) * L);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Vec<T> ar = splat(Packed ? row[0][k * R + r] : row[r][k]);
#pragma GCC unroll 16
            for (int v = 0; v < P * V; ++v) acc[r][v] = fma(ar, bk[v], acc[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < P * V; ++v) store(out[r] + v * L, acc[r][v]);
    }
}

template <class T>
using Tile = void (*)(int64_t, const T* const*, const T*, int64_t, const T* const*, T* const*);

template <class T, bool Packed>
struct Tiles {
    Tile<T> at[kMaxVectors + 1][kMaxRows + 1][kMaxSideBySide + 1] = {};

    constexpr Tiles() { fill<kMaxVectors, max_rows(kMaxVectors)>(); }

private:
    template <int V, int R>
    constexpr void fill() {
        at[V][R][1] = tile<T, R, 1, V, Packed>;
        if constexpr (!Packed) fill_side<V, R, side_by_side(R, V)>();
        if constexpr (R > 1) {
            fill<V, R - 1>();
        } else if constexpr (V > 1) {
            fill<V - 1, max_rows(V - 1)>();
        }
    }
    template <int V, int R, int P>
    constexpr void fill_side() {
        if constexpr (P > 1) {
            at[V][R][P] = tile<T, R, P, V, Packed>;
            fill_side<V, R, P - 1>();
        }
    }
};
template <class T, bool Packed>
inline constexpr Tiles<T, Packed> tiles{};

// `whole` rows in as few parts of at most `limit` as it takes, all of nearly the same size: 32 = 6 + 6 + 5 + 5 + 5 + 5.
struct EvenSplit {
    int64_t parts, size, larger;  // the first `larger` parts have one row more than `size`

    EvenSplit(int64_t whole, int64_t limit)
        : parts(ceil_div(whole, limit)), size(parts ? whole / parts : 0), larger(parts ? whole % parts : 0) {}
    int64_t begin(int64_t part) const { return part * size + least(part, larger); }
    int64_t largest() const { return size + (larger != 0); }
};

// --- rows times panels --------------------------------------------------------------------------------------------

// How the columns of a packed operand form panels: blocks of L columns (times gates, lying together), so many blocks to
// a panel, the last panel with what is left.
struct Panels {
    int gates;
    int panel_blocks;
    int64_t blocks;

    int64_t count() const { return ceil_div(blocks, panel_blocks); }
    int64_t first_block(int64_t panel) const { return panel * panel_blocks; }
    // Vectors of `side` panels from `panel` on.
    int vectors(int64_t panel, int64_t side = 1) const {
        return gates * static_cast<int>(least(side * panel_blocks, blocks - first_block(panel)));
    }
};

template <class T>
inline constexpr T kZeros[kMaxVectors * kMaxSideBySide * kLanes<T>] = {};

// k is cut into blocks so that the part of a panel in use stays in L2 while a block of rows passes over it.
inline constexpr int64_t kBlockK = 1024;
inline constexpr int64_t kTilesPerRowBlock = 8;
// Room for the rows of one row block that cannot be written in place. A row finds its slot by its number modulo this.
inline constexpr int64_t kScratchRows = kMaxRows * kTilesPerRowBlock;
template <class T>
inline constexpr int64_t kScratchSize = kScratchRows* kMaxVectors* kLanes<T>;

template <class T>
struct Scratch {
    Panels panels;
    T* data;  // (kScratchSize)

    T* row(int64_t i, int64_t panel, int64_t side) const {
        return data + i % kScratchRows * panels.vectors(panel, side) * kLanes<T>;
    }
};

// In which order panels are visited. A time loop alternates, so that a step begins with the panels that the one before
// left in cache. (Prefetching the panel in software did not help: at one row the loop runs at the bandwidth of L2.)
enum class Order { ascending, descending };

// Rows times every panel. sink.row(i, panel, side) says where row i of `side` panels from `panel` on goes (contiguous),
// sink.finish(begin, end, panel, side) is called when rows [begin, end) of those panels are complete. init is one row
// in panel order, or null for zero.
template <class T, class ARow, class Sink>
void multiply(int64_t rows, int64_t K, Panels panels, const T* packed, const T* init, ARow a_row, Sink sink,
              Order order = Order::ascending) {
    constexpr int L = kLanes<T>;
    if (rows == 0) return;
    const int64_t full_vectors = panels.gates * panels.panel_blocks;
    const int64_t full_panels = panels.blocks / panels.panel_blocks;  // and perhaps a narrow one behind them
    const int64_t most_rows = EvenSplit(rows, max_rows(static_cast<int>(full_vectors))).largest();
    const int64_t most_side = side_by_side(static_cast<int>(most_rows), static_cast<int>(full_vectors));
    const int64_t full_groups = ceil_div(full_panels, most_side);
    const int64_t groups = full_groups + (full_panels < panels.count());

    for (int64_t g = 0; g < groups; ++g) {
        const int64_t group = order == Order::ascending ? g : groups - 1 - g;
        const int64_t panel = least(group * most_side, full_panels);
        const int64_t side = group < full_groups ? least(most_side, full_panels - panel) : 1;
        const int V = panels.vectors(panel);
        const T* b = packed + panel * K * full_vectors * L;
        const T* panel_init = init ? init + panel * full_vectors * L : kZeros<T>;

        const EvenSplit split(rows, max_rows(V));
        const int64_t block_tiles = K > kBlockK ? kTilesPerRowBlock : 1;
        for (int64_t part = 0; part < split.parts; part += block_tiles) {
            const int64_t part_end = least(part + block_tiles, split.parts);
            for (int64_t k = 0; k == 0 || k < K; k += kBlockK) {
                for (int64_t p = part; p < part_end; ++p) {
                    const int64_t begin = split.begin(p), R = split.begin(p + 1) - begin;
                    const T* a[kMaxRows];
                    const T* from[kMaxRows];
                    T* out[kMaxRows];
                    for (int64_t r = 0; r < R; ++r) {
                        a[r] = a_row(begin + r) + k;
                        out[r] = sink.row(begin + r, panel, side);
                        from[r] = k ? out[r] : panel_init;
                    }
                    tiles<T, false>.at[V][R][side](least(kBlockK, K - k), a, b + k * V * L, K * V * L, from, out);
                }
            }
            sink.finish(split.begin(part), split.begin(part_end), panel, side);
        }
    }
}

// A sink that writes finished columns to rows in memory, gates and blocks in panel order with the last block of each
// row cut to its width. Whole panels are written in place, others through scratch.
template <class T, class OutRow>
struct StoreRows {
    int64_t columns;  // per gate
    OutRow out_row;
    Scratch<T> scratch;

    static constexpr int64_t L = kLanes<T>;
    int64_t first_column(int64_t panel) const { return scratch.panels.first_block(panel) * L; }
    bool whole(int64_t panel, int64_t side) const { return first_column(panel + side) <= columns; }
    T* out(int64_t i, int64_t panel) const { return out_row(i) + first_column(panel) * scratch.panels.gates; }

    T* row(int64_t i, int64_t panel, int64_t side) const {
        return whole(panel, side) ? out(i, panel) : scratch.row(i, panel, side);
    }
    void finish(int64_t begin, int64_t end, int64_t panel, int64_t side) const {
        if (whole(panel, side)) return;
        for (int64_t i = begin; i < end; ++i) {
            const T* from = scratch.row(i, panel, side);
            T* to = out(i, panel);
            for (int64_t column = first_column(panel); column < columns; column += L) {
                const int64_t width = least(L, columns - column);
                for (int g = 0; g < scratch.panels.gates; ++g, from += L, to += width) {
                    if (width == L) {
                        store(to, load(from));
                    } else {
                        store(to, load(from), Tail{static_cast<int>(width)});
                    }
                }
            }
        }
    }
};

// --- packing ------------------------------------------------------------------------------------------------------

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

template <class T>
Panels column_panels(int64_t columns) {
    return {1, kMaxVectors, ceil_div(columns, kLanes<T>)};
}

// Columns [first, first + width) of w (K, stride) as [K][width], width a multiple of L, zeros beyond the last column.
template <class T>
void copy_columns(const T* w, int64_t K, int64_t stride, int64_t first, int64_t width, T* out) {
    constexpr int L = kLanes<T>;
    const int64_t present = least(width, stride - first);
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
        copy_columns(w, K, columns, panel * kMaxVectors * kLanes<T>, width, out);
        out += K * width;
    }
}

template <class T>
void multiply_rows(int64_t rows, int64_t K, int64_t columns, const T* a, const T* b, const int64_t* caller_row,
                   T* out) {
    const FlushDenormals guard;
    const Panels panels = column_panels<T>(columns);
    T scratch[kScratchSize<T>];
    const auto out_row = [=](int64_t i) { return out + caller_row[i] * columns; };
    multiply(
        rows, K, panels, b, static_cast<const T*>(nullptr), [=](int64_t i) { return a + i * K; },
        StoreRows<T, decltype(out_row)>{columns, out_row, {panels, scratch}});
}

// --- sums over rows: C += [A | 1]' B ------------------------------------------------------------------------------

inline EvenSplit outer_split(int64_t M) {
    return EvenSplit(M, max_rows(kMaxVectors));
}
inline int64_t outer_tiles(int64_t M) {
    return outer_split(M).parts;
}

// One row tile as [rows][R], with the column of ones at its end in the last tile.
template <class T>
void pack_outer_rows(const OuterProduct<T>& product, int64_t tile, const T* a, const int64_t* a_row) {
    const EvenSplit split = outer_split(product.M);
    const int64_t begin = split.begin(tile), end = split.begin(tile + 1);
    const int64_t copied = least(end, product.M - 1) - begin;
    constexpr int64_t kFull = max_rows(kMaxVectors);
    T* out = product.a + begin * product.rows;
    for (int64_t k = 0; k < product.rows; ++k, out += end - begin) {
        const T* row = a + a_row[k] * (product.M - 1) + begin;
        if (copied == kFull) {  // a constant size, for which the copy is a few moves
            __builtin_memcpy(out, row, sizeof(T) * kFull);
            continue;
        }
        for (int64_t m = 0; m < copied; ++m) out[m] = row[m];
        if (copied < end - begin) out[copied] = 1;
    }
}

template <class T>
void outer_panel(const OuterProduct<T>& product, int64_t panel, T* packed_b) {
    const FlushDenormals guard;
    constexpr int L = kLanes<T>;
    const Panels panels = column_panels<T>(product.columns);
    const int V = panels.vectors(panel);
    const int64_t width = V * L, first = panel * kMaxVectors * L;
    copy_columns(product.b, product.rows, product.columns, first, width, packed_b);
    const EvenSplit split = outer_split(product.M);
    for (int64_t part = 0; part < split.parts; ++part) {
        const int64_t begin = split.begin(part), R = split.begin(part + 1) - begin;
        const T* a[1] = {product.a + begin * product.rows};
        const T* from[kMaxRows];
        T* out[kMaxRows];
        for (int64_t r = 0; r < R; ++r) from[r] = out[r] = product.c + first * product.M + (begin + r) * width;
        tiles<T, true>.at[V][R][1](product.rows, a, packed_b, 0, from, out);
    }
}

template <class T>
void unpack_outer(const OuterProduct<T>& product, int64_t panel, T* gradient, T* sums) {
    constexpr int64_t L = kLanes<T>;
    const int64_t first = panel * kMaxVectors * L;
    const int64_t width = column_panels<T>(product.columns).vectors(panel) * L;
    const int64_t present = least(width, product.columns - first);
    const T* c = product.c + first * product.M;
    const int64_t M = product.M - 1;
    for (int64_t m = 0; m < M; m += L) {
        for (int64_t column = 0; column < present; column += L) {
            Vec<T> rows[L];
            load_transposed(c + m * width + column, width, M - m, L, rows);
            for (int64_t l = 0; l < least(L, present - column); ++l) {
                T* to = gradient + (first + column + l) * M + m;
                if (m + L <= M) {
                    store(to, rows[l]);
                } else {
                    store(to, rows[l], Tail{static_cast<int>(M - m)});
                }
            }
        }
    }
    for (int64_t l = 0; l < present; ++l) sums[first + l] = c[M * width + l];
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
