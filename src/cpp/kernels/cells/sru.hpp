// The simple recurrent unit (Lei et al. 2018), gates in the order n, f, r, s, vectors v_f, v_r:
//
//   f = sigmoid(x_f + v_f c)      r = sigmoid(x_r + v_r c)      c' = f c + (1 - f) x_n      y = r c' + (1 - r) x_s
//
// The state is c. Where the skip is the input itself, x_s is made of it by weights that are one.
#pragma once

#include "cell.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Sru {
    static constexpr int gates = 4, parts = 1, outputs = 1, saved = 4, vectors = 2;  // saved: x_n, f, r, x_s

    template <class V>
    static void forward(const V* x, const V* v, const V* c, V* next, V* y, V* saved) {
        const V f = sigmoid(fma(v[0], c[0], x[1])), r = sigmoid(fma(v[1], c[0], x[2]));
        next[0] = fma(f, c[0] - x[0], x[0]);
        y[0] = fma(r, next[0] - x[3], x[3]);
        saved[0] = x[0], saved[1] = f, saved[2] = r, saved[3] = x[3];
    }

    // dr = dy (c' - x_s)     dx_s = dy (1 - r)      dc' += dy r
    // df = dc' (c - x_n)     dx_n = dc' (1 - f)     dc = dc' f + dx_f v_f + dx_r v_r
    template <class V>
    static void backward(const V* saved, const V* v, const V* c, const V* next, const V* dy, V* dc, V* dx, V* dv) {
        const V n = saved[0], f = saved[1], r = saved[2], s = saved[3];
        const V d = fma(dy[0], r, dc[0]);
        dx[0] = d * one_minus(f);
        dx[1] = d * (c[0] - n) * (f * one_minus(f));
        dx[2] = dy[0] * (next[0] - s) * (r * one_minus(r));
        dx[3] = dy[0] * one_minus(r);
        dv[0] = fma(dx[1], c[0], dv[0]);
        dv[1] = fma(dx[2], c[0], dv[1]);
        dc[0] = fma(d, f, fma(dx[1], v[0], dx[2] * v[1]));
    }
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
