// One step of an optimiser in one pass: each vector of parameters, gradients and moments is read once, and what changes
// is written once. Every element is computed alike, wherever it stands, so no cut of the vectors changes a bit.
//
// The formulas are those of torch.optim, in its order of rounding but for the fused multiply-adds.
#pragma once

#include "../api.hpp"
#include "simd.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// f(i, part) for the vector that begins at each element i.
template <class T, class F>
inline void each_vector(Span elements, F f) {
    constexpr int L = kLanes<T>;
    int64_t i = elements.begin;
    for (; i + L <= elements.end; i += L) f(i, Full{});
    if (i < elements.end) f(i, Tail{static_cast<int>(elements.end - i)});
}

template <class T>
inline Vec<T> constant(double x) {
    return splat(static_cast<T>(x));
}

//   d = g + decay p
//   b = momentum b + d,  d = b                   with momentum
//                        d = d + momentum b      with Nesterov's
//   p = p - rate d
//
// moments: b
template <class T>
void sgd(const Sgd& rule, const Update<T>& update, Span elements) {
    const FlushDenormals guard;
    const Vec<T> rate = constant<T>(-rule.rate), momentum = constant<T>(rule.momentum),
                 decay = constant<T>(rule.weight_decay);
    const bool nesterov = rule.nesterov;
    const Update<T> at = update;
    each_vector<T>(elements, [=](int64_t i, auto part) {
        const Vec<T> p = load(at.parameters + i, part);
        Vec<T> d = fma(decay, p, load(at.gradients + i, part));
        if (at.moments[0]) {
            const Vec<T> b = fma(momentum, load(at.moments[0] + i, part), d);
            store(at.moments[0] + i, b, part);
            d = nesterov ? fma(momentum, b, d) : b;
        }
        store(at.parameters + i, fma(rate, d, p), part);
    });
}

//   d = g + decay p
//   v = alpha v + (1 - alpha) d^2
//   a = a + (1 - alpha) (d - a)                       if centered
//   d = d / (sqrt(v) + eps)                           or, centered, sqrt(v - a^2), which rounding may take below zero
//   b = momentum b + d,  d = b                        with momentum
//   p = p - rate d
//
// moments: v, a, b
template <class T>
void rmsprop(const Rmsprop& rule, const Update<T>& update, Span elements) {
    const FlushDenormals guard;
    const Vec<T> rate = constant<T>(-rule.rate), alpha = constant<T>(rule.alpha),
                 one_minus_alpha = constant<T>(1 - rule.alpha), eps = constant<T>(rule.eps),
                 momentum = constant<T>(rule.momentum), decay = constant<T>(rule.weight_decay);
    const Update<T> at = update;
    each_vector<T>(elements, [=](int64_t i, auto part) {
        const Vec<T> p = load(at.parameters + i, part);
        Vec<T> d = fma(decay, p, load(at.gradients + i, part));
        Vec<T> v = fma(one_minus_alpha * d, d, alpha * load(at.moments[0] + i, part));
        store(at.moments[0] + i, v, part);
        if (at.moments[1]) {
            Vec<T> a = load(at.moments[1] + i, part);
            a = fma(one_minus_alpha, d - a, a);
            store(at.moments[1] + i, a, part);
            v = max(Vec<T>{}, fma(-a, a, v));
        }
        d = d / (sqrt(v) + eps);
        if (at.moments[2]) {
            d = fma(momentum, load(at.moments[2] + i, part), d);
            store(at.moments[2] + i, d, part);
        }
        store(at.parameters + i, fma(rate, d, p), part);
    });
}

//   d = g + decay p
//   m = m + (1 - beta1) (d - m)
//   v = beta2 v + (1 - beta2) d^2
//   p = keep p - rate m / (sqrt(v) root_scale + eps)
//
// moments: m, v. The last line is not fused, as in torch's code: fused, float32 AdamW was off by 1.07e-6 after 200
// steps.
template <class T>
void adam(const Adam& rule, const Update<T>& update, Span elements) {
    const FlushDenormals guard;
    const Vec<T> rate = constant<T>(-rule.rate), one_minus_beta1 = constant<T>(1 - rule.beta1),
                 beta2 = constant<T>(rule.beta2), one_minus_beta2 = constant<T>(1 - rule.beta2),
                 root_scale = constant<T>(rule.root_scale), eps = constant<T>(rule.eps),
                 decay = constant<T>(rule.weight_decay), keep = constant<T>(rule.keep);
    const Update<T> at = update;
    each_vector<T>(elements, [=](int64_t i, auto part) {
        const Vec<T> p = load(at.parameters + i, part);
        const Vec<T> d = fma(decay, p, load(at.gradients + i, part));
        Vec<T> m = load(at.moments[0] + i, part);
        m = fma(one_minus_beta1, d - m, m);
        const Vec<T> v = fma(one_minus_beta2 * d, d, beta2 * load(at.moments[1] + i, part));
        store(at.moments[0] + i, m, part);
        store(at.moments[1] + i, v, part);
        store(at.parameters + i, keep * p + rate * m / fma(sqrt(v), root_scale, eps), part);
    });
}

inline Vec<double> add_squares(Vec<double> sum, Vec<double> v) {
    return fma(v, v, sum);
}
inline Vec<double> add_squares(Vec<double> sum, Vec<float> v) {
    return add_squares(add_squares(sum, widen<0>(v)), widen<1>(v));
}

template <class T>
double sum_of_squares(const T* x, Span elements) {
    const FlushDenormals guard;
    constexpr int L = kLanes<T>;
    Vec<double> sums[4] = {};  // as many as hide the latency of a sum: with one this takes twice the time
    int64_t i = elements.begin;
    for (; i + 4 * L <= elements.end; i += 4 * L) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) sums[k] = add_squares(sums[k], load(x + i + k * L));
    }
    each_vector<T>({i, elements.end}, [&](int64_t j, auto part) { sums[0] = add_squares(sums[0], load(x + j, part)); });
    const Vec<double> lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double sum = 0;
    for (int l = 0; l < kLanes<double>; ++l) sum += lanes[l];
    return sum;
}

template <class T>
void scale(T* x, T factor, Span elements) {
    const FlushDenormals guard;
    const Vec<T> f = splat(factor);
    each_vector<T>(elements, [=](int64_t i, auto part) { store(x + i, f * load(x + i, part), part); });
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
