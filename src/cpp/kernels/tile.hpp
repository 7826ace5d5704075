// The micro-kernel: a tile of rows x vectors of accumulators, kept in registers while k runs.
//
// Every element of a result is acc = init, then acc = fma(a[k], b[k], acc) for k = 0, 1, 2, ... and nothing else,
// whatever tile it lies in. So its bits do not depend on the number of rows, on threads or on how k is blocked.
#pragma once

#include "simd.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Accumulators are rows x vectors. The tile leaves room for one row of B and one broadcast of A: 6 x 4, 8 x 3 or 12 x 2
// of 32 registers, 3 x 4, 4 x 3 or 6 x 2 of 16.
inline constexpr int kMaxVectors = 4;
constexpr int max_rows(int vectors) {
    const int rows = kVectorRegisters * 3 / 4 / vectors;
    return rows < 12 ? rows : 12;
}
inline constexpr int kMaxRows = 12;

// Steps of k in one turn of the loop. With 16 registers, all in use, more than one makes gcc spill an accumulator.
inline constexpr int kUnroll = kVectorRegisters == 32 ? 4 : 1;

// With few rows one panel has too few independent accumulators to hide the latency of fma (4 cycles, 2 a cycle) and
// that of the epilogue, so several panels run side by side. Narrow panels are only ever the last one.
inline constexpr int kWantedAccumulators = kVectorRegisters / 2;
constexpr int side_by_side(int rows, int vectors) {
    const int panels = kWantedAccumulators / (rows * vectors);
    return vectors < 3 || panels < 1 ? 1 : panels;
}
inline constexpr int kMaxSideBySide = kWantedAccumulators / 3;

// Values in a line of cache.
template <class T>
inline constexpr int kLine = 64 / static_cast<int>(sizeof(T));

// Between the rows and between the panels of B.
struct RightStride {
    int64_t row, panel;
};

// `ahead` is what will be read after this operand: one line of it at every k is brought into L2.
//
// out[r][p][v] = init[r][p][v] + sum over k of a[r][k] * b[p][k][v] for R rows, P panels of V vectors. A is read as
// rows (a[r] points at row r) or, if Packed, as [k][R] from a[0].
template <class T, int R, int P, int V, bool Packed>
void tile(int64_t K, const T* const* a, const T* b, RightStride stride, const T* const* init, T* const* out,
          const T* ahead) {
    constexpr int L = kLanes<T>;
    Vec<T> acc[R][P * V];
    const T* row[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        row[r] = a[Packed ? 0 : r];
#pragma GCC unroll 16
        for (int v = 0; v < P * V; ++v) acc[r][v] = load(init[r] + v * L);
    }
    const auto right = [&](int64_t k, int v) { return load(b + v / V * stride.panel + k * stride.row + v % V * L); };
    const auto left = [&](int64_t k, int r) { return splat(Packed ? row[0][k * R + r] : row[r][k]); };
#pragma GCC unroll kUnroll
    for (int64_t k = 0; k < K; ++k) {
        __builtin_prefetch(ahead + k * kLine<T>, 0, 2);
        // the operand with fewer vectors waits in registers for the other
        if constexpr (R < P * V) {
            Vec<T> ak[R];
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) ak[r] = left(k, r);
#pragma GCC unroll 16
            for (int v = 0; v < P * V; ++v) {
                const Vec<T> bv = right(k, v);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) acc[r][v] = fma(ak[r], bv, acc[r][v]);
            }
        } else {
            Vec<T> bk[P * V];
#pragma GCC unroll 16
            for (int v = 0; v < P * V; ++v) bk[v] = right(k, v);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const Vec<T> ar = left(k, r);
#pragma GCC unroll 16
                for (int v = 0; v < P * V; ++v) acc[r][v] = fma(ar, bk[v], acc[r][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < P * V; ++v) store(out[r] + v * L, acc[r][v]);
    }
}

template <class T>
using Tile = void (*)(int64_t, const T* const*, const T*, RightStride, const T* const*, T* const*, const T*);

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

    EvenSplit(int64_t whole, int64_t limit) : parts(whole > 0), size(whole), larger(0) {
        if (whole <= limit) return;  // without a division: steps of few rows notice
        parts = ceil_div(whole, limit);
        size = whole / parts;
        larger = whole % parts;
    }
    int64_t begin(int64_t part) const { return part * size + least(part, larger); }
    int64_t largest() const { return size + (larger != 0); }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
