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
// Rows: L of them side by side, each with its own columns, whose states are gathered. At 500 units of which each has 50
// inputs this takes 25,000 cycles a step, about a cycle for each term, against 3,600: a load for each term is the
// bound, and gather instructions (31,000) and compressed rows (27,000) are no better.
#pragma once

#include "../api.hpp"
#include "activations.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// Vectors of units that a pass over the diagonals takes: as many sums as hide the latency of a multiply-add.
inline constexpr int kReservoirVectors = 8;

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

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
