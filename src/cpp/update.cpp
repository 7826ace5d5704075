#include "update.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "dispatch.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Elements of a task. Sums are made block by block, so it must not depend on the number of threads.
constexpr int64_t kBlock = 16 << 10;

int64_t blocks_of(int64_t n) {
    return ceil_div(n, kBlock);
}

// f(block, elements) for every block; `bytes` is what an element costs to read and write.
template <class F>
void each_block(int64_t n, int64_t bytes, F f) {
    run_team(threads_for_traffic(n * bytes), [&](Member& team) {
        team.each(blocks_of(n), [&](int64_t block) { f(block, {block * kBlock, std::min(n, (block + 1) * kBlock)}); });
    });
}

template <class Rule, class T>
void run(void (*kernel)(const Rule&, const Update<T>&, Span), const Rule& rule, const Update<T>& update, int64_t n) {
    int64_t values = 3;  // parameters are read and written, gradients read
    for (const T* moment : update.moments) values += moment ? 2 : 0;
    each_block(n, values * static_cast<int64_t>(sizeof(T)),
               [&](int64_t, Span elements) { kernel(rule, update, elements); });
}

}  // namespace

// With both moments divided by 1 - beta^step:
//   rate m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps)
Adam adam_rule(double rate, double beta1, double beta2, double eps, double weight_decay, bool decoupled, int64_t step) {
    const double t = static_cast<double>(step);
    Adam rule{rate / (1 - std::pow(beta1, t)), 1 / std::sqrt(1 - std::pow(beta2, t)), beta1, beta2, eps, 0, 1};
    if (decoupled) {
        rule.keep = 1 - rate * weight_decay;
    } else {
        rule.weight_decay = weight_decay;
    }
    return rule;
}

template <class T>
void step(const Sgd& rule, const Update<T>& update, int64_t n) {
    run(precision<T>(kernels()).sgd, rule, update, n);
}
template <class T>
void step(const Rmsprop& rule, const Update<T>& update, int64_t n) {
    run(precision<T>(kernels()).rmsprop, rule, update, n);
}
template <class T>
void step(const Adam& rule, const Update<T>& update, int64_t n) {
    run(precision<T>(kernels()).adam, rule, update, n);
}

template <class T>
double clip_norm(T* gradients, int64_t n, double max_norm) {
    const Kernels<T>& use = precision<T>(kernels());
    std::vector<double> sums(static_cast<size_t>(blocks_of(n)));
    each_block(n, sizeof(T), [&](int64_t block, Span elements) {
        sums[static_cast<size_t>(block)] = use.sum_of_squares(gradients, elements);
    });
    double sum = 0;
    for (const double of_block : sums) sum += of_block;
    const double norm = std::sqrt(sum);
    if (std::isfinite(norm) && norm > max_norm) {
        const T factor = static_cast<T>(max_norm / norm);
        each_block(n, 2 * sizeof(T), [&](int64_t, Span elements) { use.scale(gradients, factor, elements); });
    }
    return norm;
}

template void step(const Sgd&, const Update<float>&, int64_t);
template void step(const Sgd&, const Update<double>&, int64_t);
template void step(const Rmsprop&, const Update<float>&, int64_t);
template void step(const Rmsprop&, const Update<double>&, int64_t);
template void step(const Adam&, const Update<float>&, int64_t);
template void step(const Adam&, const Update<double>&, int64_t);
template double clip_norm(float*, int64_t, double);
template double clip_norm(double*, int64_t, double);

}  // namespace rnncore
