// The forward half of the engine.
#include <algorithm>
#include <memory>
#include <optional>

#include "dispatch.hpp"
#include "engine.hpp"
#include "pass.hpp"
#include "recompute.hpp"
#include "repeat.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Rows of a chunk of the input product, so that its result stays in L2 until the time loop has used it.
template <class T>
int64_t input_chunk_rows(int64_t row_size) {
    constexpr int64_t kBytes = 256 << 10;
    return std::clamp<int64_t>(kBytes / (row_size * static_cast<int64_t>(sizeof(T))), 16, 1024);
}

// Items that the work of a layer is cut into where the next layer runs beside it.
constexpr int64_t kChunksBesideNextLayer = 16;

// Rows of a slice, at most: each goes through all steps by itself, with its states and input products in cache.
constexpr int64_t kMostSliceRows = 256;

// Rows of a group of a tape, at most. A function of nothing but this constant and the batch, since it has a part in the
// order in which gradients are summed.
constexpr int64_t kMostGroupRows = 512;

int64_t most_slice_rows(const std::vector<int64_t>& slices) {
    int64_t most = 0;
    for (size_t s = 1; s < slices.size(); ++s) most = std::max(most, slices[s] - slices[s - 1]);
    return most;
}

template <class T>
void copy_initial_states(const Forward<T>& task, const Plan& plan, const Needs& needs, const T* const* first) {
    for (int s = 0; s < kMaxStates && needs.state[s] > 0; ++s) {
        const int64_t size = needs.state[s];
        for (int64_t n = 0; n < task.batch.N; ++n) {
            const int64_t at = task.batch.order[n] * size;
            const T* row = first[s] ? first[s] + at : nullptr;
            copy_row(task.states[s] + n * size, row, size);
            if (plan.length(n) == 0) copy_row(task.last[s] + at, row, size);
        }
    }
}

template <class T>
int threads_of(const Stack<T>& stack, const Plan& plan) {
    double multiply_adds = 0;
    for (const PackedWeights<T>& weights : stack.passes) multiply_adds += stack.multiply_adds(weights.I);
    return threads_for(multiply_adds * static_cast<double>(plan.batch().R));
}

// A forward pass made ready for a team: how its work is cut, and the memory that takes.
template <class T>
struct Run {
    Run(const Stack<T>& stack, const Layout& layout, const Plan& plan, const Input<T>& input, const Output<T>& output,
        const Kept<T>* kept, int threads);
    Run(const Run&) = delete;

    // On to a call of the same shapes and the same plan.
    void turn_to(const Stack<T>& stack, const Input<T>& input, const Output<T>& output);
    // The initial states, once before all steps.
    void start(const Input<T>& input) const;
    // The input products of a whole table, once before all steps.
    void table(Member& team) const;
    // These steps of all passes: all there are, or, of one pass, a part. `done` is the number of steps that were run
    // before. Every member of the team must make the same calls.
    void steps(Member& team, Span time, int64_t done = 0);
    // The states before step t of the rows alive there, to memory from a pass that keeps none,
    void copy_states(int64_t t, const Array<T>* to, int64_t row) const;
    // and back into one that keeps all from this step on.
    void start_at(int64_t t, const Array<T>* from, int64_t row);

    const CellKernels<T>& cell;
    const Needs& needs;  // of the stack it was made for
    const Plan& plan;
    const int64_t N, D, L, panels, caller_rows;
    Cut cut;
    bool layers_side_by_side;
    std::vector<int64_t> slices, chunks;
    std::optional<Plan> reversed;
    Array<T> series;         // what is between the layers
    int64_t table_rows = 0;  // of a table that is multiplied as a whole
    Array<T> table_pre;      // (D, table_rows, G*H)
    std::optional<Workspace<T>> workspace;
    std::vector<Pass<T>> passes;
    std::optional<Lanes> lanes;
};

