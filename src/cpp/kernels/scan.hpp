// The linear scan, h_t = a_t h_{t-1} + b_t elementwise, its gradients, and what a line of either does to any state
// before it.
#pragma once

#include "../api.hpp"
#include "chains.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

inline constexpr int kScanVectors = 8;  // of channels, in a tile at most

// Channels of different threads are in different cache lines.
template <class T>
inline constexpr int64_t kScanBlock = 64 / sizeof(T);

// --- factors ------------------------------------------------------------------------------------------------------

// A vector of real factors a, and what both kinds do:
//
//   times(h), times(h, b) = a h (+ b)          conjugate_times(g) = conj(a) g
template <class T>
struct RealFactor {
    Vec<T> a;

    static RealFactor of(Vec<T> v) { return {v}; }
    static Vec<T> one() { return Vec<T>{} + 1; }
    Vec<T> times(Vec<T> h) const { return a * h; }
    Vec<T> times(Vec<T> h, Vec<T> b) const { return fma(a, h, b); }
    Vec<T> conjugate_times(Vec<T> g) const { return a * g; }
};

// Complex ones, of pairs (p, q) of lanes:
//
//   (p + iq)(u + iv) = p (u, v) + (-q, q) (v, u)          (p - iq)(u + iv) = p (u, v) - (-q, q) (v, u)
template <class T>
struct ComplexFactor {
    Vec<T> real, imaginary;  // (p, p), (-q, q)

    static ComplexFactor of(Vec<T> v) {
        const Vec<T> q = seconds(v, kLaneNumbers<Vec<T>>), minus = splat(T{-0.0});
        return {firsts(v, kLaneNumbers<Vec<T>>), from_bits(bits(q) ^ (is_second() ? IVec<T>{} : bits(minus)))};
    }
    static Vec<T> one() { return is_second() ? Vec<T>{} : Vec<T>{} + 1; }
    Vec<T> times(Vec<T> h) const { return fma(real, h, imaginary * swap(h)); }
    Vec<T> times(Vec<T> h, Vec<T> b) const { return fma(real, h, fma(imaginary, swap(h), b)); }
    Vec<T> conjugate_times(Vec<T> g) const { return fma(real, g, -imaginary * swap(g)); }

private:
    static Vec<T> swap(Vec<T> v) { return swapped(v, kLaneNumbers<Vec<T>>); }
    static IVec<T> is_second() { return (lane_numbers<T>(std::make_integer_sequence<int, kLanes<T>>()) & 1) == 1; }
};

// --- forward ------------------------------------------------------------------------------------------------------

// h' = a h + b
template <class T, class Factor, bool constant>
struct ScanTask {
    const Scan<T>& scan;

    int64_t steps(int64_t line) const { return scan.lines[line].steps; }

    template <int Lines>
    struct Walk {
        using State = Vec<T>;
        using Constants = Factor;
        const T *a, *b;
        T* y;
        const T* from;
        T* to;
        int64_t C, stride, at[Lines];

        template <class Part>
        Factor constants(int64_t channel, Part part) const {
            return Factor::of(constant ? load(a + channel, part) : Vec<T>{});
        }
        template <class Part>
        Vec<T> enter(int line, int64_t channel, Part part) const {
            return from ? load(from + line * C + channel, part) : Vec<T>{};
        }
        template <class Part>
        inline __attribute__((always_inline)) void step(int line, int64_t channel, Part part, const Factor& fixed,
                                                        Vec<T>& h) const {
            const int64_t i = at[line] + channel;
            const Factor factor = constant ? fixed : Factor::of(load(a + i, part));
            h = factor.times(h, load(b + i, part));
            store(y + i, h, part);
        }
        void advance() {
            for (int line = 0; line < Lines; ++line) at[line] += stride;
        }
        template <class Part>
        void leave(int line, int64_t channel, Part part, Vec<T> h) const {
            store(to + line * C + channel, h, part);
        }
    };

    template <int Lines>
    Walk<Lines> walk(int64_t line, int64_t done, int64_t) const {
        const T* from = done ? scan.last : scan.first;
        Walk<Lines> walk{scan.a, scan.b,      scan.y, from ? from + line * scan.C : nullptr, scan.last + line * scan.C,
                         scan.C, scan.stride, {}};
        for (int i = 0; i < Lines; ++i) walk.at[i] = scan.lines[line + i].first + done * scan.stride;
        return walk;
    }
};

// The lines summarized: sum is h after the line if it was 0 before, product that of all factors. (A constant a is read
// at every step here: so it takes half the code.)
template <class T, class Factor>
struct SummaryTask {
    const Scan<T>& scan;
    const ScanSummary<T>& summary;

