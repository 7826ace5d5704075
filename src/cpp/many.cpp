#include "many.hpp"

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>

#include "dispatch.hpp"
#include "repeat.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Networks are claimed in so many blocks for each thread: few enough that claiming costs nothing.
constexpr int64_t kBlocksPerThread = 8;

// Columns of a gradient that are summed over the networks at a time.
constexpr int64_t kSumColumns = 4096;

// Whether threads with whole networks are busy for three quarters of the time at least.
bool enough_networks(int64_t M, int threads) {
    return 4 * M >= 3 * threads * ceil_div(M, threads);
}

// Runs one(m, thread) for every network: on threads of which each has whole networks, and `thread` tells which; or, if
// there are not enough, in turn, with the threads left to `one`.
template <class One>
void each_network(int64_t M, int threads, One&& one) {
    if (!enough_networks(M, threads)) {
        for (int64_t m = 0; m < M; ++m) one(m, 0);
        return;
    }
    std::mutex mutex;
    std::exception_ptr failure;
    const int64_t blocks = threads == 1 ? 1 : std::min(M, kBlocksPerThread * threads);
    run_team(threads, [&](Member& team) {
        team.each(blocks, [&](int64_t block) {
            try {
                for (int64_t m = M * block / blocks; m < M * (block + 1) / blocks; ++m) one(m, team.index());
            } catch (...) {  // out of memory
                const std::lock_guard lock(mutex);
                failure = std::current_exception();
            }
        });
    });
    if (failure) std::rethrow_exception(failure);
}

template <class T>
int64_t weight_count(const Networks<T>& networks) {
    int64_t count = 0;
    for (const ManyWeights<T>& pass : networks.passes) {
        count += gates_of(pass.spec.cell) * pass.H * pass.I + product_size(needs_of<T>(pass.spec, pass.H, pass.P));
    }
    return count;
}

// Threads for so many passes over all steps, and what each begins with.
template <class T>
int threads_of(const Networks<T>& networks, const ManyLayouts& layouts, int passes_over_steps) {
    const double weights = static_cast<double>(weight_count(networks)) * static_cast<double>(networks.M);
    const double steps = static_cast<double>(layouts.N) * static_cast<double>(layouts.T);
    const int for_packing = !networks.packed ? threads_for_packing(static_cast<int64_t>(weights)) : 1;
    return std::max(threads_for(passes_over_steps * steps * weights), for_packing);
}

// The gradients of all networks with respect to an x of so many elements that all share, until they are summed.
template <class T>
class SharedGradient {
public:
    SharedGradient(const KernelTable& table, int64_t M, int64_t size, PerNetwork<T> dx)
        : kernels_(precision<T>(table)), M_(M), size_(size), dx_(dx), all_(dx.stride == 0 ? M * size : 0) {}

    PerNetwork<T> of_each() const { return dx_.stride == 0 ? PerNetwork<T>{all_, size_} : dx_; }

    // dx = ((dx_0 + dx_1) + dx_2) + ...
    void sum() const {
        if (dx_.stride != 0 || size_ == 0) return;
        std::copy_n(static_cast<const T*>(all_), size_, dx_.first);
        const std::vector<int64_t> to_row(static_cast<size_t>(M_ - 1));
        const int64_t spans = ceil_div(size_, kSumColumns);
        run_team(threads_for_traffic(M_ * size_ * static_cast<int64_t>(sizeof(T))), [&](Member& team) {
            team.each(spans, [&](int64_t index) {
                const Span columns{index * kSumColumns, std::min(size_, (index + 1) * kSumColumns)};
                kernels_.add_rows(M_ - 1, size_, columns, all_ + size_, to_row.data(), dx_.first);
            });
        });
    }

private:
    const Kernels<T>& kernels_;
    int64_t M_, size_;
    PerNetwork<T> dx_;
    Array<T> all_;
};

}  // namespace

template <class T>
Stack<T> Networks<T>::stack(int64_t m, int64_t rows_of_single_step) const {
    std::vector<Weights<T>> weights;
    weights.reserve(passes.size());
    for (const ManyWeights<T>& pass : passes) weights.push_back(pass.of(m));
    return Stack<T>(weights, directions, rows_of_single_step);
}

template <class T>
void Networks<T>::turn_to(int64_t m, int64_t rows_of_single_step, std::optional<Stack<T>>& stack) const {
    if (!stack || stack->passes[0].packed) {
        stack.emplace(this->stack(m, rows_of_single_step));
        return;
    }
    for (size_t index = 0; index < passes.size(); ++index) {
        stack->passes[index].point_to(passes[index].of(m), stack->needs);
    }
}

template <class T>
void Networks<T>::pack() {
    std::vector<std::optional<Stack<T>>> stacks(static_cast<size_t>(M));
    each_network(M, threads_for_packing(weight_count(*this) * M),
                 [&](int64_t m, int) { stacks[static_cast<size_t>(m)].emplace(stack(m, 0)); });
    std::vector<Stack<T>> all;
    all.reserve(stacks.size());
    for (std::optional<Stack<T>>& each : stacks) all.push_back(std::move(*each));
    packed = std::make_shared<const std::vector<Stack<T>>>(std::move(all));
}

