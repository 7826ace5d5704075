// The time loop of a reservoir, leaky units with fixed sparse weights (Jaeger 2001, Jaeger et al. 2007):
//
//   x' = (1 - leak) x + leak tanh(pre + W x),  pre = W_in u + b
//
// Every unit's sum begins with pre and takes the terms of its row of W one by one, in the order in which they lie in
// memory, each with a fused multiply-add.
//
// W comes in one of two forms.
//
// Diagonals: the sum of D cyclic ones, W[i, (i + d) mod H]. Then the terms of neighbouring units are neighbours, in W
// and in x, so there is nothing to look up: two loads and a multiply-add for L terms, on any instruction set. x is
// stored twice in a row, so that i + d needs no modulus, and once for each value of d mod L that occurs, moved by so
// much, so that loads do not cross cache lines (which costs a second one).
//
// Rows: L of them side by side, each with its own columns, whose states are gathered.
//
// 500 units with 50 inputs each, AVX-512, Zen 5, cycles a step: rows 25,000, one for each term (gather instructions
// 31,000, compressed rows term by term 27,000); diagonals 6,000, of which 3,800 are left if W comes from L1, where it
// has no room: what remains is bringing its 200 KB from L2.
#pragma once

#include "../api.hpp"
#include "activations.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// One lane of a vector in all of them.
template <int Lane, class V, int... I>
inline V broadcast(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (Lane + 0 * I)...);
}
template <int Lane, class V>
inline V broadcast(V v) {
    return broadcast<Lane>(v, std::make_integer_sequence<int, sizeof(V) / sizeof(v[0])>());
}

// p[index[l]] in lane l. (Loads and inserts: on Zen 5, gather instructions take a quarter longer with 8 lanes of
// float64 and half as long again with 4.)
template <class T, int... I>
inline Vec<T> gather(const T* p, const int32_t* index, std::integer_sequence<int, I...>) {
    return Vec<T>{p[index[I]]...};
}
template <class T>
inline Vec<T> gather(const T* p, const int32_t* index) {
    return gather(p, index, std::make_integer_sequence<int, kLanes<T>>());
}

// Vectors of units that a pass over the diagonals takes: as many sums as hide the latency of a multiply-add.
inline constexpr int kReservoirVectors = 8;

// Numbers of W by which its prefetching is ahead.
inline constexpr int64_t kReservoirAhead = 256;

// The state of L units from `i` on: of what goes into tanh to where the next step and the caller find it.
template <class T>
struct ReservoirStep {
    const Reservoir<T>& net;
    const T* before;
    T* after;
    T* out;  // (H) pre, then the new state

    template <class Part>
    void finish(int64_t i, Vec<T> a, Part part) const {
        const Vec<T> x = fma(splat(net.leak), tanh(a), splat(1 - net.leak) * load(before + net.margin + i, part));
        store(out + i, x, part);
        for (int64_t c = 0; c < net.copies; ++c) {
            T* copy = after + c * net.stride + net.margin - net.shift[c] + i;
            store(copy, x, part);
            if (net.D) store(copy + net.H, x, part);
        }
    }
    void finish(int64_t i, Vec<T> a) const {
        const int64_t left = net.H - i;
        if (left >= kLanes<T>) return finish(i, a, Full{});
        if (left > 0) finish(i, a, Tail{static_cast<int>(left)});
    }
    Vec<T> pre(int64_t i) const {
        const int64_t left = net.H - i;
        return left >= kLanes<T> ? load(out + i) : left > 0 ? load(out + i, Tail{static_cast<int>(left)}) : Vec<T>{};
    }
};

// While the sums of one block are made, which is bound by loads, the block before goes through tanh, which loads
// nothing: a vector of it after every eighth of the diagonals.
template <class T>
inline void step_diagonals(const ReservoirStep<T>& step) {
    constexpr int L = kLanes<T>, M = kReservoirVectors;
    const Reservoir<T>& net = step.net;
    const int64_t blocks = (net.H + M * L - 1) / (M * L);
    const T* values = net.values;
    Vec<T> sums[M];
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t first = b * M * L;
        const T* x = step.before + first;
        Vec<T> a[M];
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) a[m] = step.pre(first + m * L);
        int64_t d = 0;
        for (int part = 0; part < M; ++part) {
            if (b > 0) step.finish(first + (part - M) * L, sums[part], Full{});
            for (const int64_t end = net.D * (part + 1) / M; d < end; ++d, values += M * L) {
                const T* from = x + net.place[d];
                // (W from L2, ahead of the loads: a tenth of the time)
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m) __builtin_prefetch(values + kReservoirAhead + m * L);
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m) a[m] = fma(load(values + m * L), load(from + m * L), a[m]);
            }
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) sums[m] = a[m];
    }
    for (int m = 0; m < M; ++m) step.finish(((blocks - 1) * M + m) * L, sums[m]);
}

