// The forward half of the engine.
#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>

#include "dispatch.hpp"
#include "engine.hpp"
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

// Up to so many inputs the time loop makes the product with W itself, which spares writing and reading it.
constexpr int64_t kFewInputs = 4;

// Rows of a table that are multiplied at a time.
constexpr int64_t kTableRows = 48;

// Items that the work of a layer is cut into where the next layer runs beside it.
constexpr int64_t kChunksBesideNextLayer = 16;

// Rows of a slice, at most: each goes through all steps by itself, with its states and input products in cache.
constexpr int64_t kMostSliceRows = 256;

// Rows of a group of a tape, at most. A function of nothing but this constant and the batch, since it has a part in the
// order in which gradients are summed.
constexpr int64_t kMostGroupRows = 512;

// What a call needs besides the caller's arrays: for the input products of so many parts at a time, and for states.
template <class T>
struct Workspace {
    int64_t rows, row_size;
    T *pre, *states, *pointers;
    Arrays<T> memory;

    Workspace(int64_t states_size, int64_t parts, int64_t rows, int64_t row_size) : rows(rows), row_size(row_size) {
        memory.add(pre, parts * rows * row_size);
        memory.add(states, states_size);
        memory.add(pointers, parts * rows * static_cast<int64_t>(sizeof(const T*) / sizeof(T)));
        memory.allocate();
    }
    T* pre_of(int64_t part) const { return pre + part * rows * row_size; }
    const T** x_rows_of(int64_t part) const { return reinterpret_cast<const T**>(pointers) + part * rows; }
};

// One layer in one direction, over any part of its steps, rows and hidden units.
template <class T>
struct Pass {
    const CellKernels<T>* cell;
    const Plan* plan;
    const Workspace<T>* workspace;
    int64_t chunk_rows;
    Forward<T> task;

    // Whether the input products are made a chunk at a time: neither for a whole table before, nor by the time loop.
    bool input_by_chunks() const { return !task.table_pre && (task.tokens || !task.packed || task.I > kFewInputs); }
    Span all_rows() const { return {0, task.batch.N}; }
    Span all_panels() const { return {0, cell->forward_panels(task.H)}; }

    void all_steps(Span rows, int64_t part) const {
        const int64_t steps = plan->steps(rows);
        for (int64_t t = 0, end; t < steps; t = end) {
            end = input_by_chunks() ? plan->chunk_end(t, rows, chunk_rows) : steps;
            chunk({t, end}, rows, part);
        }
    }
    void chunk(Span time, Span rows, int64_t part) const {
        T* pre = input_by_chunks() ? workspace->pre_of(part) : nullptr;
        if (pre) input(pre, time, rows, all_panels(), part);
        cell->forward(task, time, rows, all_panels(), pre);
    }
    // Step t of a chunk for some panels. All panels share the memory of one part: each has columns of its own there.
    void step(Span chunk, int64_t t, Span panels, int64_t part) const {
        T* pre = input_by_chunks() ? workspace->pre_of(0) : nullptr;
        if (pre && t == chunk.begin) input(pre, chunk, all_rows(), panels, part);
        if (pre) pre += (task.batch.offset[t] - task.batch.offset[chunk.begin]) * workspace->row_size;
        cell->forward(task, {t, t + 1}, all_rows(), panels, pre);
    }
    // The input products of some rows of the table.
    void table(Span rows, T* pre) const {
        const T* x_rows[kTableRows];
        for (int64_t i = rows.begin; i < rows.end; ++i) x_rows[i - rows.begin] = task.x + i * task.I;
        cell->input(task, rows.end - rows.begin, x_rows, all_panels(), pre + rows.begin * workspace->row_size);
    }

private:
    void input(T* pre, Span time, Span rows, Span panels, int64_t part) const {
        const T** x_rows = workspace->x_rows_of(part);
        int64_t count = 0;
        for (int64_t t = time.begin; t < time.end; ++t) {
            const int64_t* caller_row = task.batch.caller_row + task.batch.offset[t] + rows.begin;
            const int64_t n = plan->alive(t, rows);
            for (int64_t i = 0; i < n; ++i) {
                x_rows[count++] = task.x + (task.tokens ? task.tokens[caller_row[i]] : caller_row[i]) * task.I;
            }
        }
        cell->input(task, count, x_rows, panels, pre);
    }
};

int64_t most_slice_rows(const std::vector<int64_t>& slices) {
    int64_t most = 0;
    for (size_t s = 1; s < slices.size(); ++s) most = std::max(most, slices[s] - slices[s - 1]);
    return most;
}

