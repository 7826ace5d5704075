// The vector type of one instruction set and its operations: the only file that knows intrinsics.
//
// Vec<T> is a GCC/clang vector-extension type, so + - * / and comparisons need no code here. What remains is what the
// extensions cannot say: fused multiply-add, min and max with a stated NaN rule, loads and stores of part of a vector,
// and the control register that flushes denormals.
//
// Everything in kernels/ has internal linkage (an unnamed namespace inside the namespace of its ISA): the linker must
// never merge an AVX-512 instance of a template into code that runs on an older CPU. For the same reason no kernel
// includes a standard header that defines functions.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rnncore::RNNCORE_ISA {
namespace {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kVectorRegisters = 32;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kVectorRegisters = 16;
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16;
inline constexpr int kVectorRegisters = 32;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kVectorRegisters = 16;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef float real __attribute__((vector_size(kVectorBytes)));
    typedef int32_t integer __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
    typedef double real __attribute__((vector_size(kVectorBytes)));
    typedef int64_t integer __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vec = typename VectorOf<T>::real;
template <class T>
using IVec = typename VectorOf<T>::integer;
template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// How much of a vector takes part in a load or store: all of it, or its first n lanes (0 < n <= L).
struct Full {};
struct Tail {
    int n;
};

template <class T>
inline Vec<T> splat(T x) {
    return x - Vec<T>{};  // a scalar meets a vector: the extension broadcasts it (x - 0 keeps -0, unlike x + 0)
}
template <class T>
inline Vec<T> load(const T* p) {
    Vec<T> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <class T>
inline void store(T* p, Vec<T> v) {
    __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
inline Vec<T> load(const T* p, Full) {
    return load(p);
}
template <class T>
inline void store(T* p, Vec<T> v, Full) {
    store(p, v);
}

inline IVec<float> bits(Vec<float> v) {
    return __builtin_bit_cast(IVec<float>, v);
}
inline IVec<double> bits(Vec<double> v) {
    return __builtin_bit_cast(IVec<double>, v);
}
inline Vec<float> from_bits(IVec<float> v) {
    return __builtin_bit_cast(Vec<float>, v);
}
inline Vec<double> from_bits(IVec<double> v) {
    return __builtin_bit_cast(Vec<double>, v);
}

// Half 0 or 1 of a vector of float32, in float64.
template <int Half, int... I>
inline Vec<double> widen(Vec<float> v, std::integer_sequence<int, I...>) {
    return __builtin_convertvector(__builtin_shufflevector(v, v, (Half * kLanes<double> + I)...), Vec<double>);
}
template <int Half>
inline Vec<double> widen(Vec<float> v) {
    return widen<Half>(v, std::make_integer_sequence<int, kLanes<double>>());
}

// fma(a, b, c) = a*b + c, rounded once where the ISA has the instruction and twice on baseline x86-64.
// min and max return b where either operand is NaN, so min(splat(bound), x) lets a NaN in x through.
// sqrt is rounded correctly everywhere.
#if defined(__AVX512F__)

// (the masked forms: gcc 12 warns of the undefined operand inside the plain ones)
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return _mm512_fmadd_ps(a, b, c);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm512_fmadd_pd(a, b, c);
}
inline Vec<float> min(Vec<float> a, Vec<float> b) {
    return _mm512_maskz_min_ps(0xffff, a, b);
}
inline Vec<double> min(Vec<double> a, Vec<double> b) {
    return _mm512_maskz_min_pd(0xff, a, b);
}
inline Vec<float> max(Vec<float> a, Vec<float> b) {
    return _mm512_maskz_max_ps(0xffff, a, b);
}
inline Vec<double> max(Vec<double> a, Vec<double> b) {
    return _mm512_maskz_max_pd(0xff, a, b);
}
inline Vec<float> sqrt(Vec<float> v) {
    return _mm512_maskz_sqrt_ps(0xffff, v);
}
inline Vec<double> sqrt(Vec<double> v) {
    return _mm512_maskz_sqrt_pd(0xff, v);
}

inline __mmask16 lane_mask(Tail t) {
    return static_cast<__mmask16>((1u << t.n) - 1);
}
inline Vec<float> load(const float* p, Tail t) {
    return _mm512_maskz_loadu_ps(lane_mask(t), p);
}
inline Vec<double> load(const double* p, Tail t) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(lane_mask(t)), p);
}
inline void store(float* p, Vec<float> v, Tail t) {
    _mm512_mask_storeu_ps(p, lane_mask(t), v);
}
inline void store(double* p, Vec<double> v, Tail t) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(lane_mask(t)), v);
}

