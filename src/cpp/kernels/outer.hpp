// Sums over rows, C += [A | 1]' B: the gradients of weights and, from the column of ones, of biases. Both operands are
// packed once per chunk of rows. And sums of the rows that share an index.
#pragma once

#include "../api.hpp"
#include "panels.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

inline EvenSplit outer_split(int64_t M) {
    return EvenSplit(M, max_rows(kMaxVectors));
}
inline int64_t outer_tiles(int64_t M) {
    return outer_split(M).parts;
}

// Columns [begin, begin + Copied) of rows of a as [rows][Copied], or [rows][Copied + 1] with a column of ones. (The
// size is a constant so that the copy of a row is a few moves.)
template <int Copied, class T>
void pack_outer_tile(const OuterProduct<T>& product, int64_t begin, bool ones, const T* a, const int64_t* a_row,
                     T* out) {
    const T* columns = a + begin;
    const int64_t stride = product.M - 1;
    for (int64_t k = 0; k < product.rows; ++k, out += Copied + ones) {
        __builtin_memcpy(out, columns + a_row[k] * stride, sizeof(T) * Copied);
        if (ones) out[Copied] = 1;
    }
}

template <int Copied, class T>
void pack_outer_tile_of(int64_t copied, const OuterProduct<T>& product, int64_t begin, bool ones, const T* a,
                        const int64_t* a_row, T* out) {
    if (copied == Copied) return pack_outer_tile<Copied>(product, begin, ones, a, a_row, out);
    if constexpr (Copied > 0) pack_outer_tile_of<Copied - 1>(copied, product, begin, ones, a, a_row, out);
}

// One row tile as [rows][R], with the column of ones at its end in the last tile.
template <class T>
void pack_outer_rows(const OuterProduct<T>& product, int64_t tile, const T* a, const int64_t* a_row) {
    const EvenSplit split = outer_split(product.M);
    const int64_t begin = split.begin(tile), end = split.begin(tile + 1);
    const int64_t copied = least(end, product.M - 1) - begin;
    pack_outer_tile_of<max_rows(kMaxVectors)>(copied, product, begin, copied < end - begin, a, a_row,
                                              product.a + begin * product.rows);
}

template <class T>
void outer_panel(const OuterProduct<T>& product, int64_t panel, T* packed_b) {
    const FlushDenormals guard;
    constexpr int L = kLanes<T>;
    const Panels panels = column_panels<T>(product.columns);
    const int V = panels.vectors(panel);
    const int64_t width = V * L, first = panel * kMaxVectors * L;
    copy_columns(product.b, product.rows, product.columns, product.b_stride, first, width, packed_b);
    const EvenSplit split = outer_split(product.M);
    for (int64_t part = 0; part < split.parts; ++part) {
        const int64_t begin = split.begin(part), R = split.begin(part + 1) - begin;
        const T* a[1] = {product.a + begin * product.rows};
        const T* from[kMaxRows];
        T* out[kMaxRows];
        for (int64_t r = 0; r < R; ++r) from[r] = out[r] = product.c + first * product.M + (begin + r) * width;
        tiles<T, true>.at[V][R][1](product.rows, a, packed_b, {width, 0}, from, out, packed_b);
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

// The same for few rows, in the same bits: gradient (columns, M-1) and sums (columns) at once, nothing packed.
inline constexpr int64_t kFewRows = 8;

template <class T>
void outer_few_rows(const OuterProduct<T>& product, const T* a, const int64_t* a_row, T* gradient, T* sums) {
    const FlushDenormals guard;
    constexpr int64_t L = kLanes<T>;
    const int64_t M = product.M - 1, rows = product.rows, columns = product.columns, stride = product.b_stride;
    // A strip of A waits in registers for a block of columns: few, since each is a row of the gradient. (For all
    // columns at once, the backward pass of one row of 256 inputs and units took 1.3 times as long.)
    constexpr int64_t kBlock = 32;
    for (int64_t begin = 0; begin < columns; begin += kBlock) {
        const int64_t end = least(begin + kBlock, columns);
        const auto strip = [&](int64_t m, auto part) {
            Vec<T> a_strip[kFewRows];
            for (int64_t k = 0; k < rows; ++k) a_strip[k] = load(a + a_row[k] * M + m, part);
            for (int64_t column = begin; column < end; ++column) {
                Vec<T> acc{};
                for (int64_t k = 0; k < rows; ++k) acc = fma(a_strip[k], splat(product.b[k * stride + column]), acc);
                store(gradient + column * M + m, acc, part);
            }
        };
        int64_t m = 0;
        for (; m + L <= M; m += L) strip(m, Full{});
        if (m < M) strip(m, Tail{static_cast<int>(M - m)});
    }

    const auto sum = [&](int64_t column, auto part) {
        Vec<T> acc{};
        for (int64_t k = 0; k < rows; ++k) acc += load(product.b + k * stride + column, part);
        store(sums + column, acc, part);
    };
    int64_t column = 0;
    for (; column + L <= columns; column += L) sum(column, Full{});
    if (column < columns) sum(column, Tail{static_cast<int>(columns - column)});
}

template <class T>
void add_rows(int64_t rows, int64_t columns, Span span, const T* a, const int64_t* to_row, T* out) {
    const FlushDenormals guard;
    constexpr int64_t L = kLanes<T>;
    for (int64_t r = 0; r < rows; ++r) {
        const T* from = a + r * columns;
        T* to = out + to_row[r] * columns;
        int64_t c = span.begin;
        for (; c + L <= span.end; c += L) store(to + c, load(to + c) + load(from + c));
        if (c < span.end) {
            const Tail part{static_cast<int>(span.end - c)};
            store(to + c, load(to + c, part) + load(from + c, part), part);
        }
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
