// sigmoid(x) = 1 / (1 + e^-x) and tanh(x) over vectors of float32 and float64, one division each, without branches; and
// exp and log, at the end of the file.
//
// A division takes as long as ten other operations and more, so both also come as quotients that are not divided yet:
// a cell that needs several of them divides once, by the product of their denominators (invert).
//
// Every function reduces its argument by a multiple of ln 2 (or half of it), so that a short polynomial on a small
// interval and a power of two written straight into the exponent bits give the exponential. NaN returns NaN, the
// infinities return the limits, and no result leaves [0, 1] or [-1, 1]. Denormals are expected to be flushed
// (FlushDenormals): float64 sigmoid(-inf) is 0 only then.
//
//   function   operations (divisions included)   largest error         with fused multiply-add    without
//   sigmoid    float32: 14                       absolute              1.167e-7                   1.181e-7
//   tanh       float32: 15                       in ulp of the result  2.496                      2.496
//   sigmoid    float64: 26                       in ulp of the result  2.0                        2.0
//   tanh       float64: 33                       in ulp of the result  1.5                        1.5
//
// float32 was measured on every bit pattern, against the float64 functions below; over all of them, in order from -inf
// to +inf, float32 sigmoid never decreases, and float32 tanh is exactly odd. float64 was measured on 20 million points
// (random at every scale, dense where an error term peaks) against 113-bit arithmetic; its errors hold where the
// result is a normal number.
//
// Coefficients are minimax: Remez exchange in 50-digit arithmetic for float64; for float32 a linear program over
// Chebyshev nodes, solved again after each coefficient is rounded to float32, so that the later ones absorb the
// rounding of the earlier. The weight of each fit stands with its coefficients.
#pragma once

#include "simd.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// c0 + c1 x + c2 x^2 + ...
template <class V, class T, class... Rest>
inline V polynomial(V x, T c, Rest... rest) {
    if constexpr (sizeof...(rest) == 0) {
        return splat(c);
    } else {
        return fma(polynomial(x, rest...), x, splat(c));
    }
}

// NaN passes: max and min return their second operand when either is NaN.
template <class V, class T>
inline V clamp(V x, T low, T high) {
    return min(splat(high), max(splat(low), x));
}

// Adding 1.5 times the power of two whose ulp is 1 rounds a small number to an integer, which then stands in the low
// bits. With the exponent bias added as well, those bits shifted into the exponent are the power of two.
inline constexpr float kRound32 = 0x1.8p23f + 127;
inline constexpr double kRound64 = 0x1.8p52 + 1023;

// top / bottom, to be divided later.
template <class V>
struct Quotient {
    V top, bottom;
};

// Arguments of sigmoid below this are taken for it where denominators are multiplied: sigmoid is then 2.5e-13 (float32)
// or 1e-100 (float64) instead of less, and the product of three denominators stays finite.
template <class T>
inline constexpr T kSigmoidFloor = sizeof(T) == sizeof(float) ? T(-29) : T(-230);

//   z = 4 - x log2(e),  m = round(z),  f = z - m        sigmoid = 1 / (1 + 2^(m-4) 2^f),  |f| <= 1/2
//
// The 4 makes the result monotone. It puts every x < 1.4 on a grid of 2^-22 or coarser, whose steps move 2^f further
// than the rounding of the polynomial moves it back; for larger x the rounding of 1 + 2^(m-4) 2^f hides that noise.
// Near 0 the grid costs 2^-22 ln(2)/4 = 4.1e-8 of the error. z never increases with x, even where fma rounds twice.
//
// At the lower clamp 2^(m-4) is infinite and the result exactly 0; at the upper one the result has long been 1.
//
// 2^f: relative error 9.3e-8, with c0 = 1 pinned so that sigmoid(0) = 1/2.
inline Vec<float> sigmoid_denominator(Vec<float> x, float floor = kSigmoidFloor<float>) {
    using V = Vec<float>;
    const V round = splat(kRound32 - 4);
    const V z = fma(clamp(x, floor, 80.0f), splat(-0x1.715476p+0f), splat(4.0f));
    const V m = z + round;
    const V f = z - (m - round);
    const V p = polynomial(f, 1.0f, 0x1.62e42ap-1f, 0x1.ebf9c2p-3f, 0x1.c6b6d8p-5f, 0x1.3ce8acp-7f, 0x1.5bda40p-10f);
    return fma(from_bits(bits(m) << 23), p, splat(1.0f));
}
inline Vec<float> sigmoid(Vec<float> x) {
    return 1.0f / sigmoid_denominator(x, -88.7f);
}