template <class T>
void copy_initial_states(const Forward<T>& task, const Plan& plan, int states, const T* const* first) {
    for (int s = 0; s < states; ++s) {
        for (int64_t n = 0; n < task.batch.N; ++n) {
            const int64_t at = task.batch.order[n] * task.H;
            const T* row = first[s] ? first[s] + at : nullptr;
            copy_row(task.states[s] + n * task.H, row, task.H);
            if (plan.length(n) == 0) copy_row(task.last[s] + at, row, task.H);
        }
    }
}

template <class T>
void run(const Stack<T>& stack, const Layout& layout, const Plan& plan, const Input<T>& input, const Output<T>& output,
         const typename Tape<T>::Group* tape) {
    const CellKernels<T>& cell = stack.cell_kernels();
    const Batch batch = plan.batch();
    const int64_t T_ = batch.T, N = batch.N, R = batch.R, H = stack.H;
    const int64_t D = stack.directions, L = stack.layers(), row_size = cell.gates * H;
    const int64_t caller_rows = layout.N * layout.T;
    plan.clear_padding(output.y, D * H);

    // How the work is cut: by directions, then rows or hidden units; or by layers, each at its own part of the steps.
    double multiply_adds = 0;
    for (const PackedWeights<T>& weights : stack.passes) {
        multiply_adds += static_cast<double>(R) * static_cast<double>(row_size * (weights.I + H));
    }
    const int threads = threads_for(multiply_adds);
    const double u_bytes = static_cast<double>(row_size * H) * sizeof(T);
    const int64_t panels = cell.forward_panels(H);
    const Cut cut = cut_pass(static_cast<int>((threads + D - 1) / D), N, u_bytes, D == 1 ? panels : 1);
    const double in_turn = cut.step_ns * static_cast<double>(L);
    const double side_by_side = cut_pass(1, N, u_bytes, 1).step_ns * static_cast<double>(L) /
                                static_cast<double>(std::min<int64_t>(L, threads)) *
                                (1 + static_cast<double>(L - 1) / kChunksBesideNextLayer);
    const bool layers_side_by_side = D == 1 && L > 1 && T_ >= kChunksBesideNextLayer && side_by_side < in_turn;
    const int64_t slices_in_cache = (N + kMostSliceRows - 1) / kMostSliceRows;
    const std::vector<int64_t> slices = plan.slices(std::max<int64_t>(cut.rows, slices_in_cache));
    const int64_t slice_count = static_cast<int64_t>(slices.size()) - 1;

    int64_t chunk_rows = std::min(R, input_chunk_rows<T>(row_size));
    if (layers_side_by_side) chunk_rows = std::min(chunk_rows, R / kChunksBesideNextLayer);
    const bool by_chunks = layers_side_by_side || cut.units > 1;
    const std::vector<int64_t> chunks = by_chunks ? plan.chunks(chunk_rows) : std::vector<int64_t>{};
    const int64_t parts = layers_side_by_side ? L : std::max(threads, cut.units);
    const bool whole_table = input.whole_table(R);
    const bool few_inputs = stack.passes[0].packed && stack.passes[0].I <= kFewInputs && !input.tokens;
    const int64_t step_rows = by_chunks ? N : most_slice_rows(slices);
    const int64_t part_rows = std::max(chunk_rows, step_rows);  // a chunk has a step at least
    const Workspace<T> workspace(tape ? 0 : D * L * cell.states * 2 * N * H,
                                 L == 1 && (few_inputs || whole_table) ? 0 : parts, part_rows, row_size);

    std::optional<Plan> reversed;
    if (D == 2) reversed.emplace(Layout{layout.N, layout.T, layout.batch_first, true, layout.lengths});
    const Array<T> series((L - 1) * caller_rows * D * H);  // what is between the layers
    const Array<T> table_pre(whole_table ? D * input.V * row_size : 0);
    std::vector<Pass<T>> passes;
    passes.reserve(static_cast<size_t>(D * L));
    for (int64_t index = 0; index < D * L; ++index) {
        const int64_t layer = index / D, direction = index % D;
        const PackedWeights<T>& weights = stack.passes[static_cast<size_t>(index)];
        passes.push_back({&cell, direction ? &*reversed : &plan, &workspace, chunk_rows, {}});
        Forward<T>& task = passes.back().task;
        task.batch = passes.back().plan->batch();
        task.I = weights.I;
        task.H = H;
        task.packed = weights.packed;
        task.x = layer ? series + (layer - 1) * caller_rows * D * H : input.x;
        if (!layer) task.tokens = input.tokens;
        if (!layer && whole_table) task.table_pre = table_pre + direction * input.V * row_size;
        task.w = weights.w, task.u = weights.u, task.b_ih = weights.b_ih, task.b_hh = weights.b_hh;
        task.y = (layer + 1 < L ? series + layer * caller_rows * D * H : output.y) + direction * H;
        task.y_stride = D * H;
        task.keep = tape != nullptr;
        if (tape) task.saved = tape->saved;
        const T* first[kMaxStates] = {};
        for (int s = 0; s < cell.states; ++s) {
            task.states[s] = tape ? tape->states[s] : workspace.states + (index * cell.states + s) * 2 * N * H;
            task.last[s] = output.last[s] + index * N * H;
            if (input.first[s]) first[s] = input.first[s] + index * N * H;
        }
        copy_initial_states(task, plan, cell.states, first);
    }
    if (R == 0) return;

    Lanes lanes(layers_side_by_side ? L : cut.units);
    const int64_t table_blocks = whole_table ? (input.V + kTableRows - 1) / kTableRows : 0;
    run_team(threads, [&](Member& team) {
        team.each(D * table_blocks, [&](int64_t index) {
            const int64_t direction = index % D, block = index / D;
            passes[static_cast<size_t>(direction)].table(
                {input.V * block / table_blocks, input.V * (block + 1) / table_blocks},
                table_pre + direction * input.V * row_size);
        });
        if (layers_side_by_side) {
            const auto ready = [&](int64_t layer, int64_t chunk) {
                return layer == 0 || lanes.done(layer - 1) > chunk;
            };
            team.follow(lanes, static_cast<int64_t>(chunks.size()) - 1, ready, [&](int64_t layer, int64_t chunk) {
                passes[static_cast<size_t>(layer)].chunk({chunks[chunk], chunks[chunk + 1]}, {0, N}, layer);
            });
        } else if (cut.units > 1) {
            const auto ready = [&](int64_t, int64_t item) { return lanes.all_done(item); };
            team.follow(lanes, L * T_, ready, [&](int64_t lane, int64_t item) {
                const int64_t t = item % T_;
                const auto chunk_end = std::upper_bound(chunks.begin(), chunks.end(), t);
                const Span mine{panels * lane / cut.units, panels * (lane + 1) / cut.units};
                passes[static_cast<size_t>(item / T_)].step({chunk_end[-1], *chunk_end}, t, mine, lane);
            });
        } else {
            for (int64_t layer = 0; layer < L; ++layer) {
                team.each(D * slice_count, [&](int64_t part) {
                    const int64_t slice = part % slice_count;
                    const Pass<T>& pass = passes[static_cast<size_t>(layer * D + part / slice_count)];
                    pass.all_steps({slices[slice], slices[slice + 1]}, team.index());
                });
            }
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
                             const Output<T>& output) {
    const Stack<T> stack = packed_for(weights, layout);
    const CellKernels<T>& cell = stack.cell_kernels();
    Tape<T> tape(stack.kernels);
    const int64_t groups = std::max<int64_t>((layout.N + kMostGroupRows - 1) / kMostGroupRows, 1);
    for (int64_t g = 0; g < groups; ++g) {
        tape.groups.push_back({Plan(layout, {layout.N * g / groups, layout.N * (g + 1) / groups}), {}, {}});
        typename Tape<T>::Group& group = tape.groups.back();
        const Batch batch = group.plan.batch();
        for (int s = 0; s < cell.states; ++s) group.states[s] = Array<T>((batch.N + batch.R) * weights.H);
        group.saved = Array<T>(batch.R * cell.saved * weights.H);
        run(stack, layout, group.plan, input, output, &group);
    }
    return tape;
}

int gates_of(Cell cell) {
    const int index = static_cast<int>(cell);
    if (index < 0 || index >= kCells) throw std::invalid_argument("cell: no such cell, " + std::to_string(index));
    return kernels().f32.cells[index].gates;
}
int states_of(Cell cell) {
    return kernels().f32.cells[static_cast<int>(cell)].states;
}

template void forward(const Stack<float>&, const Layout&, const Input<float>&, const Output<float>&);
template void forward(const Stack<double>&, const Layout&, const Input<double>&, const Output<double>&);
template void forward(const Weights<float>&, const Layout&, const Input<float>&, const Output<float>&);
template void forward(const Weights<double>&, const Layout&, const Input<double>&, const Output<double>&);
template Tape<float> forward_for_training(const Weights<float>&, const Layout&, const Input<float>&,
                                          const Output<float>&);
template Tape<double> forward_for_training(const Weights<double>&, const Layout&, const Input<double>&,
                                           const Output<double>&);

}  // namespace rnncore
