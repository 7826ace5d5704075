#include "engine.hpp"

#include <algorithm>
#include <cstring>

#include "dispatch.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

template <class T>
const Kernels<T>& precision(const KernelTable& table) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return table.f32;
    } else {
        return table.f64;
    }
}

int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

// Waking a thread costs tens of microseconds, so a thread must have that much to do: about 2 million multiply-adds.
int threads_for(double multiply_adds) {
    constexpr double kWorthOneThread = 2e6;
    return static_cast<int>(std::clamp(multiply_adds / kWorthOneThread, 1.0, static_cast<double>(num_threads())));
}

// Rows of a chunk of the input product, so that its result stays in L2 until the time loop has used it.
template <class T>
int64_t input_chunk_rows(int64_t row_size) {
    constexpr int64_t kBytes = 256 << 10;
    return std::clamp<int64_t>(kBytes / (row_size * static_cast<int64_t>(sizeof(T))), 16, 1024);
}

// Packed rows of a chunk of the backward pass: long enough for the products over rows to amortise their sums, short
// enough for the gate gradients to stay in cache between the time loop and those products. A function of nothing but
// this constant and the batch, since it fixes the order of summation.
constexpr int64_t kBackwardChunkRows = 512;

template <class T>
void copy_row(T* to, const T* from, int64_t n) {
    if (from) {
        std::memcpy(to, from, sizeof(T) * static_cast<size_t>(n));
    } else {
        std::fill_n(to, n, T{0});
    }
}

template <class T>
void pack_bias(const CellKernels<T>& cell, const T* bias, int64_t H, int64_t packed, T* out) {
    if (bias) {
        cell.pack_gates(bias, 1, H, out);
    } else {
        std::fill_n(out, packed, T{0});
    }
}

template <class T>
void run_forward(const KernelTable& table, const Layer<T>& layer, const Plan& plan, const Layout& layout,
                 const Output<T>& output, Tape<T>* tape) {
    const Kernels<T>& kernels = precision<T>(table);
    const CellKernels<T>& cell = kernels.cells[static_cast<int>(layer.cell)];
    const int64_t H = layer.H, I = layer.I;
    const int64_t gate_columns = cell.gates * round_up(H, kernels.lanes);  // of the packed weights

    Forward<T> task{};
    task.batch = plan.batch();
    const int64_t N = task.batch.N, R = task.batch.R;
    task.I = I;
    task.H = H;
    task.x = layer.x;
    task.y = output.y;
    task.keep = tape != nullptr;

    Array<T> packed((I + H + 2) * gate_columns), ring[kMaxStates];
    T* w = packed;
    T* u = w + I * gate_columns;
    T* b_ih = u + H * gate_columns;
    T* b_hh = b_ih + gate_columns;
    task.w = w, task.u = u, task.b_ih = b_ih, task.b_hh = b_hh;
    for (int s = 0; s < cell.states; ++s) {
        if (!tape) ring[s] = Array<T>(2 * N * H);
        task.states[s] = tape ? tape->states[s] : ring[s];
        task.last[s] = output.last[s];
        for (int64_t n = 0; n < N; ++n) {
            const int64_t caller = task.batch.order[n];
            const T* first = layer.first[s] ? layer.first[s] + caller * H : nullptr;
            copy_row(task.states[s] + n * H, first, H);
            if (plan.length(n) == 0) copy_row(output.last[s] + caller * H, first, H);
        }
    }
    if (tape) task.saved = tape->saved;
    if (plan.padded()) std::fill_n(output.y, layout.N * layout.T * H, T{0});
    if (R == 0) return;

    const int threads = threads_for(static_cast<double>(R) * cell.gates * H * (I + H));
    const std::vector<int64_t> slices = plan.slices(threads);
    const int64_t slice_count = static_cast<int64_t>(slices.size()) - 1;
    task.chunk_rows = std::min(R, input_chunk_rows<T>(cell.gates * H));
    const int64_t pre_rows = std::max(task.chunk_rows, N);  // a chunk has at least one step
    Array<T> pre(slice_count * pre_rows * cell.gates * H);
    Array<const T*> x_rows(slice_count * pre_rows);

    run_team(threads, [&](Member& team) {
        team.each(2, [&](int64_t task_index) {
            if (task_index == 0) {
                cell.pack_gates(layer.w_hh, H, H, u);
                pack_bias(cell, layer.b_hh, H, gate_columns, b_hh);
            } else {
                cell.pack_gates(layer.w_ih, I, H, w);
                pack_bias(cell, layer.b_ih, H, gate_columns, b_ih);
            }
        });
        team.each(slice_count, [&](int64_t s) {
            cell.forward(task, slices[s], slices[s + 1], pre + s * pre_rows * cell.gates * H, x_rows + s * pre_rows);
        });
    });
}

}  // namespace