#elif defined(__AVX2__)

inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return _mm256_fmadd_ps(a, b, c);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm256_fmadd_pd(a, b, c);
}
inline Vec<float> min(Vec<float> a, Vec<float> b) {
    return _mm256_min_ps(a, b);
}
inline Vec<double> min(Vec<double> a, Vec<double> b) {
    return _mm256_min_pd(a, b);
}
inline Vec<float> max(Vec<float> a, Vec<float> b) {
    return _mm256_max_ps(a, b);
}
inline Vec<double> max(Vec<double> a, Vec<double> b) {
    return _mm256_max_pd(a, b);
}
inline Vec<float> sqrt(Vec<float> v) {
    return _mm256_sqrt_ps(v);
}
inline Vec<double> sqrt(Vec<double> v) {
    return _mm256_sqrt_pd(v);
}

inline __m256i lane_mask32(Tail t) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(t.n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i lane_mask64(Tail t) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(t.n), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline Vec<float> load(const float* p, Tail t) {
    return _mm256_maskload_ps(p, lane_mask32(t));
}
inline Vec<double> load(const double* p, Tail t) {
    return _mm256_maskload_pd(p, lane_mask64(t));
}
inline void store(float* p, Vec<float> v, Tail t) {
    _mm256_maskstore_ps(p, lane_mask32(t), v);
}
inline void store(double* p, Vec<double> v, Tail t) {
    _mm256_maskstore_pd(p, lane_mask64(t), v);
}

#else

#if defined(__aarch64__)
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return vfmaq_f32(c, a, b);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return vfmaq_f64(c, a, b);
}
inline Vec<float> sqrt(Vec<float> v) {
    return vsqrtq_f32(v);
}
inline Vec<double> sqrt(Vec<double> v) {
    return vsqrtq_f64(v);
}
#else
template <class V>
inline V fma(V a, V b, V c) {
    return a * b + c;
}
#endif
#if defined(__x86_64__)  // gcc makes four instructions of the comparison and choice below
inline Vec<float> min(Vec<float> a, Vec<float> b) {
    return _mm_min_ps(a, b);
}
inline Vec<double> min(Vec<double> a, Vec<double> b) {
    return _mm_min_pd(a, b);
}
inline Vec<float> max(Vec<float> a, Vec<float> b) {
    return _mm_max_ps(a, b);
}
inline Vec<double> max(Vec<double> a, Vec<double> b) {
    return _mm_max_pd(a, b);
}
inline Vec<float> sqrt(Vec<float> v) {
    return _mm_sqrt_ps(v);
}
inline Vec<double> sqrt(Vec<double> v) {
    return _mm_sqrt_pd(v);
}
#else
template <class V>
inline V min(V a, V b) {
    return a < b ? a : b;
}
template <class V>
inline V max(V a, V b) {
    return a > b ? a : b;
}
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
inline Vec<float> sqrt(Vec<float> v) {
    for (int l = 0; l < kLanes<float>; ++l) v[l] = __builtin_sqrtf(v[l]);
    return v;
}
inline Vec<double> sqrt(Vec<double> v) {
    for (int l = 0; l < kLanes<double>; ++l) v[l] = __builtin_sqrt(v[l]);
    return v;
}
#endif
template <class T>
inline Vec<T> load(const T* p, Tail t) {
    Vec<T> v{};
    for (int l = 0; l < t.n; ++l) v[l] = p[l];
    return v;
}
template <class T>
inline void store(T* p, Vec<T> v, Tail t) {
    for (int l = 0; l < t.n; ++l) p[l] = v[l];
}

#endif

