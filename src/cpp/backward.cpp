// The backward half of the engine.
#include <algorithm>
#include <numeric>

#include "dispatch.hpp"
#include "engine.hpp"
#include "recompute.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Columns of a table that are summed at a time.
constexpr int64_t kTableColumns = 64;

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
    const CellKernels<T>& cell = kernels.cells[static_cast<int>(weights.cell)];
    const int64_t H = weights.H, I = weights.I, GH = cell.gates * H;

    int64_t R = 0, N = 0;  // packed rows of all groups, rows of the largest
    for (const typename Tape<T>::Group& group : tape.groups) {
        R += group.plan.batch().R;
        N = std::max(N, group.plan.batch().N);
        if (!input.tokens) group.plan.clear_padding(gradients.x, I);
    }
    const int threads = threads_for(3.0 * static_cast<double>(R) * static_cast<double>(GH * (I + H)));
    const int64_t hidden_panels = cell.backward_panels(H);
    const Cut cut = cut_pass(threads, N, static_cast<double>(GH * H) * sizeof(T), hidden_panels);
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
        segment_kept = Kept<T>(cell, N, segment_rows, H);
        for (Group<T>& group : groups) {
            group.kept = &segment_kept;
            group.run_again = recomputation(*tape.stack, input, *group.tape, segment_kept, threads);
        }
    }
    Lanes lanes(cut.units);

    // For few rows, neither the weights nor the operands of the products over rows are packed.
    const bool few_rows = R > 0 && R <= kernels.few_rows;
    const bool pack_u = !few_rows || H % kernels.lanes != 0, pack_w = !few_rows || I % kernels.lanes != 0;

    // Gradients of gates are summed by tokens first, and their products with W and the table made then; or dx is made
    // row by row, in packed order, and then summed.
    const bool whole_table = !few_rows && input.whole_table(R);
    const bool sum_dx = input.tokens && !whole_table;
    std::vector<int64_t> in_order(static_cast<size_t>(input.tokens ? chunk_rows : 0));
    std::iota(in_order.begin(), in_order.end(), int64_t{0});

    // The products over rows: dW_ih += dx' [x | 1] and dW_hh += du' [h_{t-1} | 1], transposed.
    const int64_t panels = few_rows ? 1 : (GH + kernels.panel - 1) / kernels.panel;
    const int64_t sum_columns = round_up(GH, kernels.lanes);
    struct Product {
        int64_t M;
        T* gradient;
        T* sums;
        const T* b;
        int64_t tiles;
        T *packed, *c;
    };
    Product products[2] = {{I + 1, gradients.w_ih, gradients.b_ih, nullptr, 0, nullptr, nullptr},
                           {H + 1, gradients.w_hh, gradients.b_hh, nullptr, 0, nullptr, nullptr}};
    T *dx_gates, *du_gates, *du_next, *dh_carry, *dc, *u, *w, *packed_b, *dx, *table_gates;
    Arrays<T> workspace;
    workspace.add(dx_gates, chunk_rows * GH);
    if (cell.split_gradient) workspace.add(du_gates, chunk_rows * GH);
    workspace.add(du_next, N * GH);
    workspace.add(dh_carry, cell.hidden_carry ? N * H : 0);
    workspace.add(dc, cell.states > 1 ? N * H : 0);
    workspace.add(u, pack_u ? GH * round_up(H, kernels.lanes) : 0);
    workspace.add(w, pack_w ? GH * round_up(I, kernels.lanes) : 0);
    workspace.add(packed_b, few_rows ? 0 : threads * chunk_rows * kernels.panel);
    workspace.add(dx, input.tokens ? chunk_rows * I : 0);
    workspace.add(table_gates, whole_table ? input.V * GH : 0);
    for (Product& product : products) {
        product.tiles = few_rows ? 0 : kernels.outer_tiles(product.M);
        workspace.add(product.packed, few_rows ? 0 : product.M * chunk_rows);
        workspace.add(product.c, few_rows ? 0 : product.M * sum_columns);
    }
    workspace.allocate();
    if (!cell.split_gradient) du_gates = dx_gates;
    products[0].b = dx_gates;
    products[1].b = du_gates;
    const auto outer = [&](const Product& product, int64_t rows) {
        return OuterProduct<T>{rows, product.M, GH, product.packed, product.b, product.c};
    };

    const auto task_of = [&](const Group<T>& group) {
        Backward<T> task{};
        task.batch = group.batch;
        task.H = H;
        for (int s = 0; s < cell.states; ++s) {
            task.states[s] = group.kept->states[s];
            task.dlast[s] = cotangents.last[s];
            task.dfirst[s] = gradients.first[s];
        }
        task.saved = group.kept->saved;
        task.u = pack_u ? u : weights.w_hh;
        task.u_stride = pack_u ? 0 : H;
        task.dy = cotangents.y;
        task.dh_carry = dh_carry;
        task.dc = dc;
        task.du_next = du_next;
        task.dx_gates = dx_gates;
        task.du_gates = du_gates;
        return task;
    };
    const auto start = [&](const Backward<T>& task) {
        if (cell.hidden_carry) std::fill_n(dh_carry, task.batch.N * H, T{0});
        for (int64_t n = 0; cell.states > 1 && n < task.batch.N; ++n) {
            copy_row(dc + n * H, task.dlast[1] ? task.dlast[1] + task.batch.order[n] * H : nullptr, H);
        }
    };

    run_team(threads, [&](Member& team) {
        team.each(5, [&](int64_t index) {
            if (index == 0) {
                if (pack_u) kernels.pack_columns(weights.w_hh, GH, H, u);
            } else if (index == 1) {
                if (pack_w) kernels.pack_columns(weights.w_ih, GH, I, w);
            } else if (index == 2) {
                if (whole_table) std::fill_n(table_gates, input.V * GH, T{0});
            } else if (!few_rows) {
                std::fill_n(products[index - 3].c, products[index - 3].M * sum_columns, T{0});
            }
        });
        int64_t followed = 0;  // items of the lanes, in all groups so far
        for (const Group<T>& group : groups) {
            const Batch& batch = group.batch;
            const Backward<T> task = task_of(group);
            team.each(1, [&](int64_t) { start(task); });
            const int64_t loops = cut.units > 1 ? 0 : group.slice_count();
            const auto slice = [&](int64_t index) { return Span{group.slices[index], group.slices[index + 1]}; };
            const auto rows_of_a = [&](int64_t product, int64_t first) {
                return first + (product ? group.previous_rows.data() : group.x_rows());
            };
            const T* const a[2] = {input.x, group.kept->states[0]};
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
                // the time loop, and beside it the packing of what is known already
                if (cut.units > 1) {
                    const auto ready = [&](int64_t, int64_t item) { return lanes.all_done(item); };
                    team.follow(lanes, followed + batch.T - begin, ready, [&](int64_t lane, int64_t item) {
                        const int64_t t = batch.T - 1 - (item - followed);
                        const Span mine{hidden_panels * lane / cut.units, hidden_panels * (lane + 1) / cut.units};
                        cell.backward(chunk, {t, t + 1}, {0, batch.N}, mine);
                    });
                }
                const int64_t x_tiles = whole_table ? 0 : products[0].tiles;
                team.each(loops + x_tiles + products[1].tiles, [&](int64_t index) {
                    if (index < loops) return cell.backward(chunk, {begin, end}, slice(index), {0, hidden_panels});
                    index -= loops;
                    const int64_t p = index >= x_tiles;
                    if (p) index -= x_tiles;
                    kernels.pack_outer_rows(outer(products[p], rows), index, a[p], rows_of_a(p, first));
                });
                // dW and db, by panels of gates; dx, by blocks of rows; and what the chunk before needs of this one
                const int64_t blocks = whole_table ? 0 : std::clamp<int64_t>(rows / 48, 1, 4 * threads);
                team.each(2 * panels + blocks + 1, [&](int64_t index) {
                    if (index == 2 * panels + blocks) {
                        std::copy_n(du_gates, batch.count[begin] * GH, du_next);
                    } else if (index < panels && whole_table) {
                        const Span columns{index * kernels.panel, std::min(GH, (index + 1) * kernels.panel)};
                        kernels.add_rows(rows, GH, columns, dx_gates, group.x_rows() + first, table_gates);
                    } else if (index < 2 * panels && few_rows) {
                        const Product& product = products[index];
                        kernels.outer_few_rows(outer(product, rows), a[index], rows_of_a(index, first),
                                               product.gradient, product.sums);
                    } else if (index < 2 * panels) {
                        kernels.outer_panel(outer(products[index / panels], rows), index % panels,
                                            packed_b + team.index() * chunk_rows * kernels.panel);
                    } else {
                        const int64_t block = index - 2 * panels;
                        const int64_t from = rows * block / blocks, to = rows * (block + 1) / blocks;
                        kernels.multiply_rows(
                            to - from, GH, I, dx_gates + from * GH, pack_w ? w : weights.w_ih, pack_w ? 0 : I,
                            (sum_dx ? in_order.data() : batch.caller_row + first) + from, sum_dx ? dx : gradients.x);
                    }
                });
                team.each(sum_dx ? (I + kTableColumns - 1) / kTableColumns : 0, [&](int64_t index) {
                    const Span columns{index * kTableColumns, std::min(I, (index + 1) * kTableColumns)};
                    kernels.add_rows(rows, I, columns, dx, group.x_rows() + first, gradients.x);
                });
            }
            followed += batch.T;
            team.each(group.slice_count(), [&](int64_t index) { cell.backward_first(task, slice(index)); });
        }
        // dW_ih += dx' [table | 1] and dtable += dx W of all rows of the table, with the sums of dx by token
        for (int64_t begin = 0, end; whole_table && begin < input.V; begin = end) {
            end = std::min(input.V, begin + chunk_rows);
            const int64_t rows = end - begin, blocks = std::clamp<int64_t>(rows / 48, 1, 4 * threads);
            Product product = products[0];
            product.b = table_gates + begin * GH;
            team.each(product.tiles, [&](int64_t tile) {
                kernels.pack_outer_rows(outer(product, rows), tile, input.x + begin * I, in_order.data());
            });
            team.each(panels + blocks, [&](int64_t index) {
                if (index < panels) {
                    return kernels.outer_panel(outer(product, rows), index,
                                               packed_b + team.index() * chunk_rows * kernels.panel);
                }
                const int64_t block = index - panels;
                const int64_t from = rows * block / blocks, count = rows * (block + 1) / blocks - from;
                kernels.multiply_rows(count, GH, I, product.b + from * GH, w, 0, in_order.data(), dx + from * I);
                kernels.add_rows(count, I, {0, I}, dx + from * I, in_order.data(), gradients.x + (begin + from) * I);
            });
        }
        team.each(few_rows ? 0 : 2 * panels, [&](int64_t index) {
            const Product& product = products[index / panels];
            kernels.unpack_outer(outer(product, 0), index % panels, product.gradient, product.sums);
        });
    });
}

template void backward(const Weights<float>&, const Input<float>&, const Tape<float>&, const Output<const float>&,
                       const Gradients<float>&);
template void backward(const Weights<double>&, const Input<double>&, const Tape<double>&, const Output<const double>&,
                       const Gradients<double>&);

}  // namespace rnncore
