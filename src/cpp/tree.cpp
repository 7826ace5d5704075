#include "tree.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "linear.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "sums.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Rows of a block at least, or tiles are not full.
constexpr int64_t kLeastBlockRows = 24;

int threads_of(const Forest& forest, double multiply_adds) {
    int64_t parts = forest.groups() / 2;
    for (int64_t g = 0; g < forest.groups(); ++g) {
        for (const Span level : forest.group(g)) parts = std::max(parts, (level.end - level.begin) / kLeastBlockRows);
    }
    return static_cast<int>(std::clamp<int64_t>(parts, 1, threads_for(multiply_adds)));
}

// f(rows, thread) for blocks of all levels, upwards or downwards: a thread takes whole groups of trees, or, where there
// are too few, the threads share each level.
template <class F>
void each_block(Member& team, const Forest& forest, bool upwards, F f) {
    const int64_t threads = team.team_size();
    const auto each_level = [&](int64_t g, const auto& run) {
        const std::vector<Span>& levels = forest.group(g);
        for (size_t l = 0; l < levels.size(); ++l) run(levels[upwards ? l : levels.size() - 1 - l]);
    };
    if (threads == 1 || forest.groups() >= 2 * threads) {
        return team.each(forest.groups(), [&](int64_t g) {
            each_level(g, [&](Span level) {
                for (int64_t begin = level.begin; begin < level.end; begin += kTreeRows) {
                    f(Span{begin, std::min(begin + kTreeRows, level.end)}, team.index());
                }
            });
        });
    }
    for (int64_t g = 0; g < forest.groups(); ++g) {
        each_level(g, [&](Span level) {
            const int64_t n = level.end - level.begin;
            const int64_t of_threads = std::clamp<int64_t>(n / kLeastBlockRows, 1, threads);
            const int64_t blocks = round_up(std::max(ceil_div(n, kTreeRows), of_threads), of_threads);
            team.each(blocks, [&](int64_t block) {
                f(Span{level.begin + n * block / blocks, level.begin + n * (block + 1) / blocks}, team.index());
            });
        });
    }
}

// Weights packed for forward, or for backward.
template <class T>
struct Packed {
    const T *w, *b_ih, *u, *b, *u_forget, *b_forget;
    Arrays<T> memory;
};

template <class T>
void pack_forward(const Kernels<T>& kernels, const TreeCall<T>& call, const TreeSizes& sizes, Packed<T>& out) {
    struct Part {
        const T** packed;
        const T* from;
        int64_t columns, K;
        T* to;
    };
    const int64_t H = call.H;
    Part parts[] = {
        {&out.w, call.weight, sizes.pre, call.I, nullptr},       {&out.b_ih, call.bias, sizes.pre, 1, nullptr},
        {&out.u, call.u, sizes.product, sizes.operand, nullptr}, {&out.b, call.b, sizes.product, 1, nullptr},
        {&out.u_forget, call.u_forget, H, H, nullptr},           {&out.b_forget, call.b_forget, H, 1, nullptr}};
    for (Part& part : parts) {
        out.memory.add(part.to, part.from ? round_up(part.columns, kernels.lanes) * part.K : 0);
    }
    out.memory.allocate();
    for (const Part& part : parts) {
        *part.packed = part.from ? part.to : nullptr;
        if (part.from) kernels.pack_transposed(part.from, part.K, part.columns, part.to);
    }
}

template <class T>
void pack_backward(const Kernels<T>& kernels, const TreeCall<T>& call, const TreeSizes& sizes, Packed<T>& out) {
    T *u, *u_forget;
    out.memory.add(u, sizes.product * round_up(sizes.operand, kernels.lanes));
    out.memory.add(u_forget, call.u_forget ? call.H * round_up(call.H, kernels.lanes) : 0);
    out.memory.allocate();
    kernels.pack_columns(call.u, sizes.product, sizes.operand, u);
    if (call.u_forget) kernels.pack_columns(call.u_forget, call.H, call.H, u_forget);
    out.u = u, out.u_forget = call.u_forget ? u_forget : nullptr;
}

// of_node: those of each node beside the products of trees
template <class T>
double multiply_adds_of(const TreeCall<T>& call, const TreeSizes& sizes, int64_t of_node) {
    const auto rows = static_cast<double>(call.forest->rows()),
               leaves = static_cast<double>(call.forest->nodes().leaves);
    return (rows - leaves) * static_cast<double>(sizes.product * sizes.operand) +
           rows * static_cast<double>(of_node + (call.u_forget ? call.H * call.H : 0));
}

bool has_c(TreeCell cell) {
    return cell == TreeCell::child_sum || cell == TreeCell::binary;
}

}  // namespace

TreeSizes tree_sizes(TreeCell cell, int64_t H) {
    if (cell == TreeCell::child_sum) return {4 * H, H, 3 * H};
    if (cell == TreeCell::binary) return {4 * H, 2 * H, 5 * H};
    return {H, H, H};
}