// f(i, part) for the vectors of elements [begin, end): all whole but perhaps the last.
template <class T, class F>
inline void each_vector(int64_t begin, int64_t end, F f) {
    constexpr int L = kLanes<T>;
    int64_t i = begin;
    for (; i + L <= end; i += L) f(i, Full{});
    if (i < end) f(i, Tail{static_cast<int>(end - i)});
}
template <class T, class F>
inline void each_vector(int64_t n, F f) {
    each_vector<T>(0, n, f);
}

template <class T, int... I>
inline IVec<T> lane_numbers(std::integer_sequence<int, I...>) {
    return IVec<T>{I...};
}
// v, with `rest` in the lanes that take no part.
template <class T>
inline Vec<T> fill(Vec<T> v, Full, T) {
    return v;
}
template <class T>
inline Vec<T> fill(Vec<T> v, Tail t, T rest) {
    return lane_numbers<T>(std::make_integer_sequence<int, kLanes<T>>()) < t.n ? v : splat(rest);
}

// All lanes combined by f, pairs of halves first; the result is in lane 0.
template <int Step, class V, int... I>
inline V rotate(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, ((I + Step) % static_cast<int>(sizeof...(I)))...);
}
template <int Step, class V, class F>
inline V fold(V v, F f) {
    if constexpr (Step == 0) {
        return v;
    } else {
        constexpr int L = sizeof(V) / sizeof(v[0]);
        return fold<Step / 2>(f(v, rotate<Step>(v, std::make_integer_sequence<int, L>())), f);
    }
}
template <class T>
inline T largest_lane(Vec<T> v) {
    return fold<kLanes<T> / 2>(v, [](Vec<T> a, Vec<T> b) { return max(a, b); })[0];
}
template <class T>
inline T sum_of_lanes(Vec<T> v) {
    return fold<kLanes<T> / 2>(v, [](Vec<T> a, Vec<T> b) { return a + b; })[0];
}

// Lanes of two vectors in turn: a0 b0 a1 b1 ... from their lower or upper halves.
template <int First, class V, int... I>
inline V zip(V a, V b, std::integer_sequence<int, I...>) {
    constexpr int L = sizeof...(I);
    return __builtin_shufflevector(a, b, (First + I / 2 + I % 2 * L)...);
}

// An L x L matrix of L vectors, transposed: log2(L) times, row i is zipped with row i + L/2.
template <class V>
inline void transpose(V* rows) {
    constexpr int L = sizeof(V) / sizeof(rows[0][0]);
    constexpr auto lanes = std::make_integer_sequence<int, L>();
    V zipped[L];
#pragma GCC unroll 4
    for (int stage = L; stage > 1; stage /= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < L / 2; ++i) {
            zipped[2 * i] = zip<0>(rows[i], rows[i + L / 2], lanes);
            zipped[2 * i + 1] = zip<L / 2>(rows[i], rows[i + L / 2], lanes);
        }
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) rows[i] = zipped[i];
    }
}

// Of pairs of lanes, the first or the second twice, and both in turn.
template <class V, int... I>
inline V firsts(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I & ~1)...);
}
template <class V, int... I>
inline V seconds(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I | 1)...);
}
template <class V, int... I>
inline V swapped(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I ^ 1)...);
}
template <class V>
inline constexpr auto kLaneNumbers = std::make_integer_sequence<int, sizeof(V) / sizeof(V{}[0])>();

// Denormals cost peers a factor of 18 to 27 in decaying states. They are treated as zero while a kernel runs; the
// caller's floating-point state comes back when it returns.
class FlushDenormals {
public:
#if defined(__x86_64__)
    FlushDenormals() : saved_(_mm_getcsr()) {
        _mm_setcsr(saved_ | 0x8040);
    }  // FTZ | DAZ
    ~FlushDenormals() {
        _mm_setcsr(saved_);
    }
#elif defined(__aarch64__)
    FlushDenormals() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
        __asm__ volatile("msr fpcr, %0" : : "r"(saved_ | (uint64_t{1} << 24)));  // FZ
    }
    ~FlushDenormals() {
        __asm__ volatile("msr fpcr, %0" : : "r"(saved_));
    }
#endif
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

private:
#if defined(__aarch64__)
    uint64_t saved_;
#else
    unsigned saved_;
#endif
};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