//   k = round(2 x / ln 2),  r = x - k ln(2)/2,  u = tanh(r),  s = 2^k = e^(k ln 2)
//
//   tanh(x) = tanh(k ln(2)/2 + r) = ((s - 1) + u (s + 1)) / ((s + 1) + u (s - 1)),  |r| <= ln(2)/4
//
// The addition theorem keeps |x| < ln(2)/4 accurate (s = 1: the quotient is u), is odd by construction, and cannot pass
// 1: denominator - numerator = 2 (1 - u) > 0 and rounding preserves order. ln(2)/2 rounded to float32 errs by 1e-9 and
// ends in three zero bits, so one multiply-add reduces exactly while k < 8, and beyond that tanh is flat.
//
// tanh(r) / r: error below 0.63 2^-24 weighted by r, since u counts absolutely once s != 1; c0 = 1 pinned.
inline Quotient<Vec<float>> tanh_quotient(Vec<float> x) {
    using V = Vec<float>;
    const V round = splat(kRound32);
    const V a = clamp(x, -10.0f, 10.0f);
    const V z = fma(a, splat(0x1.715476p+1f), round);
    const V r = fma(z - round, splat(-0x1.62e430p-2f), a);
    const V r2 = r * r;
    const V u = fma(r * r2, polynomial(r2, -0x1.554edep-2f, 0x1.0c2fd2p-3f), r);
    const V s = from_bits(bits(z) << 23);
    const V sum = s + 1.0f, difference = s - 1.0f;
    return {fma(u, sum, difference), fma(u, difference, sum)};
}
inline Vec<float> tanh(Vec<float> x) {
    const auto [top, bottom] = tanh_quotient(x);
    return top / bottom;
}

inline constexpr double kLog2E = 0x1.71547652b82fep+0;

// e^y in parts that keep expm1 accurate: e^y = scale (1 + p), p = e^r - 1 = r + tail.
struct ExpParts {
    Vec<double> k, scale, p, tail;
};

//   z = kRound64 + k,  k near y log2(e),  r = y - k ln 2,  tail = r^2 (1/2 + r/6 + ...)
//
// The caller rounds, and so chooses the interval of r: tanh does not want the symmetric one.
// ln 2 is split in two; the high part has 42 bits, so that its product with k is exact without a fused multiply-add.
//
// tail / r^2 on -1/2 <= r / ln 2 <= 3/4: error of r + tail below 2^-57.5 relative to e^r - 1, with c0 = 1/2 pinned.
inline ExpParts exp_parts(Vec<double> y, Vec<double> z) {
    using V = Vec<double>;
    const V k = z - splat(kRound64);
    const V r = fma(k, splat(-0x1.ef35793c76730p-45), fma(k, splat(-0x1.62e42fefa3800p-1), y));
    const V r2 = r * r;
    const V even = polynomial(r2, 0.5, 0x1.5555555555860p-5, 0x1.6c16c16ab8328p-10, 0x1.a01a088c1f56ep-16,
                              0x1.27d613a309c17p-22, 0x1.365c1d3d24a16p-29);
    const V odd = polynomial(r2, 0x1.5555555555545p-3, 0x1.1111111116841p-7, 0x1.a01a018179a15p-13,
                             0x1.71de6b3cecd2fp-19, 0x1.ae9dd76ffcb06p-26);
    const V tail = r2 * fma(r, odd, even);
    return {k, from_bits(bits(z) << 52), r + tail, tail};
}

//   sigmoid = 1 / (1 + 2^k + 2^k p),  y = -x
//
// The smaller of 1 and 2^k joins 2^k p first: either fixed order would round twice at the scale of the sum for some k.
inline Vec<double> sigmoid_denominator(Vec<double> x, double floor = kSigmoidFloor<double>) {
    using V = Vec<double>;
    const V y = clamp(-x, -40.0, -floor);
    const auto [k, scale, p, tail] = exp_parts(y, fma(y, splat(kLog2E), splat(kRound64)));
    const V one = splat(1.0);
    return fma(scale, p, min(one, scale)) + max(one, scale);
}
inline Vec<double> sigmoid(Vec<double> x) {
    return 1.0 / sigmoid_denominator(x, -709.4);
}

//   y = 2 |x|,  k = round(y log2(e) - 1/4),  n = e^y - 1 = 2^k p + (2^k - 1),  tanh |x| = n / (n + 2)
//
// For k = 0 (r = y = 2 |x|, n = p) the roundings of n and n + 2 would reach 2.5 ulp; there the quotient only corrects
// |x|:
//
//   tanh |x| = |x| + (p - |x| (p + 2)) / (p + 2) = |x| + (tail - |x| p) / (n + 2)
//
// The quarter extends k = 0 to y < 0.52; from there on the cancellation in 2^k p + (2^k - 1) is harmless.
struct TanhParts {
    Vec<double> base, top, bottom;
    IVec<double> sign;
};
inline TanhParts tanh_parts(Vec<double> x) {
    using V = Vec<double>;
    const IVec<double> sign = bits(splat(-0.0));
    const V a = min(splat(20.0), from_bits(bits(x) & ~sign));
    const V y = a + a;
    const auto [k, scale, p, tail] = exp_parts(y, fma(y, splat(kLog2E), splat(-0.25)) + splat(kRound64));
    const V n = fma(scale, p, scale - 1.0);
    const V top = k == 0.0 ? fma(-a, p, tail) : n;
    const V base = k == 0.0 ? a : V{};
    return {base, top, n + 2.0, bits(x) & sign};
}
inline Vec<double> tanh(Vec<double> x) {
    const auto [base, top, bottom, sign] = tanh_parts(x);
    return from_bits(bits(base + top / bottom) | sign);
}
inline Quotient<Vec<double>> tanh_quotient(Vec<double> x) {
    const auto [base, top, bottom, sign] = tanh_parts(x);
    return {from_bits(bits(fma(base, bottom, top)) | sign), bottom};
}