template <class T>
Run<T>::Run(const Stack<T>& stack, const Layout& layout, const Plan& plan, const Input<T>& input,
            const Output<T>& output, const Kept<T>* kept, int threads)
    : cell(stack.cell_kernels()),
      needs(stack.needs),
      plan(plan),
      N(plan.batch().N),
      D(stack.directions),
      L(stack.layers()),
      panels(cell.forward_panels(stack.H)),
      caller_rows(layout.caller_rows()) {
    const int64_t T_ = plan.batch().T, R = plan.batch().R, H = stack.H, P = stack.P, row_size = cell.gates * H;

    // How the work is cut: by directions, then rows or hidden units; or by layers, each at its own part of the steps.
    const double u_bytes = static_cast<double>(product_size(needs)) * sizeof(T);
    const bool by_units = D == 1 && !(stack.spec.skip && L > 1);  // (what is added is added to whole rows)
    cut = cut_pass(static_cast<int>(ceil_div(threads, D)), N, u_bytes, by_units ? panels : 1);
    const double in_turn = cut.step_ns * static_cast<double>(L);
    const double side_by_side = cut_pass(1, N, u_bytes, 1).step_ns * static_cast<double>(L) /
                                static_cast<double>(std::min<int64_t>(L, threads)) *
                                (1 + static_cast<double>(L - 1) / kChunksBesideNextLayer);
    layers_side_by_side = D == 1 && L > 1 && T_ >= kChunksBesideNextLayer && side_by_side < in_turn;
    const int64_t slices_in_cache = ceil_div(N, kMostSliceRows);
    slices = plan.slices(std::max<int64_t>(cut.rows, slices_in_cache));

    int64_t chunk_rows = std::min(R, input_chunk_rows<T>(row_size));
    if (layers_side_by_side) chunk_rows = std::min(chunk_rows, R / kChunksBesideNextLayer);
    const bool by_chunks = layers_side_by_side || cut.units > 1;
    if (by_chunks) chunks = plan.chunks(chunk_rows);
    const int64_t parts = layers_side_by_side ? L : std::max(threads, cut.units);
    const bool whole_table = input.whole_table(R);
    const bool few_inputs =
        cell.input_in_loop && stack.passes[0].packed && stack.passes[0].I <= kFewInputs && !input.tokens;
    const int64_t step_rows = by_chunks ? N : most_slice_rows(slices);
    const int64_t part_rows = std::max(chunk_rows, step_rows);  // a chunk has a step at least
    workspace.emplace(kept ? 0 : D * L * 2 * N * state_size(needs), L == 1 && (few_inputs || whole_table) ? 0 : parts,
                      part_rows, row_size, parts, step_rows * needs.forward_row + needs.forward_once);

    if (D == 2) {
        Layout backwards = layout;
        backwards.reverse = true;
        reversed.emplace(backwards);
    }
    series = Array<T>((L - 1) * caller_rows * D * P);
    if (whole_table) {
        table_rows = input.V;
        table_pre = Array<T>(D * table_rows * row_size);
    }
    passes.reserve(static_cast<size_t>(D * L));
    T* states = workspace->states;
    for (int64_t index = 0; index < D * L; ++index) {
        const int64_t direction = index % D;
        Pass<T>& pass = passes.emplace_back();  // (in place: single steps notice a copy)
        pass.cell = &cell;
        pass.plan = direction ? &*reversed : &plan;
        pass.workspace = &*workspace;
        pass.chunk_rows = chunk_rows;
        pass.skip = stack.spec.skip && index >= D;
        pass.first_column = direction * P;
        Forward<T>& task = pass.task;
        task.batch = pass.plan->batch();
        task.H = H, task.P = P;
        if (index < D && whole_table) task.table_pre = table_pre + direction * table_rows * row_size;
        task.y_stride = D * P;
        task.keep = kept != nullptr;
        if (kept) task.saved = kept->saved;
        for (int p = 0; p < needs.products && kept; ++p) task.operands[p] = kept->operand(p);
        for (int s = 0; s < cell.states; ++s) {
            task.states[s] = kept ? kept->states[s] : states;
            states += 2 * N * needs.state[s];
        }
    }
    lanes.emplace(layers_side_by_side ? L : cut.units);
    turn_to(stack, input, output);
}

template <class T>
void Run<T>::turn_to(const Stack<T>& stack, const Input<T>& input, const Output<T>& output) {
    const int64_t P = stack.P;
    for (int64_t index = 0; index < D * L; ++index) {
        const int64_t layer = index / D, direction = index % D;
        const PackedWeights<T>& weights = stack.passes[static_cast<size_t>(index)];
        Forward<T>& task = passes[static_cast<size_t>(index)].task;
        task.I = weights.I;
        task.packed = weights.packed;
        task.x = layer ? series + (layer - 1) * caller_rows * D * P : input.x;
        if (!layer) task.tokens = input.tokens;
        task.options = &stack.spec.options;
        task.w = weights.w, task.b_ih = weights.b_ih, task.vectors = weights.vectors;
        std::copy_n(weights.u, needs.products, task.u);
        std::copy_n(weights.b_hh, needs.products, task.b_hh);
        std::copy_n(input.take, 2, task.take);
        task.recurrent_mask = input.recurrent_mask;
        if (output.y) task.y = (layer + 1 < L ? series + layer * caller_rows * D * P : output.y) + direction * P;
        for (int s = 0; s < cell.states; ++s) {
            if (output.last[s]) task.last[s] = output.last[s] + index * N * needs.state[s];
        }
    }
}