template <class T>
void tree_forward(const KernelTable& table, const TreeCall<T>& call, T* y, T* const* last, TreeTape<T>* tape) {
    const Kernels<T>& kernels = precision<T>(table);
    const Forest& forest = *call.forest;
    const TreeNodes nodes = forest.nodes();
    const TreeSizes sizes = tree_sizes(call.cell, call.H);
    const int64_t R = forest.rows(), H = call.H, of_lstm = has_c(call.cell) ? R * H : 0;
    TreeTape<T> own{};
    TreeTape<T>& kept = tape ? *tape : own;
    kept.memory.add(kept.h, R * H);
    kept.memory.add(kept.c, of_lstm);
    kept.memory.add(kept.forget, of_lstm);
    if (tape) kept.memory.add(kept.operand, (R - nodes.leaves) * sizes.operand);
    if (tape) kept.memory.add(kept.gates, 3 * of_lstm);
    kept.memory.allocate();

    const bool packed = R > kernels.unpacked_rows;
    Packed<T> weights{call.weight, call.bias, call.u, call.b, call.u_forget, call.b_forget, {}};
    if (packed) pack_forward(kernels, call, sizes, weights);
    const TreeForward<T> task{call.cell,
                              call.I,
                              H,
                              sizes,
                              nodes,
                              call.x,
                              packed,
                              weights.w,
                              weights.b_ih,
                              weights.u,
                              weights.b,
                              weights.u_forget,
                              weights.b_forget,
                              kept.h,
                              kept.c,
                              kept.forget,
                              y,
                              kept.operand,
                              kept.gates};
    const auto threads = threads_of(forest, multiply_adds_of(call, sizes, sizes.pre * call.I));
    const int64_t room = kTreeRows * (sizes.pre + sizes.product + sizes.operand) + 7 * H;
    const Array<T> workspace(threads * room);
    run_team(threads, [&](Member& team) {
        each_block(team, forest, true,
                   [&](Span rows, int64_t thread) { kernels.tree_forward(task, rows, workspace + thread * room); });
    });
    for (int64_t n = 0; n < forest.trees(); ++n) {
        const int64_t root = forest.roots()[static_cast<size_t>(n)];
        std::copy_n(kept.h + root * H, H, last[0] + n * H);
        if (has_c(call.cell)) std::copy_n(kept.c + root * H, H, last[1] + n * H);
    }
}

template <class T>
void tree_backward(const KernelTable& table, const TreeCall<T>& call, const TreeTape<T>& tape, const T* dy,
                   const T* const* dlast, const TreeGradients<T>& gradients) {
    const Kernels<T>& kernels = precision<T>(table);
    const Forest& forest = *call.forest;
    const TreeNodes nodes = forest.nodes();
    const TreeSizes sizes = tree_sizes(call.cell, call.H);
    const int64_t R = forest.rows(), H = call.H, inner = R - nodes.leaves;
    const bool lstm = has_c(call.cell);
    Packed<T> weights{};
    pack_backward(kernels, call, sizes, weights);
    T *dc, *dforget, *dpre, *du, *doperand;
    Arrays<T> memory;
    memory.add(dc, lstm ? R * H : 0);
    memory.add(dforget, call.u_forget ? R * H : 0);
    memory.add(dpre, R * sizes.pre);
    memory.add(du, R * sizes.product);
    memory.add(doperand, inner * sizes.operand);
    memory.allocate();

    const TreeBackward<T> task{call.cell, H,       sizes,       nodes,      weights.u, weights.u_forget,
                               tape.h,    tape.c,  tape.forget, tape.gates, dy,        {dlast[0], dlast[1]},
                               dc,        dforget, dpre,        du,         doperand};
    const auto threads = threads_of(forest, multiply_adds_of(call, sizes, 0));
    const int64_t room = (kTreeRows + 1) * H;
    const Array<T> workspace(threads * room);
    run_team(threads, [&](Member& team) {
        each_block(team, forest, false,
                   [&](Span rows, int64_t thread) { kernels.tree_backward(task, rows, workspace + thread * room); });
    });

    // The gradients of weights are sums over nodes, those of U over nodes that have children. du is dx but for the
    // forget gates, and so are the gradients of biases.
    const Rows all(R);
    linear_backward<T>(
        table, all,
        {call.I, sizes.pre, Activation::none, nullptr, call.x, false, call.weight, nullptr, nullptr, sizes.pre}, dpre,
        {gradients.x, gradients.weight, gradients.bias});
    sum_weights<T>(table, inner,
                   {{sizes.operand, tape.operand, all.index(), sizes.product, sizes.product,
                     du + nodes.leaves * sizes.product, gradients.u, gradients.b}});
    if (call.u_forget) {
        sum_weights<T>(table, R, {{H, tape.h, all.index(), H, H, dforget, gradients.u_forget, gradients.b_forget}});
    }
    const auto of_pre = [&](int64_t gate, int64_t from) {
        std::copy_n(gradients.bias + from * H, H, gradients.b + gate * H);
    };
    of_pre(0, 0);
    if (!lstm) return;
    of_pre(call.cell == TreeCell::binary ? 3 : 1, 2);
    of_pre(call.cell == TreeCell::binary ? 4 : 2, 3);
}

template void tree_forward(const KernelTable&, const TreeCall<float>&, float*, float* const*, TreeTape<float>*);
template void tree_forward(const KernelTable&, const TreeCall<double>&, double*, double* const*, TreeTape<double>*);
template void tree_backward(const KernelTable&, const TreeCall<float>&, const TreeTape<float>&, const float*,
                            const float* const*, const TreeGradients<float>&);
template void tree_backward(const KernelTable&, const TreeCall<double>&, const TreeTape<double>&, const double*,
                            const double* const*, const TreeGradients<double>&);

}  // namespace rnncore
