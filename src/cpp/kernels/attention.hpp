// Attention of rows, each over the steps of its source: scores, their softmax, and the mean of the memory by these
// weights (Bahdanau et al. 2015; Luong et al. 2015).
//
//   a = softmax(e) over the steps s of the source       c = sum_s a_s m_s
//
//   dot       e_s = q . k_s
//   additive  e_s = v . tanh(q + k_s)
//   location  e_s = q_s
//
// A row's sums run over units in vectors and over steps in their order, so they do not depend on other rows.
#pragma once

#include "../api.hpp"
#include "softmax.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// Steps whose scores are summed side by side, since each sum waits for itself.
inline constexpr int kScores = 4;
// Vectors that are summed side by side, with the same operand.
inline constexpr int kSide = 8;

// out[s] = sum over units of f(q, k_s), for the steps s of a source; f adds to a sum.
template <class T, class F>
inline void score_steps(int64_t steps, int64_t units, const T* q, const T* keys, T* out, F add) {
    const auto score = [&](auto count, int64_t s) {
        constexpr int n = decltype(count)::value;
        Vec<T> sum[n] = {};
        each_vector<T>(units, [&](int64_t i, auto part) {
            const Vec<T> query = load(q + i, part);
            for (int j = 0; j < n; ++j) sum[j] = add(i, part, query, load(keys + (s + j) * units + i, part), sum[j]);
        });
        for (int j = 0; j < n; ++j) out[s + j] = sum_of_lanes<T>(sum[j]);
    };
    int64_t s = 0;
    for (; s + kScores <= steps; s += kScores) score(std::integral_constant<int, kScores>{}, s);
    for (; s < steps; ++s) score(std::integral_constant<int, 1>{}, s);
}

template <class T>
inline void dot_steps(int64_t steps, int64_t units, const T* q, const T* keys, T* out) {
    score_steps(steps, units, q, keys, out,
                [](int64_t, auto, Vec<T> query, Vec<T> key, Vec<T> sum) { return fma(query, key, sum); });
}

// out (columns) = sum_s factors[s] rows[s], rows (steps, columns); some vectors of columns at a time in registers
template <class T>
inline void mix_steps(int64_t steps, int64_t columns, const T* factors, const T* rows, T* out) {
    constexpr int L = kLanes<T>;
    int64_t first = 0;
    for (; first + kSide * L <= columns; first += kSide * L) {
        Vec<T> sum[kSide] = {};
        for (int64_t s = 0; s < steps; ++s) {
            const T* row = rows + s * columns + first;
            const Vec<T> factor = splat(factors[s]);
            for (int j = 0; j < kSide; ++j) sum[j] = fma(factor, load(row + j * L), sum[j]);
        }
        for (int j = 0; j < kSide; ++j) store(out + first + j * L, sum[j]);
    }
    each_vector<T>(first, columns, [&](int64_t i, auto part) {
        Vec<T> sum{};
        for (int64_t s = 0; s < steps; ++s) sum = fma(splat(factors[s]), load(rows + s * columns + i, part), sum);
        store(out + i, sum, part);
    });
}

template <class T>
void attend(const Attention<T>& task, int64_t rows, const int64_t* source, const T* query, const int64_t* weight_row,
            T* weights, T* context, int64_t context_stride) {
    const FlushDenormals guard;
    const int64_t A = task.A;
    for (int64_t i = 0; i < rows; ++i, query += A, context += context_stride) {
        const int64_t steps = task.lengths[source[i]];
        const T* keys = task.score == Score::location ? nullptr : task.keys + source[i] * task.S * A;
        T* a = weights + weight_row[i] * task.S;
        const T* scores = a;
        if (task.score == Score::dot) {
            dot_steps(steps, A, query, keys, a);
        } else if (task.score == Score::additive) {
            const T* v = task.v;
            score_steps(steps, A, query, keys, a, [=](int64_t u, auto part, Vec<T> q, Vec<T> k, Vec<T> sum) {
                return fma(load(v + u, part), tanh(q + k), sum);
            });
        } else {
            scores = query;
        }
        const Softmax<T> all =
            softmax(scores, steps, [a](int64_t s, auto part, Vec<T>, Vec<T> e) { store(a + s, e, part); });
        const Vec<T> share = 1 / splat(all.sum);
        each_vector<T>(steps, [&](int64_t s, auto part) { store(a + s, load(a + s, part) * share, part); });
        each_vector<T>(steps, task.S, [&](int64_t s, auto part) { store(a + s, Vec<T>{}, part); });
        mix_steps(steps, task.E, a, task.memory + source[i] * task.S * task.E, context);
    }
}