// exp(x) within 1 ulp (0.99 found) of normal results. It is 0 where the result would not be
// normal and infinite from 2^127.5 or 2^1023.5 on; NaN gives NaN.
//
//   k = round(x log2(e)),  r = x - k ln 2,  e^x = 2^k e^r,  |r| <= ln(2)/2
//
// (e^r - 1 - r) / r^2: error 2^-27.6, weighted by r^2 / e^r. The high part of ln 2 has 15 bits, so that its product
// with k is exact without a fused multiply-add.
inline Vec<float> exp(Vec<float> x) {
    using V = Vec<float>;
    const V round = splat(kRound32);
    const V a = clamp(x, -88.0f, 88.8f);
    const V z = fma(a, splat(0x1.715476p+0f), round);
    const V k = z - round;
    const V r = fma(k, splat(-0x1.7f7d1cp-20f), fma(k, splat(-0x1.62e4p-1f), a));
    const V p = polynomial(r, 0x1.fffffcp-2f, 0x1.555488p-3f, 0x1.5558f8p-5f, 0x1.12408cp-7f, 0x1.6a3990p-10f);
    return from_bits(bits(z) << 23) * (fma(r * r, p, r) + 1.0f);
}
inline Vec<double> exp(Vec<double> x) {
    const Vec<double> y = clamp(x, -709.4, 709.8);
    const auto [k, scale, p, tail] = exp_parts(y, fma(y, splat(kLog2E), splat(kRound64)));
    return scale * (p + 1.0);
}

// x = 2^k (1 + f) with 1 + f from sqrt(1/2) to sqrt(2), for positive normal x.
template <class V>
struct Split {
    V k, f;
};
inline Split<Vec<float>> split(Vec<float> x) {
    const IVec<float> k = (bits(x) - 0x3f3504f3) >> 23;
    const Vec<float> round = splat(0x1.8p23f);
    return {from_bits(bits(round) + k) - round, from_bits(bits(x) - (k << 23)) - 1.0f};
}
inline Split<Vec<double>> split(Vec<double> x) {
    const IVec<double> k = (bits(x) - 0x3fe6a09e667f3bcd) >> 52;
    const Vec<double> round = splat(0x1.8p52);
    return {from_bits(bits(round) + k) - round, from_bits(bits(x) - (k << 52)) - 1.0};
}

// log(x) within 1 ulp (0.91 found in float32, 0.82 in float64) for positive normal x; infinity and NaN give themselves.
//
//   log(x) = k ln 2 + log(1 + f)
//
// float32: log(1 + f) = f - f^2/2 + f^3 P(f); error of P 2^-27.0, weighted by f^3 / log(1 + f).
inline Vec<float> log(Vec<float> x) {
    using V = Vec<float>;
    const auto [k, f] = split(x);
    const V f2 = f * f;
    const V p = polynomial(f, 0x1.555554p-2f, -0x1.00022ap-2f, 0x1.999facp-3f, -0x1.5470dcp-3f, 0x1.22e1a2p-3f,
                           -0x1.0d9c3cp-3f, 0x1.052ddcp-3f, -0x1.37bc70p-4f);
    const V tail = fma(k, splat(0x1.7f7d1cp-20f), f2 * fma(f, p, splat(-0.5f)));
    const V y = fma(k, splat(0x1.62e4p-1f), f + tail);
    return x < __builtin_inff() ? y : x;
}
// float64: log(1 + f) = 2 atanh(s) = f - f^2/2 + s (f^2/2 + R),  s = f / (2 + f),  R = 2 atanh(s) / s - 2; error of
// R / s^2 2^-59.1, weighted by s^2 / 2.
inline Vec<double> log(Vec<double> x) {
    using V = Vec<double>;
    const auto [k, f] = split(x);
    const V s = f / (f + 2.0), s2 = s * s, half = 0.5 * f * f;
    const V p = polynomial(s2, 0x1.5555555555593p-1, 0x1.999999997f8a9p-2, 0x1.249249423e578p-2, 0x1.c71c51c65f2b6p-3,
                           0x1.74664d7a9a0f8p-3, 0x1.39a02e69cd83cp-3, 0x1.2f15c1093d713p-3);
    const V tail = fma(s, fma(s2, p, half), k * splat(0x1.ef35793c76730p-45)) - half;
    const V y = fma(k, splat(0x1.62e42fefa3800p-1), f + tail);
    return x < __builtin_inf() ? y : x;
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
