// Exponentials of a row of logits, each against the largest, so that none overflows and at least one is 1.
#pragma once

#include "math.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// softmax(x)_c = e^(x_c - max) / sum
template <class T>
struct Softmax {
    T max, sum;
};

// Calls f(c, part, d, e) with d = x - max and e = e^d of every vector of classes. Lanes that take no part have d = -inf
// and e = 0. A NaN anywhere in the row makes the sum NaN, and so does an infinite largest logit.
template <class T, class F>
inline Softmax<T> softmax(const T* x, int64_t C, F f) {
    constexpr T kNone = -static_cast<T>(__builtin_inf());
    Vec<T> top = splat(kNone), sum{};
    each_vector<T>(C, [&](int64_t c, auto part) { top = max(top, fill(load(x + c, part), part, kNone)); });
    const T largest = largest_lane<T>(top);
    each_vector<T>(C, [&](int64_t c, auto part) {
        const Vec<T> d = fill(load(x + c, part) - largest, part, kNone);
        const Vec<T> e = fill(exp(d), part, T(0));  // (where the row is all -inf, d is NaN)
        sum += e;
        f(c, part, d, e);
    });
    return {largest, sum_of_lanes<T>(sum)};
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