template <class T>
inline void step_rows(const ReservoirStep<T>& step) {
    constexpr int L = kLanes<T>;
    const Reservoir<T>& net = step.net;
    const T* x = step.before + net.margin;
    for (int64_t i = 0, slice = 0; i < net.H; i += L, ++slice) {
        Vec<T> a = step.pre(i);
        for (int64_t k = net.begin[slice]; k < net.begin[slice + 1]; ++k) {
            a = fma(load(net.values + k * L), gather(x, net.columns + k * L), a);
        }
        step.finish(i, a);
    }
}

template <class T>
void reservoir(const Reservoir<T>& net, Span time, T* states, T* x) {
    const FlushDenormals guard;
    const int64_t size = net.copies * net.stride;
    for (int64_t t = time.begin; t < time.end; ++t, states += net.H) {
        const ReservoirStep<T> step{net, x + t % 2 * size, x + (t + 1) % 2 * size, states};
        if (net.D) {
            step_diagonals(step);
        } else {
            step_rows(step);
        }
    }
}

// L series side by side, each in a lane: what the lanes of a load of x need lies together whatever the form of W, and W
// is read once for all: 8 series take a quarter of the time for each that rows take alone, and two thirds of that of
// diagonals. The terms of a sum come in the order in which a series alone takes them, hence the same bits.
template <class T>
struct ReservoirLanes {
    static constexpr int L = kLanes<T>;
    const Reservoir<T>& net;
    const T* before;  // (H + L, L) the first L units once more at the end
    T* after;
    T* const* rows;  // (L) each series' row, of pre and then of the new state; null where there is no series

    template <class Part>
    void load_pre(int64_t i, Vec<T>* a, Part part) const {
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) a[l] = rows[l] ? load(rows[l] + i, part) : Vec<T>{};
        transpose(a);
    }
    // a += values[m] x_(columns of m), for L units m
    template <int... M, class Column>
    void add(Vec<T>* a, Vec<T> values, Column column, std::integer_sequence<int, M...>) const {
        ((a[M] = fma(broadcast<M>(values), load(before + column(M) * L), a[M])), ...);
    }
    void sum(int64_t i, Vec<T>* a) const {
        constexpr auto lanes = std::make_integer_sequence<int, L>();
        if (net.D) {
            constexpr int64_t block = kReservoirVectors * L;
            const T* values = net.values + i / block * block * net.D + i % block;
            for (int64_t d = 0; d < net.D; ++d, values += block) {
                const int64_t wrapped = i + net.diagonals[d] - net.H;
                const int64_t first = wrapped < 0 ? wrapped + net.H : wrapped;
                add(
                    a, load(values), [=](int m) { return first + m; }, lanes);
            }
        } else {
            for (int64_t k = net.begin[i / L]; k < net.begin[i / L + 1]; ++k) {
                const int32_t* columns = net.columns + k * L;
                add(
                    a, load(net.values + k * L), [=](int m) { return int64_t{columns[m]}; }, lanes);
            }
        }
    }
    template <class Part>
    void finish(int64_t i, int units, Vec<T>* a, Part part) const {
        const Vec<T> leak = splat(net.leak), keep = splat(1 - net.leak);
        for (int m = 0; m < units; ++m) {
            const int64_t unit = i + m;
            a[m] = fma(leak, tanh(a[m]), keep * load(before + unit * L));
            store(after + unit * L, a[m]);
            if (unit < L) store(after + (net.H + unit) * L, a[m]);
        }
        transpose(a);
        for (int l = 0; l < L; ++l) {
            if (rows[l]) store(rows[l] + i, a[l], part);
        }
    }
    void step() const {
        each_vector<T>(net.H, [&](int64_t i, auto part) {
            Vec<T> a[L];
            load_pre(i, a, part);
            sum(i, a);
            finish(i, static_cast<int>(net.H - i < L ? net.H - i : L), a, part);
        });
    }
};

template <class T>
void reservoir_lanes(const Reservoir<T>& net, Span time, T* const* states, T* x) {
    const FlushDenormals guard;
    constexpr int L = kLanes<T>;
    const int64_t size = (net.H + L) * L;
    T* rows[L];
    for (int l = 0; l < L; ++l) rows[l] = states[l];
    for (int64_t t = time.begin; t < time.end; ++t) {
        ReservoirLanes<T>{net, x + t % 2 * size, x + (t + 1) % 2 * size, rows}.step();
        for (int l = 0; l < L; ++l) rows[l] = rows[l] ? rows[l] + net.H : nullptr;
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