template <class T>
void Run<T>::start(const Input<T>& input) const {
    for (size_t index = 0; index < passes.size(); ++index) {
        const Forward<T>& task = passes[index].task;
        const T* first[kMaxStates] = {};
        for (int s = 0; s < cell.states; ++s) {
            if (input.first[s]) first[s] = input.first[s] + static_cast<int64_t>(index) * N * needs.state[s];
        }
        copy_initial_states(task, plan, needs, first);
    }
}

template <class T>
void Run<T>::table(Member& team) const {
    const int64_t blocks = ceil_div(table_rows, kTableRows);
    team.each(D * blocks, [&](int64_t index) {
        const int64_t direction = index % D, block = index / D;
        passes[static_cast<size_t>(direction)].table({table_rows * block / blocks, table_rows * (block + 1) / blocks},
                                                     table_pre + direction * table_rows * workspace->row_size);
    });
}

template <class T>
void Run<T>::steps(Member& team, Span time, int64_t done) {
    const int64_t count = time.end - time.begin, slice_count = static_cast<int64_t>(slices.size()) - 1;
    if (layers_side_by_side) {
        const auto ready = [&](int64_t layer, int64_t chunk) { return layer == 0 || lanes->done(layer - 1) > chunk; };
        team.follow(*lanes, static_cast<int64_t>(chunks.size()) - 1, ready, [&](int64_t layer, int64_t chunk) {
            passes[static_cast<size_t>(layer)].chunk({chunks[chunk], chunks[chunk + 1]}, {0, N}, layer);
        });
    } else if (cut.units > 1) {
        const auto ready = [&](int64_t, int64_t item) { return lanes->all_done(item); };
        team.follow(*lanes, done + L * count, ready, [&](int64_t lane, int64_t item) {
            const int64_t t = time.begin + (item - done) % count;
            const auto end = std::upper_bound(chunks.begin(), chunks.end(), t);
            const Span chunk{std::max(end[-1], time.begin), std::min(*end, time.end)};
            const Span mine{panels * lane / cut.units, panels * (lane + 1) / cut.units};
            passes[static_cast<size_t>((item - done) / count)].step(chunk, t, mine, lane);
        });
    } else {
        for (int64_t layer = 0; layer < L; ++layer) {
            team.each(D * slice_count, [&](int64_t part) {
                const int64_t slice = part % slice_count;
                const Pass<T>& pass = passes[static_cast<size_t>(layer * D + part / slice_count)];
                pass.all_steps(time, {slices[slice], slices[slice + 1]}, team.index());
            });
        }
    }
}

template <class T>
void Run<T>::copy_states(int64_t t, const Array<T>* to, int64_t row) const {
    const Forward<T>& task = passes[0].task;
    for (int s = 0; s < cell.states; ++s) {
        const int64_t size = needs.state[s];
        std::copy_n(task.states[s] + t % 2 * N * size, task.batch.count[t] * size, to[s] + row * size);
    }
}

template <class T>
void Run<T>::start_at(int64_t t, const Array<T>* from, int64_t row) {
    Forward<T>& task = passes[0].task;
    task.kept_from = t;
    for (int s = 0; s < cell.states; ++s) {
        const int64_t size = needs.state[s];
        std::copy_n(from[s] + row * size, task.batch.count[t] * size, task.states[s]);
    }
}

template <class T>
void run(const Stack<T>& stack, const Layout& layout, const Plan& plan, const Input<T>& input, const Output<T>& output,
         const typename Tape<T>::Group* tape) {
    plan.clear_padding(output.y, stack.directions * stack.P);
    const int threads = threads_of(stack, plan);
    const bool checkpoints = tape && !tape->checkpoint_rows.empty();
    Run<T> run(stack, layout, plan, input, output, tape && !checkpoints ? &tape->kept : nullptr, threads);
    run.start(input);
    const Batch batch = plan.batch();
    if (batch.R == 0) return;

    run_team(threads, [&](Member& team) {
        run.table(team);
        if (!checkpoints) return run.steps(team, {0, batch.T});
        for (size_t s = 0; s + 1 < tape->segments.size(); ++s) {
            const Span segment{tape->segments[s], tape->segments[s + 1]};
            team.each(1, [&](int64_t) { run.copy_states(segment.begin, tape->checkpoints, tape->checkpoint_rows[s]); });
            run.steps(team, segment, segment.begin);
        }
    });
}

// Packed unless that costs more than the one step which the call may be.
template <class T>
Stack<T> packed_for(const Weights<T>& weights, const Layout& layout) {
    return Stack<T>({weights}, 1, layout.T == 1 ? layout.N : 0);
}

}  // namespace

