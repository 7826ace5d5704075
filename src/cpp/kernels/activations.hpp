// Activations y = f(a), each with its slope f'(a) as a function of y; over vectors and over arrays. Some have
// parameters alpha and beta, as in ONNX.
#pragma once

#include "../api.hpp"
#include "math.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <class T>
struct Parameters {
    T alpha, beta;
};

template <class V>
inline V magnitude(V a) {
    return max(a, -a);
}

struct Identity {
    template <class V>
    static V value(V a) {
        return a;
    }
    template <class V>
    static V slope(V) {
        return V{} + 1;
    }
};

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

// clip(alpha a + beta, 0, 1)
struct HardSigmoid {
    template <class V, class T>
    static V value(V a, Parameters<T> p) {
        return clamp(fma(splat(p.alpha), a, splat(p.beta)), T(0), T(1));
    }
    template <class V, class T>
    static V slope(V y, Parameters<T> p) {
        const V inside = y < 1 ? splat(p.alpha) : V{};
        return y > 0 ? inside : V{};
    }
};

// a / (1 + |a|)
struct Softsign {
    template <class V>
    static V value(V a) {
        return a / (1 + magnitude(a));
    }
    template <class V>
    static V slope(V y) {  // 1 / (1 + |a|)^2 = (1 - |y|)^2
        const V rest = 1 - magnitude(y);
        return rest * rest;
    }
};

// alpha a + beta
struct Affine {
    template <class V, class T>
    static V value(V a, Parameters<T> p) {
        return fma(splat(p.alpha), a, splat(p.beta));
    }
    template <class V, class T>
    static V slope(V, Parameters<T> p) {
        return splat(p.alpha);
    }
};

// a, or alpha a where a < 0; alpha >= 0
struct LeakyRelu {
    template <class V, class T>
    static V value(V a, Parameters<T> p) {
        return a < 0 ? a * p.alpha : a;
    }
    template <class V, class T>
    static V slope(V y, Parameters<T> p) {
        return y > 0 ? V{} + 1 : splat(p.alpha);
    }
};

// a, or 0 where a <= alpha; alpha >= 0
struct ThresholdedRelu {
    template <class V, class T>
    static V value(V a, Parameters<T> p) {
        return a <= p.alpha ? V{} : a;
    }
    template <class V, class T>
    static V slope(V y, Parameters<T>) {
        return y == 0 ? V{} : V{} + 1;
    }
};

// alpha tanh(beta a); alpha > 0
struct ScaledTanh {
    template <class V, class T>
    static V value(V a, Parameters<T> p) {
        return tanh(a * p.beta) * p.alpha;
    }
    template <class V, class T>
    static V slope(V y, Parameters<T> p) {  // alpha beta (1 - tanh(beta a)^2)
        return fma(-y * (1 / p.alpha), y, splat(p.alpha)) * p.beta;
    }
};

// a, or alpha (e^a - 1) where a < 0; alpha >= 0
struct Elu {
    template <class V, class T>
    static V value(V a, Parameters<T> p) {
        return a < 0 ? (exp(min(V{}, a)) - 1) * p.alpha : a;
    }
    template <class V, class T>
    static V slope(V y, Parameters<T> p) {
        return y > 0 ? V{} + 1 : y + p.alpha;
    }
};

// log(1 + e^a)
struct Softplus {
    template <class V>
    static V value(V a) {
        return max(V{}, a) + log(1 + exp(-magnitude(a)));
    }
    template <class V>
    static V slope(V y) {  // sigmoid(a) = 1 - e^-y
        return 1 - exp(-y);
    }
};

// y = f(a), over an array
template <class Function, class T>
void activate(const T* a, T* y, int64_t n, Parameters<T> parameters = {}) {
    each_vector<T>(n, [=](int64_t i, auto part) {
        if constexpr (requires { Function::value(load(a), parameters); }) {
            store(y + i, Function::value(load(a + i, part), parameters), part);
        } else {
            store(y + i, Function::value(load(a + i, part)), part);
        }
    });
}

// da = dy f'(a)
template <class Function, class T>
void activate_backward(const T* y, const T* dy, T* da, int64_t n, Parameters<T> parameters = {}) {
    each_vector<T>(n, [=](int64_t i, auto part) {
        const Vec<T> at = load(y + i, part);
        if constexpr (requires { Function::slope(at, parameters); }) {
            store(da + i, load(dy + i, part) * Function::slope(at, parameters), part);
        } else {
            store(da + i, load(dy + i, part) * Function::slope(at), part);
        }
    });
}

// An activation over the values of a row.
template <class T>
struct RowActivation {
    void (*forward)(const T* a, T* y, int64_t n, Parameters<T>);
    void (*backward)(const T* y, const T* dy, T* da, int64_t n, Parameters<T>);
};
template <class Function, class T>
inline constexpr RowActivation<T> row_activation = {activate<Function, T>, activate_backward<Function, T>};
template <class T>
inline constexpr RowActivation<T> row_activations[kActivations] = {
    // in the order of enum class Activation
    row_activation<Identity, T>,   row_activation<Tanh, T>,        row_activation<Sigmoid, T>,
    row_activation<Relu, T>,       row_activation<HardSigmoid, T>, row_activation<Softsign, T>,
    row_activation<Affine, T>,     row_activation<LeakyRelu, T>,   row_activation<ThresholdedRelu, T>,
    row_activation<ScaledTanh, T>, row_activation<Elu, T>,         row_activation<Softplus, T>,
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
