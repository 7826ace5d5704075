#include "linear.hpp"

#include <numeric>

#include "dispatch.hpp"
#include "memory.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Rows of x that stay in L2 while all panels of the weight pass over them.
constexpr int64_t kBlockBytes = 256 << 10;
// A thread's share of a call has so many rows at least, or tiles are not full.
constexpr int64_t kLeastBlockRows = 48;

// Rows of a chunk of the backward pass: few enough for its rows of x, packed, and of da to stay in L2 until both are
// used. The sums over rows run in one order whatever the chunks. (Half or twice as many: 2 % at most, either way.)
constexpr int64_t kChunkBytes = 512 << 10;
constexpr int64_t kLeastChunkRows = 128, kMostChunkRows = 1024;

template <class T>
int64_t rows_in(int64_t bytes, int64_t row_size) {
    return bytes / (static_cast<int64_t>(sizeof(T)) * row_size);
}

// Boundary `part` of `whole` in `parts` parts of nearly the same size.
Span share(int64_t whole, int64_t part, int64_t parts) {
    return {whole * part / parts, whole * (part + 1) / parts};
}

int threads_for_products(int64_t products, int64_t rows, int64_t weight_size) {
    const double multiply_adds = static_cast<double>(products * rows) * static_cast<double>(weight_size);
    return std::max(threads_for(multiply_adds), threads_for_packing(weight_size));
}

}  // namespace

Rows::Rows(int64_t all) : all_(all), index_(static_cast<size_t>(all)) {
    std::iota(index_.begin(), index_.end(), int64_t{0});
}

Rows::Rows(int64_t N, int64_t T, const int64_t* lengths) : all_(N * T) {
    index_.resize(static_cast<size_t>(std::accumulate(lengths, lengths + N, int64_t{0})));
    auto out = index_.begin();
    for (int64_t n = 0; n < N; ++n) {
        std::iota(out, out + lengths[n], n * T);
        out += lengths[n];
    }
}

template <class T>
void linear_forward(const KernelTable& table, const Rows& rows, const Linear<T>& layer) {
    const Kernels<T>& kernels = precision<T>(table);
    const int64_t R = rows.count(), I = layer.I, O = layer.O;
    rows.zero_others(layer.y, O);
    if (R == 0) return;

    // By blocks of rows, and by panels of outputs too where there are too few rows for all threads.
    const int64_t panels = ceil_div(O, kernels.panel);
    const int threads = threads_for_products(1, R, I * O);
    const int64_t of_threads = threads == 1 ? 1 : std::clamp<int64_t>(R / kLeastBlockRows, 1, 4 * threads);
    const int64_t in_cache = ceil_div(R, std::clamp<int64_t>(rows_in<T>(kBlockBytes, I + 1), kLeastBlockRows, 1024));
    const int64_t blocks = std::max(of_threads, in_cache);
    const int64_t spans = std::min(panels, ceil_div(threads, blocks));

    Linear<T> task = layer;
    task.caller_row = rows.index();
    task.packed = R > kernels.unpacked_rows;
    // With one block of rows, each thread packs a panel right before its use, in memory that stays in its cache.
    const int64_t columns = round_up(O, kernels.lanes), panel_size = I * std::min<int64_t>(kernels.panel, columns);
    T *packed_weight = nullptr, *packed_bias = nullptr;
    Arrays<T> workspace;
    if (task.packed) {
        workspace.add(packed_weight, blocks == 1 ? threads * panel_size : I * columns);
        workspace.add(packed_bias, layer.bias ? columns : 0);
        workspace.allocate();
        if (layer.bias) {
            std::fill(std::copy_n(layer.bias, O, packed_bias), packed_bias + columns, T{0});
            task.bias = packed_bias;
        }
    }
    if (blocks > 1) task.weight = packed_weight;  // (there are more rows than may be left unpacked)
    // A layer with the outputs of some panels alone. Packed or not, they begin at the same place in its weight.
    const auto part = [&](Linear<T> whole, Span of) {
        const int64_t first = of.begin * kernels.panel;
        whole.O = std::min(of.end * kernels.panel, O) - first;
        whole.weight += first * I;
        if (whole.bias) whole.bias += first;
        whole.y += first;
        return whole;
    };
    const auto pack = [&](int64_t panel, T* to) {
        const Linear<T> from = part(layer, {panel, panel + 1});
        kernels.pack_transposed(from.weight, I, from.O, to);
    };

    run_team(threads, [&](Member& team) {
        if (blocks == 1) {
            return team.each(panels, [&](int64_t panel) {
                Linear<T> one = part(task, {panel, panel + 1});
                if (task.packed) {
                    T* packed = packed_weight + team.index() * panel_size;
                    pack(panel, packed);
                    one.weight = packed;
                }
                kernels.linear(one, {0, R});
            });
        }
        team.each(panels, [&](int64_t panel) { pack(panel, packed_weight + panel * kernels.panel * I); });
        team.each(blocks * spans, [&](int64_t index) {
            kernels.linear(part(task, share(panels, index % spans, spans)), share(R, index / spans, blocks));
        });
    });
}

