// The backward half of the engine.
#include <algorithm>
#include <cstring>

#include "dispatch.hpp"
#include "engine.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Packed rows of a chunk of the backward pass: long enough for the products over rows to amortise their sums, short
// enough for the gate gradients to stay in cache between the time loop and those products. A function of nothing but
// this constant and the batch, since it fixes the order of summation.
constexpr int64_t kBackwardChunkRows = 512;

}  // namespace

template <class T>
void backward(const Weights<T>& weights, const Layout& layout, const Input<T>& input, const Tape<T>& tape,
              const Output<const T>& cotangents, const Gradients<T>& gradients) {
    const Kernels<T>& kernels = precision<T>(*tape.kernels);
    const CellKernels<T>& cell = kernels.cells[static_cast<int>(weights.cell)];
    const Batch batch = tape.plan.batch();
    const int64_t H = weights.H, I = weights.I, N = batch.N, GH = cell.gates * H;

    const std::vector<int64_t> chunks = tape.plan.chunks(kBackwardChunkRows);
    const int64_t chunk_count = static_cast<int64_t>(chunks.size()) - 1;
    int64_t chunk_rows = 0;
    for (int64_t c = 0; c < chunk_count; ++c) {
        chunk_rows = std::max(chunk_rows, batch.offset[chunks[c + 1]] - batch.offset[chunks[c]]);
    }
    const int threads = threads_for(3.0 * static_cast<double>(batch.R) * static_cast<double>(GH * (I + H)));
    const int64_t hidden_panels = cell.backward_panels(H);
    const Cut cut = cut_pass(threads, N, static_cast<double>(GH * H) * sizeof(T), hidden_panels);
    const std::vector<int64_t> slices = tape.plan.slices(cut.rows);
    const int64_t slice_count = static_cast<int64_t>(slices.size()) - 1;
    Lanes lanes(cut.units);

    // For few rows, neither the weights nor the operands of the products over rows are packed.
    const bool few_rows = batch.R > 0 && batch.R <= kernels.few_rows;
    const bool pack_u = !few_rows || H % kernels.lanes != 0, pack_w = !few_rows || I % kernels.lanes != 0;

    // The products over rows: dW_ih += dx' [x | 1] and dW_hh += du' [h_{t-1} | 1], transposed.
    const int64_t panels = few_rows ? 1 : (GH + kernels.panel - 1) / kernels.panel;
    const int64_t sum_columns = round_up(GH, kernels.lanes);
    struct Product {
        int64_t M;
        const T* a;
        const int64_t* a_row;  // (R)
        const T* b;
        T* gradient;
        T* sums;
        int64_t tiles;
        T *packed, *c;
    };
    const std::vector<int64_t> previous_rows = tape.plan.previous_rows();
    T *dx_gates, *du_gates, *du_next, *dh_carry, *dc, *u, *w, *packed_b;
    Arrays<T> workspace;
    workspace.add(dx_gates, chunk_rows * GH);
    if (cell.split_gradient) workspace.add(du_gates, chunk_rows * GH);
    workspace.add(du_next, N * GH);
    workspace.add(dh_carry, cell.hidden_carry ? N * H : 0);
    workspace.add(dc, cell.states > 1 ? N * H : 0);
    workspace.add(u, pack_u ? GH * round_up(H, kernels.lanes) : 0);
    workspace.add(w, pack_w ? GH * round_up(I, kernels.lanes) : 0);
    workspace.add(packed_b, few_rows ? 0 : threads * chunk_rows * kernels.panel);
    Product products[2] = {
        {I + 1, input.x, batch.caller_row, nullptr, gradients.w_ih, gradients.b_ih, 0, nullptr, nullptr},
        {H + 1, tape.states[0], previous_rows.data(), nullptr, gradients.w_hh, gradients.b_hh, 0, nullptr, nullptr},
    };
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

    Backward<T> task{};
    task.batch = batch;
    task.H = H;
    for (int s = 0; s < cell.states; ++s) {
        task.states[s] = tape.states[s];
        task.dlast[s] = cotangents.last[s];
        task.dfirst[s] = gradients.first[s];
    }
    task.saved = tape.saved;
    task.u = pack_u ? u : weights.w_hh;
    task.u_stride = pack_u ? 0 : H;
    task.dy = cotangents.y;
    task.dh_carry = dh_carry;
    task.dc = dc;
    task.du_next = du_next;
    task.dx_gates = dx_gates;
    task.du_gates = du_gates;
    if (cell.hidden_carry) std::fill_n(task.dh_carry, N * H, T{0});
    if (cell.states > 1) {
        for (int64_t n = 0; n < N; ++n) {
            if (task.dlast[1]) {
                std::copy_n(task.dlast[1] + batch.order[n] * H, H, task.dc + n * H);
            } else {
                std::fill_n(task.dc + n * H, H, T{0});
            }
        }
    }
    if (tape.plan.padded()) std::fill_n(gradients.x, layout.N * layout.T * I, T{0});

    run_team(threads, [&](Member& team) {
        team.each(4, [&](int64_t index) {
            if (index == 0) {
                if (pack_u) kernels.pack_columns(weights.w_hh, GH, H, u);
            } else if (index == 1) {
                if (pack_w) kernels.pack_columns(weights.w_ih, GH, I, w);
            } else if (!few_rows) {
                std::fill_n(products[index - 2].c, products[index - 2].M * sum_columns, T{0});
            }
        });
        for (int64_t c = chunk_count - 1; c >= 0; --c) {
            const int64_t begin = chunks[c], end = chunks[c + 1];
            const int64_t first = batch.offset[begin], rows = batch.offset[end] - first;
            Backward<T> chunk = task;
            chunk.chunk = {begin, end};
            // the time loop, and beside it the packing of what is known already
            if (cut.units > 1) {
                const auto ready = [&](int64_t, int64_t item) { return lanes.all_done(item); };
                team.follow(lanes, batch.T - begin, ready, [&](int64_t lane, int64_t item) {
                    const int64_t t = batch.T - 1 - item;
                    const Span mine{hidden_panels * lane / cut.units, hidden_panels * (lane + 1) / cut.units};
                    cell.backward(chunk, {t, t + 1}, {0, N}, mine);
                });
            }
            const int64_t loops = cut.units > 1 ? 0 : slice_count;
            team.each(loops + products[0].tiles + products[1].tiles, [&](int64_t index) {
                if (index < loops) {
                    return cell.backward(chunk, {begin, end}, {slices[index], slices[index + 1]}, {0, hidden_panels});
                }
                index -= loops;
                const Product& product = products[index >= products[0].tiles];
                if (&product != products) index -= products[0].tiles;
                kernels.pack_outer_rows(outer(product, rows), index, product.a, product.a_row + first);
            });
            // dW and db, by panels of gates; dx, by blocks of rows; and what the chunk before needs of this one
            const int64_t blocks = std::clamp<int64_t>(rows / 48, 1, 4 * threads);
            team.each(2 * panels + blocks + 1, [&](int64_t index) {
                if (index == 2 * panels + blocks) {
                    std::copy_n(du_gates, batch.count[begin] * GH, du_next);
                } else if (index < 2 * panels && few_rows) {
                    const Product& product = products[index];
                    kernels.outer_few_rows(outer(product, rows), product.a, product.a_row, product.gradient,
                                           product.sums);
                } else if (index < 2 * panels) {
                    kernels.outer_panel(outer(products[index / panels], rows), index % panels,
                                        packed_b + team.index() * chunk_rows * kernels.panel);
                } else {
                    const int64_t block = index - 2 * panels;
                    const int64_t from = rows * block / blocks, to = rows * (block + 1) / blocks;
                    kernels.multiply_rows(to - from, GH, I, dx_gates + from * GH, pack_w ? w : weights.w_ih,
                                          pack_w ? 0 : I, batch.caller_row + first + from, gradients.x);
                }
            });
        }
        const int64_t unpacked = few_rows ? 0 : 2 * panels;
        team.each(slice_count + unpacked, [&](int64_t index) {
            if (index < slice_count) return cell.backward_first(task, {slices[index], slices[index + 1]});
            index -= slice_count;
            const Product& product = products[index / panels];
            kernels.unpack_outer(outer(product, 0), index % panels, product.gradient, product.sums);
        });
    });
}

template void backward(const Weights<float>&, const Layout&, const Input<float>&, const Tape<float>&,
                       const Output<const float>&, const Gradients<float>&);
template void backward(const Weights<double>&, const Layout&, const Input<double>&, const Tape<double>&,
                       const Output<const double>&, const Gradients<double>&);

}  // namespace rnncore
