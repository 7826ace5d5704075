#include "sums.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "memory.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Rows of a chunk, whose packed operands stay in L2. A constant, though the sums run in one order whatever it is.
constexpr int64_t kChunkRows = 512;

}  // namespace

template <class T>
void sum_weights(const KernelTable& table, int64_t rows, const std::vector<WeightSum<T>>& sums) {
    const Kernels<T>& kernels = precision<T>(table);
    const bool few_rows = rows <= kernels.few_rows;
    struct Place {
        int64_t tiles, panels;
        T *packed, *c;
    };
    std::vector<Place> places;
    int64_t size = 0, panels = 0, tiles = 0, most_columns = 0;
    double multiply_adds = 0;
    const int64_t chunk_rows = std::min(rows, kChunkRows);
    for (const WeightSum<T>& sum : sums) {
        const int64_t M = sum.K + 1, columns = round_up(sum.columns, kernels.lanes);
        places.push_back({few_rows ? 0 : kernels.outer_tiles(M), few_rows ? 1 : ceil_div(sum.columns, kernels.panel),
                          nullptr, nullptr});
        size += M * chunk_rows + M * columns;
        panels += places.back().panels, tiles += places.back().tiles;
        most_columns = std::max(most_columns, sum.columns);
        multiply_adds += static_cast<double>(rows) * static_cast<double>(M * sum.columns);
    }
    const int threads = threads_for(multiply_adds);
    const Array<T> memory(few_rows ? 0 : size), packed_b(few_rows ? 0 : threads * chunk_rows * kernels.panel);
    const Array<T> no_bias(most_columns * static_cast<int64_t>(sums.size()));
    T* next = memory;
    for (size_t k = 0; k < sums.size() && !few_rows; ++k) {
        const int64_t M = sums[k].K + 1;
        places[k].packed = next, next += M * chunk_rows;
        places[k].c = next, next += M * round_up(sums[k].columns, kernels.lanes);
    }
    const auto product = [&](size_t k, int64_t begin, int64_t count) {
        const WeightSum<T>& sum = sums[k];
        return OuterProduct<T>{
            count, sum.K + 1, sum.columns, sum.b_stride, places[k].packed, sum.b + begin * sum.b_stride, places[k].c};
    };
    const auto bias_of = [&](size_t k) {
        return sums[k].bias ? sums[k].bias : no_bias + most_columns * static_cast<int64_t>(k);
    };
    // Which sum has the panel or the tile of this number; the rest is its own.
    const auto find = [&](int64_t& index, int64_t Place::*count) {
        size_t k = 0;
        for (; index >= places[k].*count; ++k) index -= places[k].*count;
        return k;
    };
    if (rows == 0) {
        for (const WeightSum<T>& sum : sums) {
            std::fill_n(sum.weight, sum.columns * sum.K, T{0});
            if (sum.bias) std::fill_n(sum.bias, sum.columns, T{0});
        }
        return;
    }
    run_team(threads, [&](Member& team) {
        if (few_rows) {
            return team.each(static_cast<int64_t>(sums.size()), [&](int64_t index) {
                const auto k = static_cast<size_t>(index);
                kernels.outer_few_rows(product(k, 0, rows), sums[k].a, sums[k].a_row, sums[k].weight, bias_of(k));
            });
        }
        team.each(static_cast<int64_t>(sums.size()), [&](int64_t index) {
            const auto k = static_cast<size_t>(index);
            std::fill_n(places[k].c, (sums[k].K + 1) * round_up(sums[k].columns, kernels.lanes), T{0});
        });
        for (int64_t begin = 0; begin < rows; begin += kChunkRows) {
            const int64_t count = std::min(kChunkRows, rows - begin);
            team.each(tiles, [&](int64_t index) {
                const size_t k = find(index, &Place::tiles);
                kernels.pack_outer_rows(product(k, begin, count), index, sums[k].a, sums[k].a_row + begin);
            });
            team.each(panels, [&](int64_t index) {
                const size_t k = find(index, &Place::panels);
                kernels.outer_panel(product(k, begin, count), index,
                                    packed_b + team.index() * chunk_rows * kernels.panel);
            });
        }
        team.each(panels, [&](int64_t index) {
            const size_t k = find(index, &Place::panels);
            kernels.unpack_outer(product(k, 0, 0), index, sums[k].weight, bias_of(k));
        });
    });
}

template void sum_weights(const KernelTable&, int64_t, const std::vector<WeightSum<float>>&);
template void sum_weights(const KernelTable&, int64_t, const std::vector<WeightSum<double>>&);

}  // namespace rnncore
