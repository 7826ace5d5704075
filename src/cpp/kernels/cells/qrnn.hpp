// The quasi-recurrent network (Bradbury et al. 2017), fo-pooling, gates in the order z, f, o:
//
//   z = tanh(x_z)      f, o = sigmoid(x)      c' = f c + (1 - f) z      y = o c'
//
// The state is c.
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Qrnn {
    static constexpr int gates = 3, parts = 1, outputs = 1, saved = 3, vectors = 0;  // saved: z, f, o

    template <class V>
    static void forward(const V* x, const V*, const V* c, V* next, V* y, V* saved) {
        const V z = tanh(x[0]), f = sigmoid(x[1]), o = sigmoid(x[2]);
        next[0] = fma(f, c[0] - z, z);
        y[0] = o * next[0];
        saved[0] = z, saved[1] = f, saved[2] = o;
    }

    // do = dy c'      dc' += dy o      df = dc' (c - z)      dz = dc' (1 - f)      dc = dc' f
    template <class V>
    static void backward(const V* saved, const V*, const V* c, const V* next, const V* dy, V* dc, V* dx, V*) {
        const V z = saved[0], f = saved[1], o = saved[2], d = fma(dy[0], o, dc[0]);
        dx[0] = d * one_minus(f) * fma(-z, z, V{} + 1);
        dx[1] = d * (c[0] - z) * (f * one_minus(f));
        dx[2] = dy[0] * next[0] * (o * one_minus(o));
        dc[0] = d * f;
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
