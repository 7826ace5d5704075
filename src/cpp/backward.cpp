// The backward half of the engine.
#include <algorithm>
#include <numeric>

#include "dispatch.hpp"
#include "engine.hpp"
#include "recompute.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Columns of a table, and of the gradients of vectors, that are summed at a time.
constexpr int64_t kTableColumns = 64;
constexpr int64_t kVectorColumns = 256;

// One group of rows of the tape, and how its steps and rows are cut.
template <class T>
struct Group {
    const typename Tape<T>::Group* tape;
    Batch batch;
    std::vector<int64_t> chunks, slices, previous_rows;
    std::vector<int64_t> tokens;  // of packed rows, if there are any
    const Kept<T>* kept;
    std::function<void(Member&, int64_t)> run_again;  // what fills it for a segment, if there are checkpoints

    Group(const typename Tape<T>::Group& group, int row_slices, const int64_t* caller_tokens)
        : tape(&group),
          batch(group.plan.batch()),
          chunks(group.plan.chunks(kBackwardChunkRows)),
          slices(group.plan.slices(row_slices)),
          previous_rows(group.plan.previous_rows(group.segments)),
          kept(&group.kept) {
        if (!caller_tokens) return;
        tokens.resize(static_cast<size_t>(batch.R));
        std::transform(batch.caller_row, batch.caller_row + batch.R, tokens.begin(),
                       [=](int64_t row) { return caller_tokens[row]; });
    }
    const int64_t* x_rows() const { return tokens.empty() ? batch.caller_row : tokens.data(); }  // of packed rows
    int64_t chunk_count() const { return static_cast<int64_t>(chunks.size()) - 1; }
    int64_t slice_count() const { return static_cast<int64_t>(slices.size()) - 1; }
    int64_t rows(int64_t chunk) const { return batch.offset[chunks[chunk + 1]] - batch.offset[chunks[chunk]]; }
};

}  // namespace