    int64_t steps(int64_t line) const { return scan.lines[line].steps; }

    template <int Lines>
    struct Walk {
        struct State {
            Vec<T> product, sum;
        };
        struct Constants {};
        const T *a, *b;
        bool constant, begins;
        T *product, *sum;
        int64_t C, stride, at[Lines];

        template <class Part>
        Constants constants(int64_t, Part) const {
            return {};
        }
        template <class Part>
        Factor factor(int line, int64_t channel, Part part) const {
            return Factor::of(load(a + (constant ? 0 : at[line]) + channel, part));
        }
        template <class Part>
        State enter(int line, int64_t channel, Part part) const {
            if (begins) return {Factor::one(), Vec<T>{}};
            return {load(product + line * C + channel, part), load(sum + line * C + channel, part)};
        }
        template <class Part>
        inline __attribute__((always_inline)) void step(int line, int64_t channel, Part part, Constants,
                                                        State& state) const {
            const Factor a = factor(line, channel, part);
            state.product = a.times(state.product);
            state.sum = a.times(state.sum, load(b + at[line] + channel, part));
        }
        void advance() {
            for (int line = 0; line < Lines; ++line) at[line] += stride;
        }
        template <class Part>
        void leave(int line, int64_t channel, Part part, const State& state) const {
            store(product + line * C + channel, state.product, part);
            store(sum + line * C + channel, state.sum, part);
        }
    };

    template <int Lines>
    Walk<Lines> walk(int64_t line, int64_t done, int64_t) const {
        const int64_t row = line * scan.C;
        Walk<Lines> walk{
            scan.a,      scan.b, scan.constant, done == 0, summary.product + row, summary.sum + row, scan.C,
            scan.stride, {}};
        for (int i = 0; i < Lines; ++i) walk.at[i] = scan.lines[line + i].first + done * scan.stride;
        return walk;
    }
};

// --- backward -----------------------------------------------------------------------------------------------------

// Last step first, with the gradient dh that reaches the state from later steps:
//
//   g = dy + dh        db = g        da = g conj(h_{t-1})        dh_{t-1} = conj(a) g
//
// A constant a has the sum of da over all steps.
template <class T, class Factor, bool constant>
struct ScanGradientTask {
    const ScanGradient<T>& gradient;

    int64_t steps(int64_t line) const { return gradient.scan.lines[line].steps; }

    template <int Lines>
    struct Walk {
        struct State {
            Vec<T> dh, da;
        };
        using Constants = Factor;
        const T *a, *y, *dy;
        T *da, *db;
        const T *first, *from;
        T* dfirst;
        T* sums;
        bool begins;
        int64_t C, stride, left, at[Lines];
        bool ends[Lines];
        const T* previous[Lines];  // the state before the step

        // In a line's first step, that is the state before the line.
        void find_previous() {
            for (int line = 0; line < Lines; ++line) {
                previous[line] = left == 1 && ends[line] ? first + line * C : y + (at[line] - stride);
            }
        }
        template <class Part>
        Factor constants(int64_t channel, Part part) const {
            return Factor::of(constant ? load(a + channel, part) : Vec<T>{});
        }
        template <class Part>
        State enter(int line, int64_t channel, Part part) const {
            const int64_t i = line * C + channel;
            return {from ? load(from + i, part) : Vec<T>{}, constant && !begins ? load(sums + i, part) : Vec<T>{}};
        }
        template <class Part>
        inline __attribute__((always_inline)) void step(int line, int64_t channel, Part part, const Factor& fixed,
                                                        State& state) const {
            const int64_t i = at[line] + channel;
            const Factor factor = constant ? fixed : Factor::of(load(a + i, part));
            const Vec<T> g = load(dy + i, part) + state.dh;
            const Vec<T> of_factor = Factor::of(load(previous[line] + channel, part)).conjugate_times(g);
            store(db + i, g, part);
            if (constant) {
                state.da += of_factor;
            } else {
                store(da + i, of_factor, part);
            }
            state.dh = factor.conjugate_times(g);
        }
        void advance() {
            for (int line = 0; line < Lines; ++line) at[line] -= stride, previous[line] -= stride;
            if (--left == 1) find_previous();
        }
        template <class Part>
        void leave(int line, int64_t channel, Part part, const State& state) const {
            store(dfirst + line * C + channel, state.dh, part);
            if (constant) store(sums + line * C + channel, state.da, part);
        }
    };

