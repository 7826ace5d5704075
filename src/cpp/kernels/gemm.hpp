// Rows times panels, with a hook for what follows: the products of a forward step, of a backward step, and of the
// input.
#pragma once

#include "panels.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

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
// left in cache.
enum class Order { ascending, descending };

// Rows times the panels `span`. sink.row(i, panel, side) says where row i of `side` panels from `panel` on goes
// (contiguous), sink.finish(begin, end, panel, side) is called when rows [begin, end) of those panels are complete.
// init is one row in panel order, or null for zero.
template <class T, class ARow, class Sink>
void multiply(int64_t rows, int64_t K, Panels panels, Span span, const T* packed, const T* init, ARow a_row, Sink sink,
              Order order = Order::ascending) {
    constexpr int L = kLanes<T>;
    if (rows == 0) return;
    const int64_t full_vectors = panels.gates * panels.panel_blocks;
    // full panels, and perhaps a narrow one behind them
    const int64_t full_end = least(span.end, panels.blocks / panels.panel_blocks);
    const int64_t full_panels = full_end > span.begin ? full_end - span.begin : 0;
    const int64_t most_rows = EvenSplit(rows, max_rows(static_cast<int>(full_vectors))).largest();
    const int64_t most_side = side_by_side(static_cast<int>(most_rows), static_cast<int>(full_vectors));
    const int64_t full_groups = full_panels <= most_side ? full_panels > 0 : ceil_div(full_panels, most_side);
    const int64_t groups = full_groups + (full_panels < span.end - span.begin);

    const auto group_at = [=](int64_t g) { return order == Order::ascending ? g : groups - 1 - g; };
    const auto panel_of = [=](int64_t group) { return span.begin + least(group * most_side, full_panels); };

    for (int64_t g = 0; g < groups; ++g) {
        const int64_t group = group_at(g), panel = panel_of(group);
        const int64_t side = group < full_groups ? least(most_side, full_end - panel) : 1;
        const int V = panels.vectors(panel);
        const RightStride stride =
            panels.stride ? RightStride{panels.stride, full_vectors * L} : RightStride{V * L, K * V * L};
        const T* b = packed + panel * full_vectors * L * (panels.stride ? 1 : K);
        const T* panel_init = init ? init + panel * full_vectors * L : kZeros<T>;

        // The first tiles bring the panel to come into L2, a share each.
        const bool more = g + 1 < groups && !panels.stride;
        const T* ahead = more ? packed + panel_of(group_at(g + 1)) * full_vectors * L * K : b;
        const int64_t shares = more ? ceil_div(full_vectors * L, kLine<T>) : 0;

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
                    tiles<T, false>.at[V][R][side](least(kBlockK, K - k), a, b + k * stride.row, stride, from, out,
                                                   p < shares ? ahead + (p * K + k) * kLine<T> : b);
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

template <class T>
void multiply_rows(int64_t rows, int64_t K, int64_t columns, const T* a, const T* b, int64_t b_stride,
                   const int64_t* caller_row, T* out) {
    const FlushDenormals guard;
    const Panels panels = column_panels<T>(columns, b_stride);
    T scratch[kScratchSize<T>];
    const auto out_row = [=](int64_t i) { return out + caller_row[i] * columns; };
    multiply(
        rows, K, panels, panels.all(), b, static_cast<const T*>(nullptr), [=](int64_t i) { return a + i * K; },
        StoreRows<T, decltype(out_row)>{columns, out_row, {panels, scratch}});
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
