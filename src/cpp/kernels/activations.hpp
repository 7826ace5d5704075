// Activations y = f(a), each with its slope f'(a) as a function of y; over vectors and over arrays.
#pragma once

#include "math.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Tanh {
    template <class V>
    static V value(V a) {
        return tanh(a);
    }
    template <class V>
    static V slope(V y) {  // tanh'(a) = 1 - tanh(a)^2
        return fma(-y, y, V{} + 1);
    }
};

struct Sigmoid {
    template <class V>
    static V value(V a) {
        return sigmoid(a);
    }
    template <class V>
    static V slope(V y) {  // sigmoid'(a) = y (1 - y)
        return y * (1 - y);
    }
};

struct Relu {
    template <class V>
    static V value(V a) {
        return max(V{}, a);  // a NaN passes through
    }
    template <class V>
    static V slope(V y) {
        return y > 0 ? V{} + 1 : (y == 0 ? V{} : y);  // and so it does here
    }
};

// y = f(a)
template <class Function, class T>
void activate(const T* a, T* y, int64_t n) {
    each_vector<T>(n, [=](int64_t i, auto part) { store(y + i, Function::value(load(a + i, part)), part); });
}

// da = dy f'(a)
template <class Function, class T>
void activate_backward(const T* y, const T* dy, T* da, int64_t n) {
    each_vector<T>(
        n, [=](int64_t i, auto part) { store(da + i, load(dy + i, part) * Function::slope(load(y + i, part)), part); });
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