template <class T>
void forward(const Networks<T>& networks, const ManyLayouts& layouts, const ManyInputs<T>& inputs,
             const ManyOutputs<T>& outputs) {
    // What a call of one network begins with is made once for each thread, and its workspace stays in cache.
    std::optional<Plan> plan;
    if (layouts.shared()) plan.emplace(layouts.of(0));
    const int threads = threads_of(networks, layouts, 1);
    const bool repeated = plan && enough_networks(networks.M, threads);
    const int64_t single_step = layouts.T == 1 ? layouts.N : 0;
    struct OfThread {
        std::optional<Stack<T>> stack;
        Repetition<T> repeat;
    };
    std::vector<OfThread> of_threads(static_cast<size_t>(threads));
    each_network(networks.M, threads, [&](int64_t m, int thread) {
        auto& [own, repeat] = of_threads[static_cast<size_t>(thread)];
        if (!networks.packed) networks.turn_to(m, single_step, own);
        const Stack<T>& stack = own ? *own : (*networks.packed)[static_cast<size_t>(m)];
        if (!repeated) return forward(stack, layouts.of(m), inputs.of(m), outputs.of(m));
        if (!repeat) repeat = repetition(stack, layouts.of(m), *plan, inputs.of(m), outputs.of(m));
        repeat(stack, inputs.of(m), outputs.of(m));
    });
}

template <class T>
std::vector<Tape<T>> forward_for_training(const Networks<T>& networks, const ManyLayouts& layouts,
                                          const ManyInputs<T>& inputs, const ManyOutputs<T>& outputs,
                                          int64_t checkpoint_every) {
    std::vector<std::optional<Tape<T>>> tapes(static_cast<size_t>(networks.M));
    each_network(networks.M, threads_of(networks, layouts, 1), [&](int64_t m, int) {
        tapes[static_cast<size_t>(m)].emplace(forward_for_training(networks.passes[0].of(m), layouts.of(m),
                                                                   inputs.of(m), outputs.of(m), checkpoint_every));
    });
    std::vector<Tape<T>> all;
    all.reserve(tapes.size());
    for (std::optional<Tape<T>>& tape : tapes) all.push_back(std::move(*tape));
    return all;
}

template <class T>
void backward(const Networks<T>& networks, const ManyLayouts& layouts, const ManyInputs<T>& inputs,
              const std::vector<Tape<T>>& tapes, const ManyOutputs<const T>& cotangents,
              const ManyGradients<T>& gradients) {
    const ManyWeights<T>& weights = networks.passes[0];
    const SharedGradient<T> dx(*tapes[0].kernels, networks.M, layouts.N * layouts.T * weights.I, gradients.x);
    ManyGradients<T> to = gradients;
    to.x = dx.of_each();
    each_network(networks.M, threads_of(networks, layouts, 3), [&](int64_t m, int) {
        backward(weights.of(m), inputs.of(m), tapes[static_cast<size_t>(m)], cotangents.of(m), to.of(m));
    });
    dx.sum();
}

namespace {

template <class T>
int threads_of(const ManyLinears<T>& layers, int products) {
    const double weights = static_cast<double>(layers.M) * static_cast<double>(layers.I * layers.O);
    return std::max(threads_for(products * weights * static_cast<double>(layers.rows[0].all())),
                    threads_for_packing(static_cast<int64_t>(weights)));
}

}  // namespace

template <class T>
void linear_forward(const KernelTable& table, const ManyLinears<T>& layers) {
    each_network(layers.M, threads_of(layers, 1),
                 [&](int64_t m, int) { linear_forward(table, layers.rows_of(m), layers.of(m)); });
}

template <class T>
void linear_backward(const KernelTable& table, const ManyLinears<T>& layers, PerNetwork<const T> dy,
                     const ManyLinearGradients<T>& gradients) {
    const SharedGradient<T> dx(table, layers.M, layers.rows[0].all() * layers.I, gradients.x);
    const PerNetwork<T> each = dx.of_each();
    each_network(layers.M, threads_of(layers, 2), [&](int64_t m, int) {
        linear_backward<T>(table, layers.rows_of(m), layers.of(m), dy.of(m),
                           {each.of(m), gradients.weight.of(m), gradients.bias.of(m)});
    });
    dx.sum();
}

template struct Networks<float>;
template struct Networks<double>;
template void forward(const Networks<float>&, const ManyLayouts&, const ManyInputs<float>&, const ManyOutputs<float>&);
template void forward(const Networks<double>&, const ManyLayouts&, const ManyInputs<double>&,
                      const ManyOutputs<double>&);
template std::vector<Tape<float>> forward_for_training(const Networks<float>&, const ManyLayouts&,
                                                       const ManyInputs<float>&, const ManyOutputs<float>&, int64_t);
template std::vector<Tape<double>> forward_for_training(const Networks<double>&, const ManyLayouts&,
                                                        const ManyInputs<double>&, const ManyOutputs<double>&, int64_t);
template void backward(const Networks<float>&, const ManyLayouts&, const ManyInputs<float>&,
                       const std::vector<Tape<float>>&, const ManyOutputs<const float>&, const ManyGradients<float>&);
template void backward(const Networks<double>&, const ManyLayouts&, const ManyInputs<double>&,
                       const std::vector<Tape<double>>&, const ManyOutputs<const double>&,
                       const ManyGradients<double>&);
template void linear_forward(const KernelTable&, const ManyLinears<float>&);
template void linear_forward(const KernelTable&, const ManyLinears<double>&);
template void linear_backward(const KernelTable&, const ManyLinears<float>&, PerNetwork<const float>,
                              const ManyLinearGradients<float>&);
template void linear_backward(const KernelTable&, const ManyLinears<double>&, PerNetwork<const double>,
                              const ManyLinearGradients<double>&);

}  // namespace rnncore
