// Softmax cross-entropy with its gradient, row by row (struct CrossEntropy in api.hpp):
//
//   loss = mass log(sum_c e^(x_c - max)) - sum_c q'_c (x_c - max),  mass = sum_c q'_c
//   d loss / d x = mass softmax(x) - q'
#pragma once

#include "../api.hpp"
#include "softmax.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// q' is 1 - smoothing at one class and the same at all others, but for that one's share.
template <class T>
inline double class_row(const T* x, int64_t C, int64_t target, T smoothing, T scale, T* gradient) {
    Vec<T> distance{};  // sum of x - max
    const auto [largest, sum] = softmax(x, C, [&](int64_t c, auto part, Vec<T> d, Vec<T> e) {
        if (smoothing > 0) distance += fill(d, part, T(0));
        if (gradient) store(gradient + c, e, part);
    });
    const T share = smoothing / static_cast<T>(C);
    if (gradient) {
        const Vec<T> factor = splat(scale / sum), others = splat(scale * share);
        each_vector<T>(
            C, [&](int64_t c, auto part) { store(gradient + c, load(gradient + c, part) * factor - others, part); });
        gradient[target] -= scale * (1 - smoothing);
    }
    double expected = static_cast<double>(1 - smoothing) * static_cast<double>(x[target] - largest);
    if (smoothing > 0) expected += static_cast<double>(share) * static_cast<double>(sum_of_lanes<T>(distance));
    return log(splat(static_cast<double>(sum)))[0] - expected;
}

template <class T>
inline double soft_row(const T* x, const T* q, int64_t C, T smoothing, T scale, T* gradient) {
    const T share = smoothing / static_cast<T>(C);
    const auto smoothed = [=](int64_t c, auto part) { return load(q + c, part) * (1 - smoothing) + share; };
    Vec<T> masses{}, expectations{};
    const auto [largest, sum] = softmax(x, C, [&](int64_t c, auto part, Vec<T> d, Vec<T> e) {
        const Vec<T> p = fill(smoothed(c, part), part, T(0));
        masses += p;
        expectations += p == 0 ? Vec<T>{} : p * d;  // a class that must not occur may have a logit of -inf
        if (gradient) store(gradient + c, e, part);
    });
    const T mass = sum_of_lanes<T>(masses);
    if (gradient) {
        const Vec<T> factor = splat(scale * mass / sum);
        each_vector<T>(C, [&](int64_t c, auto part) {
            store(gradient + c, load(gradient + c, part) * factor - smoothed(c, part) * scale, part);
        });
    }
    return static_cast<double>(mass) * log(splat(static_cast<double>(sum)))[0] -
           static_cast<double>(sum_of_lanes<T>(expectations));
}

template <class T>
void cross_entropy(const CrossEntropy<T>& a, Span rows) {
    const FlushDenormals guard;
    const T smoothing = static_cast<T>(a.smoothing);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
        const int64_t row = r * a.C;
        T* gradient = a.gradient ? a.gradient + row : nullptr;
        const T scale = static_cast<T>(a.scale[r]);
        if (a.scale[r] == 0) {
            a.loss[r] = 0;
            if (gradient) each_vector<T>(a.C, [&](int64_t c, auto part) { store(gradient + c, Vec<T>{}, part); });
        } else if (a.classes) {
            a.loss[r] = class_row(a.x + row, a.C, a.classes[r], smoothing, scale, gradient);
        } else {
            a.loss[r] = soft_row(a.x + row, a.q + row, a.C, smoothing, scale, gradient);
        }
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
