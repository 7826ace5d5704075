// Softmax cross-entropy of a batch: what counts and by how much, then rows of the kernel on several threads.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "dispatch.hpp"
#include "losses.hpp"
#include "memory.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"
#include "weights.hpp"

namespace rnncore {
namespace {

constexpr double kElementWork = 20;  // an exponential and three passes, in multiply-adds
constexpr int64_t kSliceElements = 1 << 14;

template <class T>
[[noreturn]] void refuse(const CrossEntropyBatch<T>& a, int64_t row, const std::string& expected,
                         const std::string& got) {
    const std::string step = a.steps > 1 ? ", step " + std::to_string(row % a.steps) : "";
    throw std::invalid_argument("targets: expected " + expected + ", got " + got + " at row " +
                                std::to_string(row / a.steps) + step);
}

template <class T>
void check_target(const CrossEntropyBatch<T>& a, int64_t row) {
    if (a.classes) {
        if (a.classes[row] >= 0 && a.classes[row] < a.C) return;
        refuse(a, row, "classes from 0 to " + std::to_string(a.C - 1), std::to_string(a.classes[row]));
    }
    const T* q = a.probabilities + row * a.C;
    for (int64_t c = 0; c < a.C; ++c) {
        if (q[c] < 0) refuse(a, row, "probabilities", std::to_string(q[c]));
    }
}

// The weight of every row; 0 for one that does not count. Returns their sum.
template <class T>
double weigh(const CrossEntropyBatch<T>& a, double* weight) {
    double sum = 0;
    for (int64_t n = 0; n < a.N; ++n) {
        const int64_t length = a.lengths ? a.lengths[n] : a.steps;
        for (int64_t t = 0; t < a.steps; ++t) {
            const int64_t row = n * a.steps + t;
            weight[row] = 0;
            if (t >= length || (a.classes && a.ignored_class && a.classes[row] == *a.ignored_class)) continue;
            weight[row] = a.weights ? a.weights[a.step_weights ? row : n] : 1;
            if (weight[row] > 0) check_target(a, row);
            sum += weight[row];
        }
    }
    return sum;
}

}  // namespace

template <class T>
Mean cross_entropy(const CrossEntropyBatch<T>& a) {
    const int64_t rows = a.N * a.steps;
    Array<double> weight(rows), scale(rows), loss(rows);
    const double total = weigh(a, weight);
    for (int64_t r = 0; r < rows; ++r) scale[r] = total > 0 ? weight[r] / total : 0;

    const CrossEntropy<T> task{a.C, a.outputs, a.classes, a.probabilities, a.smoothing, scale, loss, a.gradient};
    const auto kernel = precision<T>(kernels()).cross_entropy;
    const int threads = threads_for(kElementWork * static_cast<double>(rows) * static_cast<double>(a.C));
    const int64_t slice = std::max<int64_t>(1, kSliceElements / std::max<int64_t>(a.C, 1));
    run_team(threads, [&](Member& member) {
        member.each(ceil_div(rows, slice), [&](int64_t task_index) {
            kernel(task, {task_index * slice, std::min(rows, (task_index + 1) * slice)});
        });
    });

    double sum = 0;  // in order, whatever the threads were
    for (int64_t r = 0; r < rows; ++r) {
        if (weight[r] > 0) sum += weight[r] * loss[r];
    }
    return {total > 0 ? sum / total : 0, total};
}

template Mean cross_entropy(const CrossEntropyBatch<float>&);
template Mean cross_entropy(const CrossEntropyBatch<double>&);

}  // namespace rnncore