template <class T>
void forward(const Stack<T>& stack, const Layout& layout, const Input<T>& input, const Output<T>& output) {
    run<T>(stack, layout, Plan(layout), input, output, nullptr);
}

template <class T>
void forward(const Weights<T>& weights, const Layout& layout, const Input<T>& input, const Output<T>& output) {
    forward(packed_for(weights, layout), layout, input, output);
}

template <class T>
Tape<T> forward_for_training(const Weights<T>& weights, const Layout& layout, const Input<T>& input,
                             const Output<T>& output, int64_t checkpoint_every) {
    Stack<T> stack = packed_for(weights, layout);
    const Needs& needs = stack.needs;
    Tape<T> tape(stack.kernels);
    const int64_t all = layout.sequences(), groups = std::max<int64_t>(ceil_div(all, kMostGroupRows), 1);
    for (int64_t g = 0; g < groups; ++g) {
        tape.groups.push_back({Plan(layout, {all * g / groups, all * (g + 1) / groups}), {}, {}, {}, {}});
        typename Tape<T>::Group& group = tape.groups.back();
        const Batch batch = group.plan.batch();
        if (checkpoint_every == 0) {
            group.segments = {0, batch.T};
            group.kept = Kept<T>(needs, batch.N, batch.R, input.recurrent_mask != nullptr);
        } else {
            group.segments = group.plan.segments(kBackwardChunkRows, checkpoint_every);
            group.checkpoint_rows = {0};
            for (size_t s = 0; s + 1 < group.segments.size(); ++s) {
                group.checkpoint_rows.push_back(group.checkpoint_rows[s] + batch.count[group.segments[s]]);
            }
            for (int s = 0; s < kMaxStates && needs.state[s] > 0; ++s) {
                group.checkpoints[s] = Array<T>(group.checkpoint_rows.back() * needs.state[s]);
            }
        }
        run(stack, layout, group.plan, input, output, &group);
    }
    if (checkpoint_every > 0) tape.stack.emplace(std::move(stack));
    return tape;
}

template <class T>
Repetition<T> repetition(const Stack<T>& stack, const Layout& layout, const Plan& plan, const Input<T>& input,
                         const Output<T>& output) {
    const auto run = std::make_shared<Run<T>>(stack, layout, plan, input, output, nullptr, 1);
    return [run](const Stack<T>& stack, const Input<T>& input, const Output<T>& output) {
        run->turn_to(stack, input, output);
        run->plan.clear_padding(output.y, stack.directions * stack.P);
        run->start(input);
        run_team(1, [&](Member& alone) { run->steps(alone, {0, run->plan.batch().T}); });
    };
}

template <class T>
std::function<void(Member& team, int64_t segment)> recomputation(const Stack<T>& stack, const Input<T>& input,
                                                                 const typename Tape<T>::Group& group,
                                                                 const Kept<T>& kept, int threads) {
    // (the plan says all about the batch that the layout does, but for what stands between layers)
    const auto run = std::make_shared<Run<T>>(stack, Layout{}, group.plan, input, Output<T>{}, &kept, threads);
    return [run, &group](Member& team, int64_t s) {
        const Span segment{group.segments[s], group.segments[s + 1]};
        if (segment.end == group.plan.batch().T) run->table(team);  // the first to be run again
        team.each(1, [&](int64_t) { run->start_at(segment.begin, group.checkpoints, group.checkpoint_rows[s]); });
        run->steps(team, segment, group.plan.batch().T - segment.end);
    };
}

template void forward(const Stack<float>&, const Layout&, const Input<float>&, const Output<float>&);
template void forward(const Stack<double>&, const Layout&, const Input<double>&, const Output<double>&);
template void forward(const Weights<float>&, const Layout&, const Input<float>&, const Output<float>&);
template void forward(const Weights<double>&, const Layout&, const Input<double>&, const Output<double>&);
template Tape<float> forward_for_training(const Weights<float>&, const Layout&, const Input<float>&,
                                          const Output<float>&, int64_t);
template Tape<double> forward_for_training(const Weights<double>&, const Layout&, const Input<double>&,
                                           const Output<double>&, int64_t);
template Repetition<float> repetition(const Stack<float>&, const Layout&, const Plan&, const Input<float>&,
                                      const Output<float>&);
template Repetition<double> repetition(const Stack<double>&, const Layout&, const Plan&, const Input<double>&,
                                       const Output<double>&);
template std::function<void(Member&, int64_t)> recomputation(const Stack<float>&, const Input<float>&,
                                                             const Tape<float>::Group&, const Kept<float>&, int);
template std::function<void(Member&, int64_t)> recomputation(const Stack<double>&, const Input<double>&,
                                                             const Tape<double>::Group&, const Kept<double>&, int);

}  // namespace rnncore
