// minLSTM (Feng et al. 2024), gates in the order f, i, n, with gates that are normalised to a sum of one:
//
//   f, i = sigmoid(x)      h' = (f h + i x_n) / (f + i)
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct MinLstm {
    static constexpr int gates = 3, parts = 1, outputs = 1, saved = 3, vectors = 0;  // saved: f, i, x_n

    template <class V>
    static void forward(const V* x, const V*, const V* h, V* next, V* y, V* saved) {
        const V f = sigmoid(x[0]), i = sigmoid(x[1]), share = 1 / (f + i);
        y[0] = next[0] = fma(f * share, h[0], i * share * x[2]);
        saved[0] = f, saved[1] = i, saved[2] = x[2];
    }

    // with d = dh' / (f + i):    df = d (h - h')    di = d (x_n - h')    dx_n = d i    dh = d f
    template <class V>
    static void backward(const V* saved, const V*, const V* h, const V* next, const V* dy, V* dh, V* dx, V*) {
        const V f = saved[0], i = saved[1], n = saved[2], d = (dh[0] + dy[0]) / (f + i);
        dx[0] = d * (h[0] - next[0]) * (f * one_minus(f));
        dx[1] = d * (n - next[0]) * (i * one_minus(i));
        dx[2] = d * i;
        dh[0] = d * f;
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
