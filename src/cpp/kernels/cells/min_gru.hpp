// minGRU (Feng et al. 2024), gates in the order z, n: z = sigmoid(x_z), h' = (1 - z) h + z x_n.
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct MinGru {
    static constexpr int gates = 2, parts = 1, outputs = 1, saved = 2, vectors = 0;  // saved: z, x_n

    template <class V>
    static void forward(const V* x, const V*, const V* h, V* next, V* y, V* saved) {
        const V z = sigmoid(x[0]);
        y[0] = next[0] = fma(one_minus(z), h[0], z * x[1]);
        saved[0] = z, saved[1] = x[1];
    }

    // dz = dh' (x_n - h)      dx_n = dh' z      dh = dh' (1 - z)
    template <class V>
    static void backward(const V* saved, const V*, const V* h, const V*, const V* dy, V* dh, V* dx, V*) {
        const V z = saved[0], n = saved[1], d = dh[0] + dy[0];
        dx[0] = d * (n - h[0]) * (z * one_minus(z));
        dx[1] = d * z;
        dh[0] = d * one_minus(z);
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
