// CTC of a batch: sequences on several threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "dispatch.hpp"
#include "losses.hpp"
#include "memory.hpp"
#include "schedule.hpp"
#include "threads.hpp"
#include "weights.hpp"

namespace rnncore {
namespace {

constexpr double kLabelWork = 250, kClassWork = 20;  // of a step, in multiply-adds

template <class T>
double weight_of(const CtcBatch<T>& a, int64_t n) {
    return a.weights ? a.weights[n] : 1;
}

template <class T>
void check_labels(const CtcBatch<T>& a, int64_t n) {
    for (int64_t i = 0; i < a.target_lengths[n]; ++i) {
        const int64_t label = a.targets[n * a.labels + i];
        if (label >= 0 && label < a.C && label != a.blank) continue;
        throw std::invalid_argument("targets: expected classes from 0 to " + std::to_string(a.C - 1) +
                                    " other than blank = " + std::to_string(a.blank) + ", got " +
                                    std::to_string(label) + " at row " + std::to_string(n) + ", label " +
                                    std::to_string(i));
    }
}

}  // namespace

template <class T>
Mean ctc(const CtcBatch<T>& a) {
    double total = 0, work = 0;
    int64_t most_steps = 0, most_labels = 0;
    for (int64_t n = 0; n < a.N; ++n) {
        if (weight_of(a, n) == 0) continue;
        check_labels(a, n);
        const int64_t steps = a.lengths ? a.lengths[n] : a.steps;
        total += weight_of(a, n);
        work += static_cast<double>(steps) *
                (kLabelWork * static_cast<double>(a.target_lengths[n] + 1) + kClassWork * static_cast<double>(a.C));
        most_steps = std::max(most_steps, steps);
        most_labels = std::max(most_labels, a.target_lengths[n]);
    }
    const Kernels<T>& kernel = precision<T>(kernels());
    const int threads = static_cast<int>(std::clamp<int64_t>(a.N, 1, threads_for(work)));
    const int64_t workspace_size = kernel.ctc_workspace(most_steps, most_labels);
    Array<T> workspace(threads * workspace_size);
    Array<double> loss(a.N);
    run_team(threads, [&](Member& member) {
        member.each(a.N, [&](int64_t n) {
            const double weight = weight_of(a, n);
            const int64_t steps = weight == 0 ? 0 : a.lengths ? a.lengths[n] : a.steps;
            T* gradient = a.gradient ? a.gradient + n * a.steps * a.C : nullptr;
            if (gradient) {
                std::memset(gradient + steps * a.C, 0, static_cast<size_t>((a.steps - steps) * a.C) * sizeof(T));
            }
            loss[n] = 0;
            if (weight == 0) return;
            const int64_t labels = a.target_lengths[n];
            const double scale = 1.0 / static_cast<double>(std::max<int64_t>(labels, 1));
            const double of_sequence = kernel.ctc({steps, a.C, labels, a.blank, a.outputs + n * a.steps * a.C,
                                                   a.targets + n * a.labels, static_cast<T>(weight / total * scale),
                                                   gradient, workspace + member.index() * workspace_size});
            if (!a.zero_infinity || !std::isinf(of_sequence)) loss[n] = weight * scale * of_sequence;
        });
    });

    double sum = 0;  // in order, whatever the threads were
    for (int64_t n = 0; n < a.N; ++n) sum += loss[n];
    return {total > 0 ? sum / total : 0, total};
}

template Mean ctc(const CtcBatch<float>&);
template Mean ctc(const CtcBatch<double>&);

}  // namespace rnncore
