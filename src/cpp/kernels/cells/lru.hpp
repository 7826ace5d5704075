// The linear recurrent unit (Orvieto et al. 2023): h' = lambda h + s x, real or complex; y is h'. Vectors are lambda,
// of a complex one its real and its imaginary part, and s; both are made of the layer's parameters outside.
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Lru {
    static constexpr int gates = 1, parts = 1, outputs = 1, saved = 1, vectors = 2;  // saved: x

    template <class V>
    static void forward(const V* x, const V* v, const V* h, V* next, V* y, V* saved) {
        y[0] = next[0] = fma(v[0], h[0], v[1] * x[0]);
        saved[0] = x[0];
    }

    // dlambda += dh' h      ds += dh' x      dx = dh' s      dh = dh' lambda
    template <class V>
    static void backward(const V* saved, const V* v, const V* h, const V*, const V* dy, V* dh, V* dx, V* dv) {
        const V d = dh[0] + dy[0];
        dv[0] = fma(d, h[0], dv[0]);
        dv[1] = fma(d, saved[0], dv[1]);
        dx[0] = d * v[1];
        dh[0] = d * v[0];
    }
};

struct LruComplex {
    static constexpr int gates = 2, parts = 2, outputs = 2, saved = 2, vectors = 3;

    // (p + iq)(a + ib) = pa - qb + i (pb + qa)
    template <class V>
    static void forward(const V* x, const V* v, const V* h, V* next, V* y, V* saved) {
        y[0] = next[0] = fma(v[0], h[0], fma(-v[1], h[1], v[2] * x[0]));
        y[1] = next[1] = fma(v[0], h[1], fma(v[1], h[0], v[2] * x[1]));
        saved[0] = x[0], saved[1] = x[1];
    }

    // the same with gradients as pairs of real numbers: dlambda = conj(h) dh', dh = conj(lambda) dh'
    template <class V>
    static void backward(const V* saved, const V* v, const V* h, const V*, const V* dy, V* dh, V* dx, V* dv) {
        const V re = dh[0] + dy[0], im = dh[1] + dy[1];
        dv[0] = fma(re, h[0], fma(im, h[1], dv[0]));
        dv[1] = fma(im, h[0], fma(-re, h[1], dv[1]));
        dv[2] = fma(re, saved[0], fma(im, saved[1], dv[2]));
        dx[0] = re * v[2];
        dx[1] = im * v[2];
        dh[0] = fma(v[0], re, v[1] * im);
        dh[1] = fma(v[0], im, -v[1] * re);
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