    template <int Lines>
    Walk<Lines> walk(int64_t line, int64_t done, int64_t steps) const {
        const Scan<T>& scan = gradient.scan;
        const int64_t row = line * scan.C;
        const T* from = done ? gradient.dfirst : gradient.dlast;
        Walk<Lines> walk{scan.a,
                         scan.y,
                         gradient.dy,
                         gradient.da,
                         gradient.db,
                         scan.first + row,
                         from ? from + row : nullptr,
                         gradient.dfirst + row,
                         constant ? gradient.da + row : nullptr,
                         done == 0,
                         scan.C,
                         scan.stride,
                         steps,
                         {},
                         {},
                         {}};
        for (int i = 0; i < Lines; ++i) {
            const ScanLine& at = scan.lines[line + i];
            walk.at[i] = at.first + (at.steps - 1 - done) * scan.stride;
            walk.ends[i] = at.steps - done == steps;
        }
        walk.find_previous();
        return walk;
    }
};

// The same for lines whose states are not known: dh before the line is conj(product) dh + sum.
template <class T, class Factor>
struct GradientSummaryTask {
    const ScanGradient<T>& gradient;
    const ScanSummary<T>& summary;

    int64_t steps(int64_t line) const { return gradient.scan.lines[line].steps; }

    template <int Lines>
    struct Walk : SummaryTask<T, Factor>::template Walk<Lines> {
        using Base = typename SummaryTask<T, Factor>::template Walk<Lines>;
        template <class Part>
        inline __attribute__((always_inline)) void step(int line, int64_t channel, Part part, typename Base::Constants,
                                                        typename Base::State& state) const {
            const Factor a = this->factor(line, channel, part);
            state.product = a.conjugate_times(state.product);
            state.sum = a.conjugate_times(load(this->b + this->at[line] + channel, part) + state.sum);
        }
    };

    template <int Lines>
    Walk<Lines> walk(int64_t line, int64_t done, int64_t) const {
        const Scan<T>& scan = gradient.scan;
        const int64_t row = line * scan.C;
        Walk<Lines> walk{{scan.a,
                          gradient.dy,
                          scan.constant,
                          done == 0,
                          summary.product + row,
                          summary.sum + row,
                          scan.C,
                          -scan.stride,
                          {}}};
        for (int i = 0; i < Lines; ++i) {
            const ScanLine& at = scan.lines[line + i];
            walk.at[i] = at.first + (at.steps - 1 - done) * scan.stride;
        }
        return walk;
    }
};

// --- the kinds of scans -------------------------------------------------------------------------------------------

// All four kinds of factors.
template <template <class, class, bool> class Task, int Vectors, class T>
void run_kind(const Scan<T>& scan, const auto& argument, Span lines, Span channels) {
    if (scan.is_complex && scan.constant) {
        run_tiles<T, Vectors>(Task<T, ComplexFactor<T>, true>{argument}, lines, channels);
    } else if (scan.is_complex) {
        run_tiles<T, Vectors>(Task<T, ComplexFactor<T>, false>{argument}, lines, channels);
    } else if (scan.constant) {
        run_tiles<T, Vectors>(Task<T, RealFactor<T>, true>{argument}, lines, channels);
    } else {
        run_tiles<T, Vectors>(Task<T, RealFactor<T>, false>{argument}, lines, channels);
    }
}

template <class T>
void scan(const Scan<T>& task, Span lines, Span channels) {
    const FlushDenormals guard;
    run_kind<ScanTask, kScanVectors>(task, task, lines, channels);
}

template <class T>
void scan_gradient(const ScanGradient<T>& task, Span lines, Span channels) {
    const FlushDenormals guard;
    run_kind<ScanGradientTask, kScanVectors / 2>(task.scan, task, lines, channels);
}

template <class T>
void summarize_scan(const Scan<T>& task, const ScanSummary<T>& summary, Span lines, Span channels) {
    const FlushDenormals guard;
    if (task.is_complex) {
        run_tiles<T, 2>(SummaryTask<T, ComplexFactor<T>>{task, summary}, lines, channels);
    } else {
        run_tiles<T, 2>(SummaryTask<T, RealFactor<T>>{task, summary}, lines, channels);
    }
}

template <class T>
void summarize_scan_gradient(const ScanGradient<T>& task, const ScanSummary<T>& summary, Span lines, Span channels) {
    const FlushDenormals guard;
    if (task.scan.is_complex) {
        run_tiles<T, 2>(GradientSummaryTask<T, ComplexFactor<T>>{task, summary}, lines, channels);
    } else {
        run_tiles<T, 2>(GradientSummaryTask<T, RealFactor<T>>{task, summary}, lines, channels);
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