template <class T>
void forward(const Layer<T>& layer, const Layout& layout, const Output<T>& output) {
    run_forward<T>(kernels(), layer, Plan(layout), layout, output, nullptr);
}

template <class T>
Tape<T> forward_for_training(const Layer<T>& layer, const Layout& layout, const Output<T>& output) {
    Tape<T> tape{&kernels(), Plan(layout), {}, {}};
    const CellKernels<T>& cell = precision<T>(*tape.kernels).cells[static_cast<int>(layer.cell)];
    const Batch batch = tape.plan.batch();
    for (int s = 0; s < cell.states; ++s) tape.states[s] = Array<T>((batch.N + batch.R) * layer.H);
    tape.saved = Array<T>(batch.R * cell.saved * layer.H);
    run_forward(*tape.kernels, layer, tape.plan, layout, output, &tape);
    return tape;
}

template <class T>
void backward(const Layer<T>& layer, const Layout& layout, const Tape<T>& tape, const Output<const T>& cotangents,
              const Gradients<T>& gradients) {
    const Kernels<T>& kernels = precision<T>(*tape.kernels);
    const CellKernels<T>& cell = kernels.cells[static_cast<int>(layer.cell)];
    const Batch batch = tape.plan.batch();
    const int64_t H = layer.H, I = layer.I, N = batch.N, GH = cell.gates * H;

    const std::vector<int64_t> chunks = tape.plan.chunks(kBackwardChunkRows);
    const int64_t chunk_count = static_cast<int64_t>(chunks.size()) - 1;
    int64_t chunk_rows = 0;
    for (int64_t c = 0; c < chunk_count; ++c) {
        chunk_rows = std::max(chunk_rows, batch.offset[chunks[c + 1]] - batch.offset[chunks[c]]);
    }
    const int threads = threads_for(3.0 * static_cast<double>(batch.R) * static_cast<double>(GH * (I + H)));
    const std::vector<int64_t> slices = tape.plan.slices(threads);
    const int64_t slice_count = static_cast<int64_t>(slices.size()) - 1;

    // The products over rows: dW_ih += dx' [x | 1] and dW_hh += du' [h_{t-1} | 1], transposed.
    const int64_t panels = (GH + kernels.panel - 1) / kernels.panel;
    const int64_t sum_columns = round_up(GH, kernels.lanes);
    struct Product {
        int64_t M;
        const T* a;
        const int64_t* a_row;  // (R)
        const T* b;
        T* gradient;
        T* sums;
        Array<T> packed, c;
        int64_t tiles;
    };
    const std::vector<int64_t> previous_rows = tape.plan.previous_rows();
    const Array<T> dx_gates(chunk_rows * GH), du_gates_apart(cell.split_gradient ? chunk_rows * GH : 0);
    T* du_gates = cell.split_gradient ? du_gates_apart : dx_gates;
    Product products[2] = {
        {I + 1, layer.x, batch.caller_row, dx_gates, gradients.w_ih, gradients.b_ih, {}, {}, 0},
        {H + 1, tape.states[0], previous_rows.data(), du_gates, gradients.w_hh, gradients.b_hh, {}, {}, 0},
    };
    for (Product& product : products) {
        product.packed = Array<T>(product.M * chunk_rows);
        product.c = Array<T>(product.M * sum_columns);
        product.tiles = kernels.outer_tiles(product.M);
        std::fill_n(static_cast<T*>(product.c), product.M * sum_columns, T{0});
    }
    const auto outer = [&](const Product& product, int64_t rows) {
        return OuterProduct<T>{rows, product.M, GH, product.packed, product.b, product.c};
    };

    const Array<T> u(GH * round_up(H, kernels.lanes)), w(GH * round_up(I, kernels.lanes)), du_next(N * GH);
    const Array<T> dh_carry(cell.hidden_carry ? N * H : 0), dc(cell.states > 1 ? N * H : 0);
    const Array<T> packed_b(threads * chunk_rows * kernels.panel);
    Backward<T> task{};
    task.batch = batch;
    task.H = H;
    for (int s = 0; s < cell.states; ++s) {
        task.states[s] = tape.states[s];
        task.dlast[s] = cotangents.last[s];
        task.dfirst[s] = gradients.first[s];
    }
    task.saved = tape.saved;
    task.u = u;
    task.dy = cotangents.y;
    task.dh_carry = dh_carry;
    task.dc = dc;
    task.du_next = du_next;
    task.dx_gates = dx_gates;
    task.du_gates = du_gates;
    if (cell.hidden_carry) std::fill_n(task.dh_carry, N * H, T{0});
    if (cell.states > 1) {
        for (int64_t n = 0; n < N; ++n) {
            copy_row(task.dc + n * H, task.dlast[1] ? task.dlast[1] + batch.order[n] * H : nullptr, H);
        }
    }
    if (tape.plan.padded()) std::fill_n(gradients.x, layout.N * layout.T * I, T{0});

    run_team(threads, [&](Member& team) {
        team.each(2, [&](int64_t index) {
            if (index == 0) {
                kernels.pack_columns(layer.w_hh, GH, H, u);
            } else {
                kernels.pack_columns(layer.w_ih, GH, I, w);
            }
        });
        for (int64_t c = chunk_count - 1; c >= 0; --c) {
            const int64_t begin = chunks[c], end = chunks[c + 1];
            const int64_t first = batch.offset[begin], rows = batch.offset[end] - first;
            // the time loop, and beside it the packing of what is known already
            team.each(slice_count + products[0].tiles + products[1].tiles, [&](int64_t index) {
                if (index < slice_count) return cell.backward(task, begin, end, slices[index], slices[index + 1]);
                index -= slice_count;
                const Product& product = products[index >= products[0].tiles];
                if (&product != products) index -= products[0].tiles;
                kernels.pack_outer_rows(outer(product, rows), index, product.a, product.a_row + first);
            });
            // dW and db, by panels of gates; dx, by blocks of rows
            const int64_t blocks = std::clamp<int64_t>(rows / 48, 1, 4 * threads);
            team.each(2 * panels + blocks, [&](int64_t index) {
                if (index < 2 * panels) {
                    kernels.outer_panel(outer(products[index / panels], rows), index % panels,
                                        packed_b + team.index() * chunk_rows * kernels.panel);
                } else {
                    const int64_t block = index - 2 * panels;
                    const int64_t from = rows * block / blocks, to = rows * (block + 1) / blocks;
                    kernels.multiply_rows(to - from, GH, I, dx_gates + from * GH, w, batch.caller_row + first + from,
                                          gradients.x);
                }
            });
        }
        team.each(slice_count + 2 * panels, [&](int64_t index) {
            if (index < slice_count) return cell.backward_first(task, slices[index], slices[index + 1]);
            index -= slice_count;
            const Product& product = products[index / panels];
            kernels.unpack_outer(outer(product, 0), index % panels, product.gradient, product.sums);
        });
    });
}

int gates_of(Cell cell) {
    return kernels().f32.cells[static_cast<int>(cell)].gates;
}
int states_of(Cell cell) {
    return kernels().f32.cells[static_cast<int>(cell)].states;
}

template void forward(const Layer<float>&, const Layout&, const Output<float>&);
template void forward(const Layer<double>&, const Layout&, const Output<double>&);
template Tape<float> forward_for_training(const Layer<float>&, const Layout&, const Output<float>&);
template Tape<double> forward_for_training(const Layer<double>&, const Layout&, const Output<double>&);
template void backward(const Layer<float>&, const Layout&, const Tape<float>&, const Output<const float>&,
                       const Gradients<float>&);
template void backward(const Layer<double>&, const Layout&, const Tape<double>&, const Output<const double>&,
                       const Gradients<double>&);

}  // namespace rnncore