// da_s = dc . m_s       de_s = a_s (da_s - sum_r a_r da_r)
//
// dot       dq = sum_s de_s k_s
// additive  dq = sum_s g_s, g_s = de_s v (1 - tanh(q + k_s)^2), which is dk_s too; dv = sum_s de_s tanh(q + k_s)
// location  dq_s = de_s
template <class T>
void attend_gradient(const Attention<T>& task, int64_t rows, const AttentionGradient<T>& to) {
    const FlushDenormals guard;
    const int64_t A = task.A;
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t source = to.source[i], steps = task.lengths[source];
        const T* query = to.query + i * A;
        const T* keys = task.score == Score::location ? nullptr : task.keys + source * task.S * A;
        const T* a = to.weights + to.weight_row[i] * task.S;
        T *dscores = to.dscores + i * task.S, *dquery = to.dquery + i * A;
        dot_steps(steps, task.E, to.dcontext + i * to.dcontext_stride, task.memory + source * task.S * task.E, dscores);
        Vec<T> sum{};
        each_vector<T>(steps,
                       [&](int64_t s, auto part) { sum = fma(load(a + s, part), load(dscores + s, part), sum); });
        const T mean = sum_of_lanes<T>(sum);
        each_vector<T>(steps, [&](int64_t s, auto part) {
            store(dscores + s, load(a + s, part) * (load(dscores + s, part) - mean), part);
        });
        each_vector<T>(steps, task.S, [&](int64_t s, auto part) { store(dscores + s, Vec<T>{}, part); });

        if (task.score == Score::dot) {
            mix_steps(steps, A, dscores, keys, dquery);
        } else if (task.score == Score::additive) {
            T *dkeys = to.dkeys + source * task.S * A, *dv = to.dv + i * A;
            each_vector<T>(A, [&](int64_t u, auto part) {
                const Vec<T> q = load(query + u, part), v = load(task.v + u, part);
                Vec<T> dq{}, dv_u = load(dv + u, part);
                for (int64_t s = 0; s < steps; ++s) {
                    const Vec<T> value = tanh(q + load(keys + s * A + u, part)), de = splat(dscores[s]);
                    const Vec<T> g = de * v * fma(-value, value, splat(T(1)));
                    T* dk = dkeys + s * A + u;
                    dv_u = fma(de, value, dv_u);
                    dq += g;
                    store(dk, load(dk, part) + g, part);
                }
                store(dquery + u, dq, part);
                store(dv + u, dv_u, part);
            });
        } else {
            __builtin_memset(dquery, 0, sizeof(T) * A);
            __builtin_memcpy(dquery, dscores, sizeof(T) * steps);
        }
    }
}

// out (M, columns) += sum_r left[r][m] right[r], over rows in their order
template <int Side, class T>
inline void sum_outer_side(int64_t count, const T* const* left, const T* const* right, int64_t first, int64_t columns,
                           T* out) {
    T* to = out + first * columns;
    each_vector<T>(columns, [&](int64_t i, auto part) {
        Vec<T> sum[Side];
        for (int j = 0; j < Side; ++j) sum[j] = load(to + j * columns + i, part);
        for (int64_t r = 0; r < count; ++r) {
            const Vec<T> row = load(right[r] + i, part);
            for (int j = 0; j < Side; ++j) sum[j] = fma(splat(left[r][first + j]), row, sum[j]);
        }
        for (int j = 0; j < Side; ++j) store(to + j * columns + i, sum[j], part);
    });
}

template <class T>
void sum_outer(int64_t count, const T* const* left, const T* const* right, int64_t M, int64_t columns, T* out) {
    const FlushDenormals guard;
    int64_t m = 0;
    for (; m + kSide <= M; m += kSide) sum_outer_side<kSide>(count, left, right, m, columns, out);
    for (; m < M; ++m) sum_outer_side<1>(count, left, right, m, columns, out);
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
