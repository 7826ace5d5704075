// The independently recurrent network (Li et al. 2018), h' = act(x + u h), act = relu or tanh; u is a vector.
#pragma once

#include "../activations.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <class Activation>
struct IndRnn {
    static constexpr int gates = 1, parts = 1, outputs = 1, saved = 0, vectors = 1;

    template <class V>
    static void forward(const V* x, const V* u, const V* h, V* next, V* y, V*) {
        y[0] = next[0] = Activation::value(fma(u[0], h[0], x[0]));
    }

    // dx = dh' act'      du += dx h      dh = dx u
    template <class V>
    static void backward(const V*, const V* u, const V* h, const V* next, const V* dy, V* dh, V* dx, V* du) {
        dx[0] = (dh[0] + dy[0]) * Activation::slope(next[0]);
        du[0] = fma(dx[0], h[0], du[0]);
        dh[0] = dx[0] * u[0];
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