template <class T>
void backward(const Weights<T>& weights, const Input<T>& input, const Tape<T>& tape, const Output<const T>& cotangents,
              const Gradients<T>& gradients) {
    const Kernels<T>& kernels = precision<T>(*tape.kernels);
    const CellKernels<T>& cell = kernels.cells[static_cast<int>(weights.spec.cell)];
    const int64_t H = weights.H, I = weights.I, GH = cell.gates * H;
    const Needs needs = cell.needs(weights.spec.options, H, weights.P);
    const auto each_state = [&](auto f) {
        for (int s = 0; s < cell.states; ++s) f(s, needs.state[s]);
    };

    int64_t R = 0, N = 0;  // packed rows of all groups, rows of the largest
    for (const typename Tape<T>::Group& group : tape.groups) {
        R += group.plan.batch().R;
        N = std::max(N, group.plan.batch().N);
        if (!input.tokens) group.plan.clear_padding(gradients.x, I);
    }
    const int threads = threads_for(3.0 * static_cast<double>(R) * static_cast<double>(GH * I + product_size(needs)));
    const int64_t hidden_panels = cell.backward_panels(H);
    const Cut cut = cut_pass(threads, N, static_cast<double>(product_size(needs)) * sizeof(T), hidden_panels);
    std::vector<Group<T>> groups;
    groups.reserve(tape.groups.size());
    int64_t chunk_rows = 0;
    for (const typename Tape<T>::Group& from : tape.groups) {
        const Group<T>& group = groups.emplace_back(from, cut.rows, input.tokens);
        for (int64_t c = 0; c < group.chunk_count(); ++c) chunk_rows = std::max(chunk_rows, group.rows(c));
    }
    Kept<T> segment_kept;
    if (tape.stack) {
        int64_t segment_rows = 0;
        for (const Group<T>& group : groups) {
            const std::vector<int64_t>& segments = group.tape->segments;
            for (size_t s = 1; s < segments.size(); ++s) {
                segment_rows =
                    std::max(segment_rows, group.batch.offset[segments[s]] - group.batch.offset[segments[s - 1]]);
            }
        }
        segment_kept = Kept<T>(needs, N, segment_rows, input.recurrent_mask != nullptr);
        for (Group<T>& group : groups) {
            group.kept = &segment_kept;
            group.run_again = recomputation(*tape.stack, input, *group.tape, segment_kept, threads);
        }
    }
    Lanes lanes(cut.units);

    // For few rows, neither the weights nor the operands of the products over rows are packed.
    const bool few_rows = R > 0 && R <= kernels.few_rows;
    const auto must_pack = [&](int64_t columns) { return !few_rows || columns % kernels.lanes != 0; };
    const bool pack_w = must_pack(I);

    // Gradients of gates are summed by tokens first, and their products with W and the table made then; or dx is made
    // row by row, in packed order, and then summed.
    const bool whole_table = !few_rows && input.whole_table(R);
    const bool sum_dx = input.tokens && !whole_table;
    const bool operands = input.recurrent_mask || needs.products > 1;
    std::vector<int64_t> in_order(static_cast<size_t>(input.tokens || operands ? chunk_rows : 0));
    std::iota(in_order.begin(), in_order.end(), int64_t{0});
    const std::vector<int64_t> one_row(static_cast<size_t>(needs.vectors > 0 ? N : 0));

    // The sums over rows: dW_ih += dx' [x | 1] and, of every product, dU += du' [h_{t-1} or operand | 1], transposed.
    struct Sum {
        int64_t M, columns;
        T *gradient, *sums;  // (columns, M - 1), (columns) or null
        const T* b;
        int64_t b_stride;
        int64_t panels, tiles;
        T *packed, *c;
    };
    const int sums = 1 + needs.products;
    Sum sum[1 + kMaxProducts];  // (not all of them are; nor of what follows, of products)
    sum[0] = {I + 1, GH, gradients.w_ih, gradients.b_ih, nullptr, GH, 0, 0, nullptr, nullptr};
    T *dx_gates, *du_own[kMaxProducts], *du_next = nullptr, *carry[kMaxStates] = {}, *u[kMaxProducts], *w, *packed_b,
                                        *dx, *table_gates, *vector_sums, *cells, *no_sums;
    int64_t du_stride[kMaxProducts], sum_size = 0;
    constexpr int kMostArrays = 11 + kMaxStates + 4 * kMaxProducts;
    Arrays<T, kMostArrays> workspace;
    workspace.add(dx_gates, chunk_rows * GH);
    for (int p = 0; p < needs.products; ++p) {
        const Product& product = needs.product[p];
        du_own[p] = u[p] = nullptr;
        du_stride[p] = product.own > 0 ? product.own : p > 0 ? du_stride[p - 1] : GH;
        if (product.own > 0) workspace.add(du_own[p], chunk_rows * product.own);
        if (must_pack(product.K)) workspace.add(u[p], product.columns * round_up(product.K, kernels.lanes));
        sum[1 + p] = {product.K + 1,
                      product.columns,
                      gradients.of(product),
                      gradients.bias_of(product),
                      nullptr,
                      du_stride[p],
                      0,
                      0,
                      nullptr,
                      nullptr};
        sum_size = std::max(sum_size, product.columns);
    }
    each_state([&](int s, int64_t size) {
        if (needs.carry[s]) workspace.add(carry[s], N * size);
    });
    if (needs.products > 0) workspace.add(du_next, N * du_stride[0]);
    workspace.add(w, pack_w ? GH * round_up(I, kernels.lanes) : 0);
    workspace.add(packed_b, few_rows ? 0 : threads * chunk_rows * kernels.panel);
    workspace.add(dx, input.tokens ? chunk_rows * I : 0);
    workspace.add(table_gates, whole_table ? input.V * GH : 0);
    workspace.add(vector_sums, N * needs.vectors);
    workspace.add(no_sums, sum_size);  // of products without a bias
    int64_t slice_rows = 0;
    for (const Group<T>& group : groups) {
        for (size_t s = 1; s < group.slices.size(); ++s) {
            slice_rows = std::max(slice_rows, group.slices[s] - group.slices[s - 1]);
        }
    }
    const int64_t cell_size = slice_rows * needs.backward_row + needs.backward_once;
    workspace.add(cells, threads * cell_size);
    int64_t panels = 0, u_tiles = 0;  // of all sums; of those of products
    for (int p = 0; p < sums; ++p) {
        sum[p].panels = few_rows ? 1 : ceil_div(sum[p].columns, kernels.panel);
        sum[p].tiles = few_rows ? 0 : kernels.outer_tiles(sum[p].M);
        panels += sum[p].panels;
        if (p > 0) u_tiles += sum[p].tiles;
        workspace.add(sum[p].packed, few_rows ? 0 : sum[p].M * chunk_rows);
        workspace.add(sum[p].c, few_rows ? 0 : sum[p].M * round_up(sum[p].columns, kernels.lanes));
    }
    workspace.allocate();
    T* du[kMaxProducts];
    sum[0].b = dx_gates;
    T* du_memory = dx_gates;
    for (int p = 0; p < needs.products; ++p) {
        if (du_own[p]) du_memory = du_own[p];
        sum[1 + p].b = du[p] = du_memory + needs.product[p].at;
        if (!sum[1 + p].sums) sum[1 + p].sums = no_sums;
    }
    const auto outer = [&](const Sum& of, int64_t rows) {
        return OuterProduct<T>{rows, of.M, of.columns, of.b_stride, of.packed, of.b, of.c};
    };
    // Which sum has the panel or the tile of this number, counted from that of `first` on; the rest is its own.
    const auto find = [&](int first, int64_t& index, int64_t Sum::*count) {
        int p = first;
        for (; index >= sum[p].*count; ++p) index -= sum[p].*count;
        return p;
    };

    const auto task_of = [&](const Group<T>& group) {
        Backward<T> task{};
        task.batch = group.batch;
        task.options = &weights.spec.options;
        task.H = H, task.P = weights.P;
        for (int s = 0; s < cell.states; ++s) {
            task.states[s] = group.kept->states[s];
            task.dlast[s] = cotangents.last[s];
            task.dfirst[s] = gradients.first[s];
            task.carry[s] = carry[s];
        }
        task.saved = group.kept->saved;
        task.vectors = weights.vectors;
        std::copy_n(input.take, 2, task.take);
        task.recurrent_mask = input.recurrent_mask;
        for (int p = 0; p < needs.products; ++p) {
            const Product& product = needs.product[p];
            task.operands[p] = group.kept->operand(p);
            task.u[p] = u[p] ? u[p] : weights.of(product);
            task.u_stride[p] = u[p] ? 0 : product.K;
            task.du[p] = du[p];
            task.du_stride[p] = du_stride[p];
        }
        task.dy = cotangents.y;
        task.du_next = du_next;
        task.dx_gates = dx_gates;
        task.sums = vector_sums;
        return task;
    };
    const auto start = [&](const Backward<T>& task) {
        std::fill_n(vector_sums, task.batch.N * needs.vectors, T{0});
        if (carry[0]) std::fill_n(carry[0], task.batch.N * needs.state[0], T{0});
        each_state([&](int s, int64_t size) {
            for (int64_t n = 0; s > 0 && n < task.batch.N; ++n) {
                copy_row(carry[s] + n * size, task.dlast[s] ? task.dlast[s] + task.batch.order[n] * size : nullptr,
                         size);
            }
        });
    };

    run_team(threads, [&](Member& team) {
        team.each(2 + needs.products + sums, [&](int64_t index) {
            if (index == 0) {
                if (pack_w) kernels.pack_columns(weights.w_ih, GH, I, w);
            } else if (index == 1) {
                if (whole_table) std::fill_n(table_gates, input.V * GH, T{0});
                if (needs.vectors > 0) std::fill_n(gradients.vectors, needs.vectors, T{0});
            } else if (index < 2 + needs.products) {
                const Product& product = needs.product[index - 2];
                if (T* to = u[index - 2]) kernels.pack_columns(weights.of(product), product.columns, product.K, to);
            } else if (!few_rows) {
                const Sum& of = sum[index - 2 - needs.products];
                std::fill_n(of.c, of.M * round_up(of.columns, kernels.lanes), T{0});
            }
        });
        int64_t followed = 0;  // items of the lanes, in all groups so far
        for (const Group<T>& group : groups) {
            const Batch& batch = group.batch;
            const Backward<T> task = task_of(group);
            team.each(1, [&](int64_t) { start(task); });
            const int64_t loops = cut.units > 1 ? 0 : group.slice_count();
            const auto slice = [&](int64_t index) { return Span{group.slices[index], group.slices[index + 1]}; };
            const std::vector<int64_t>& segments = group.tape->segments;
            int64_t segment = static_cast<int64_t>(segments.size()) - 1;
            for (int64_t c = group.chunk_count() - 1; c >= 0; --c) {
                const int64_t begin = group.chunks[c], end = group.chunks[c + 1];
                const int64_t first = batch.offset[begin], rows = group.rows(c);
                if (end == segments[segment]) {  // on to this segment
                    --segment;
                    if (group.run_again) group.run_again(team, segment);
                }
                Backward<T> chunk = task;
                chunk.kept_from = segments[segment];
                chunk.chunk = {begin, end};
                // what the sums are taken of: x, the states before the steps, or operands that were kept
                const int64_t kept = batch.offset[begin] - batch.offset[chunk.kept_from];
                const auto operands_of = [&](int p) -> const T* {
                    return group.kept->operand(needs.product[p - 1].operand);
                };
                const auto a = [&](int p) -> const T* {
                    if (p == 0) return input.x;
                    const T* operands = operands_of(p);
                    return operands ? operands + kept * (sum[p].M - 1) : group.kept->states[0];
                };
                const auto rows_of_a = [&](int p) {
                    if (p == 0) return group.x_rows() + first;
                    return operands_of(p) ? in_order.data() : group.previous_rows.data() + first;
                };
                // the time loop, and beside it the packing of what is known already
                if (cut.units > 1) {
                    const auto ready = [&](int64_t, int64_t item) { return lanes.all_done(item); };
                    team.follow(lanes, followed + batch.T - begin, ready, [&](int64_t lane, int64_t item) {
                        const int64_t t = batch.T - 1 - (item - followed);
                        const Span mine{hidden_panels * lane / cut.units, hidden_panels * (lane + 1) / cut.units};
                        cell.backward(chunk, {t, t + 1}, {0, batch.N}, mine, cells + team.index() * cell_size);
                    });
                }
                const int64_t x_tiles = whole_table ? 0 : sum[0].tiles;
                team.each(loops + x_tiles + u_tiles, [&](int64_t index) {
                    if (index < loops) {
                        return cell.backward(chunk, {begin, end}, slice(index), {0, hidden_panels},
                                             cells + team.index() * cell_size);
                    }
                    index -= loops;
                    int p = 0;
                    if (index >= x_tiles) {
                        index -= x_tiles;
                        p = find(1, index, &Sum::tiles);
                    }
                    kernels.pack_outer_rows(outer(sum[p], rows), index, a(p), rows_of_a(p));
                });
                // dW and db, by panels of gates; dx, by blocks of rows; and what the chunk before needs of this one
                const int64_t blocks = whole_table ? 0 : std::clamp<int64_t>(rows / 48, 1, 4 * threads);
                team.each(panels + blocks + 1, [&](int64_t index) {
                    if (index == panels + blocks) {
                        if (needs.products > 0) std::copy_n(du[0], batch.count[begin] * du_stride[0], du_next);
                    } else if (index < panels) {
                        const int p = find(0, index, &Sum::panels);
                        if (p == 0 && whole_table) {
                            const Span columns{index * kernels.panel, std::min(GH, (index + 1) * kernels.panel)};
                            kernels.add_rows(rows, GH, columns, dx_gates, group.x_rows() + first, table_gates);
                        } else if (few_rows) {
                            kernels.outer_few_rows(outer(sum[p], rows), a(p), rows_of_a(p), sum[p].gradient,
                                                   sum[p].sums);
                        } else {
                            kernels.outer_panel(outer(sum[p], rows), index,
                                                packed_b + team.index() * chunk_rows * kernels.panel);
                        }
                    } else {
                        const int64_t block = index - panels;
                        const int64_t from = rows * block / blocks, to = rows * (block + 1) / blocks;
                        kernels.multiply_rows(
                            to - from, GH, I, dx_gates + from * GH, pack_w ? w : weights.w_ih, pack_w ? 0 : I,
                            (sum_dx ? in_order.data() : batch.caller_row + first) + from, sum_dx ? dx : gradients.x);
                    }
                });
                team.each(sum_dx ? ceil_div(I, kTableColumns) : 0, [&](int64_t index) {
                    const Span columns{index * kTableColumns, std::min(I, (index + 1) * kTableColumns)};
                    kernels.add_rows(rows, I, columns, dx, group.x_rows() + first, gradients.x);
                });
            }
            followed += batch.T;
            team.each(group.slice_count(), [&](int64_t index) { cell.backward_first(task, slice(index)); });
            // the rows of the group, one after the other
            team.each(ceil_div(needs.vectors, kVectorColumns), [&](int64_t index) {
                const Span columns{index * kVectorColumns, std::min(needs.vectors, (index + 1) * kVectorColumns)};
                kernels.add_rows(batch.N, needs.vectors, columns, vector_sums, one_row.data(), gradients.vectors);
            });
        }
        // dW_ih += dx' [table | 1] and dtable += dx W of all rows of the table, with the sums of dx by token
        for (int64_t begin = 0, end; whole_table && begin < input.V; begin = end) {
            end = std::min(input.V, begin + chunk_rows);
            const int64_t rows = end - begin, blocks = std::clamp<int64_t>(rows / 48, 1, 4 * threads);
            Sum of = sum[0];
            of.b = table_gates + begin * GH;
            team.each(of.tiles, [&](int64_t tile) {
                kernels.pack_outer_rows(outer(of, rows), tile, input.x + begin * I, in_order.data());
            });
            team.each(of.panels + blocks, [&](int64_t index) {
                if (index < of.panels) {
                    return kernels.outer_panel(outer(of, rows), index,
                                               packed_b + team.index() * chunk_rows * kernels.panel);
                }
                const int64_t block = index - of.panels;
                const int64_t from = rows * block / blocks, count = rows * (block + 1) / blocks - from;
                kernels.multiply_rows(count, GH, I, of.b + from * GH, w, 0, in_order.data(), dx + from * I);
                kernels.add_rows(count, I, {0, I}, dx + from * I, in_order.data(), gradients.x + (begin + from) * I);
            });
        }
        team.each(few_rows ? 0 : panels, [&](int64_t index) {
            const Sum& of = sum[find(0, index, &Sum::panels)];
            kernels.unpack_outer(outer(of, 0), index, of.gradient, of.sums);
        });
    });
}

template void backward(const Weights<float>&, const Input<float>&, const Tape<float>&, const Output<const float>&,
                       const Gradients<float>&);
template void backward(const Weights<double>&, const Input<double>&, const Tape<double>&, const Output<const double>&,
                       const Gradients<double>&);

}  // namespace rnncore