template <class T>
void linear_backward(const KernelTable& table, const Rows& rows, const Linear<T>& layer, const T* dy,
                     const LinearGradients<T>& gradients) {
    const Kernels<T>& kernels = precision<T>(table);
    const int64_t R = rows.count(), I = layer.I, O = layer.O;
    rows.zero_others(gradients.x, I);
    if (R == 0) {
        std::fill_n(gradients.weight, O * I, T{0});
        std::fill_n(gradients.bias, O, T{0});
        return;
    }
    Linear<T> task = layer;
    task.caller_row = rows.index();
    const int threads = threads_for_products(2, R, I * O);

    // For few rows, neither the weight nor the operands of the product over rows are packed.
    const bool few_rows = R <= kernels.few_rows;
    const bool pack_weight = !few_rows || I % kernels.lanes != 0;
    // Where all rows are computed and there is no activation, da is dy.
    const bool dy_is_da = layer.activation == Activation::none && R == rows.all();
    const int64_t row_size = I + 1 + (dy_is_da ? 0 : O);
    const int64_t chunk_rows =
        std::min(R, std::clamp(rows_in<T>(kChunkBytes, row_size), kLeastChunkRows, kMostChunkRows));

    // dW += da' [x | 1], transposed
    const int64_t M = I + 1, panels = few_rows ? 1 : ceil_div(O, kernels.panel);
    const int64_t tiles = few_rows ? 0 : kernels.outer_tiles(M), sum_columns = round_up(O, kernels.lanes);
    T *da, *weight, *packed_x, *packed_da, *sums;
    Arrays<T> workspace;
    workspace.add(da, dy_is_da ? 0 : chunk_rows * O);
    workspace.add(weight, pack_weight ? O * round_up(I, kernels.lanes) : 0);
    workspace.add(packed_x, few_rows ? 0 : M * chunk_rows);
    workspace.add(packed_da, few_rows ? 0 : threads * chunk_rows * kernels.panel);
    workspace.add(sums, few_rows ? 0 : M * sum_columns);
    workspace.allocate();

    run_team(threads, [&](Member& team) {
        for (int64_t begin = 0, end; begin < R; begin = end) {
            end = std::min(R, begin + chunk_rows);
            const int64_t count = end - begin;
            const int64_t* caller_row = rows.index() + begin;
            const T* chunk_da = dy_is_da ? dy + begin * O : da;
            const OuterProduct<T> product{count, M, O, O, packed_x, chunk_da, sums};
            const int64_t blocks = std::clamp<int64_t>(count / kLeastBlockRows, 1, 4 * threads);

            const int64_t pack_weight_now = pack_weight && begin == 0, da_blocks = dy_is_da ? 0 : blocks;
            team.each(pack_weight_now + da_blocks + tiles, [&](int64_t index) {
                if (index < pack_weight_now) return kernels.pack_columns(layer.weight, O, I, weight);
                index -= pack_weight_now;
                if (index >= da_blocks) {
                    return kernels.pack_outer_rows(product, index - da_blocks, layer.x, caller_row);
                }
                const Span part = share(count, index, blocks);
                kernels.linear_gradient(task, {begin + part.begin, begin + part.end}, dy, da + part.begin * O);
            });
            // dW and db by panels of outputs, dx = da W by blocks of rows
            team.each(panels + blocks, [&](int64_t index) {
                if (index >= panels) {
                    const Span part = share(count, index - panels, blocks);
                    kernels.multiply_rows(part.end - part.begin, O, I, chunk_da + part.begin * O,
                                          pack_weight ? weight : layer.weight, pack_weight ? 0 : I,
                                          caller_row + part.begin, gradients.x);
                } else if (few_rows) {
                    kernels.outer_few_rows(product, layer.x, caller_row, gradients.weight, gradients.bias);
                } else {
                    const int64_t first = index * kernels.panel;
                    const int64_t width = std::min<int64_t>(kernels.panel, sum_columns - first);
                    if (begin == 0) std::fill_n(sums + M * first, M * width, T{0});
                    kernels.outer_panel(product, index, packed_da + team.index() * chunk_rows * kernels.panel);
                    if (end == R) kernels.unpack_outer(product, index, gradients.weight, gradients.bias);
                }
            });
        }
    });
}

template void linear_forward(const KernelTable&, const Rows&, const Linear<float>&);
template void linear_forward(const KernelTable&, const Rows&, const Linear<double>&);
template void linear_backward(const KernelTable&, const Rows&, const Linear<float>&, const float*,
                              const LinearGradients<float>&);
template void linear_backward(const KernelTable&, const Rows&, const Linear<double>&, const double*,
                              const LinearGradients<double>&);

}  // namespace rnncore
