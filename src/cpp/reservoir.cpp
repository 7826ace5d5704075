#include "reservoir.hpp"

#include <algorithm>
#include <numeric>

#include "dispatch.hpp"
#include "schedule.hpp"
#include "threads.hpp"
#include "weights.hpp"

namespace rnncore {
namespace {

// Steps whose product with W_in is made at once, in the rows where their states will be: a part of L2, most of which is
// for W.
constexpr int64_t kChunkSteps = 32;

// The cyclic diagonals that W is the sum of, ascending; none if some entry of one is not there.
std::vector<int64_t> find_diagonals(const ReservoirWeights& w) {
    const auto of_row = [&](int64_t row, std::vector<int64_t>& diagonals) {
        diagonals.clear();
        for (int64_t k = w.indptr[row]; k < w.indptr[row + 1]; ++k) {
            diagonals.push_back((w.indices[k] - row + w.H) % w.H);
        }
        std::sort(diagonals.begin(), diagonals.end());
    };
    std::vector<int64_t> diagonals, row_diagonals;
    of_row(0, diagonals);
    for (int64_t row = 1; row < w.H; ++row) {
        of_row(row, row_diagonals);
        if (row_diagonals != diagonals) return {};
    }
    return diagonals;
}

}  // namespace

PackedReservoir::PackedReservoir(const ReservoirWeights& weights) : kernels_(&kernels()), I_(weights.I) {
    const Kernels<double>& f64 = kernels_->f64;
    const int64_t I = weights.I, H = weights.H, L = f64.lanes;
    w_in_ = Array<double>(I * round_up(H, L));
    f64.pack_transposed(weights.w_in, I, H, w_in_);
    bias_ = Array<double>(round_up(H, L));
    std::fill_n(static_cast<double*>(bias_), round_up(H, L), 0.0);
    if (weights.bias) std::copy_n(weights.bias, H, static_cast<double*>(bias_));

    net_.H = H;
    net_.leak = weights.leak;
    net_.margin = L;
    shift_ = {0};
    const std::vector<int64_t> diagonals = find_diagonals(weights);
    if (diagonals.empty()) {
        pack_rows(weights);
    } else {
        pack_diagonals(weights, diagonals);
    }
    net_.copies = static_cast<int64_t>(shift_.size());
    net_.shift = shift_.data();
    net_.values = values_;
}

void PackedReservoir::pack_diagonals(const ReservoirWeights& w, const std::vector<int64_t>& diagonals) {
    const int64_t H = w.H, L = kernels_->f64.lanes, block = kernels_->reservoir.block, all = round_up(H, block);
    net_.D = static_cast<int64_t>(diagonals.size());
    net_.stride = round_up(net_.margin + all + H, L);
    for (const int64_t d : diagonals) {
        auto copy = std::find(shift_.begin(), shift_.end(), d % L);
        if (copy == shift_.end()) copy = shift_.insert(copy, d % L);
        place_.push_back((copy - shift_.begin()) * net_.stride + net_.margin + d - d % L);
    }
    net_.place = place_.data();
    values_ = Array<double>(net_.D * all);
    double* values = values_;
    std::fill_n(values, net_.D * all, 0.0);
    for (int64_t i = 0; i < H; ++i) {
        for (int64_t k = w.indptr[i]; k < w.indptr[i + 1]; ++k) {
            const int64_t d =
                std::lower_bound(diagonals.begin(), diagonals.end(), (w.indices[k] - i + H) % H) - diagonals.begin();
            values[(i / block * net_.D + d) * block + i % block] = w.data[k];
        }
    }
}

void PackedReservoir::pack_rows(const ReservoirWeights& w) {
    const int64_t H = w.H, L = kernels_->f64.lanes;
    net_.stride = net_.margin + round_up(H, L);
    begin_ = {0};
    for (int64_t first = 0; first < H; first += L) {
        int64_t most = 0;
        for (int64_t i = first; i < std::min(first + L, H); ++i) most = std::max(most, w.indptr[i + 1] - w.indptr[i]);
        begin_.push_back(begin_.back() + most);
    }
    const int64_t size = begin_.back() * L;
    values_ = Array<double>(size);
    double* values = values_;
    std::fill_n(values, size, 0.0);
    columns_.assign(static_cast<size_t>(size), 0);
    for (int64_t i = 0; i < H; ++i) {
        int64_t to = begin_[static_cast<size_t>(i / L)] * L + i % L;
        for (int64_t k = w.indptr[i]; k < w.indptr[i + 1]; ++k, to += L) {
            values[to] = w.data[k];
            columns_[static_cast<size_t>(to)] = static_cast<int32_t>(w.indices[k]);
        }
    }
    net_.begin = begin_.data();
    net_.columns = columns_.data();
}

void PackedReservoir::run(const ReservoirSeries& series) const {
    std::vector<int64_t> begin(static_cast<size_t>(series.N + 1), 0), order(static_cast<size_t>(series.N));
    std::partial_sum(series.lengths, series.lengths + series.N, begin.begin() + 1);
    std::iota(order.begin(), order.end(), int64_t{0});
    // the longest first, so that threads end together
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return series.lengths[a] > series.lengths[b]; });
    const int64_t H = net_.H, nonzeros = net_.D ? net_.D * H : begin_.back() * kernels_->f64.lanes;
    const double work = static_cast<double>(begin.back()) * static_cast<double>(nonzeros + H * (I_ + 16));
    const int threads = static_cast<int>(std::min<int64_t>(threads_for(work), std::max<int64_t>(series.N, 1)));
    run_team(threads, [&](Member& team) {
        team.each(series.N, [&](int64_t task) {
            const int64_t n = order[static_cast<size_t>(task)], row = begin[static_cast<size_t>(n)];
            run_one(series.lengths[n], series.x + row * I_, series.first ? series.first + n * H : nullptr,
                    series.states + row * H, series.last + n * H);
        });
    });
}

void PackedReservoir::run_one(int64_t steps, const double* x, const double* first, double* states, double* last) const {
    const Kernels<double>& f64 = kernels_->f64;
    const int64_t H = net_.H, size = net_.copies * net_.stride;
    const Array<double> memory(2 * size);
    double* state = memory;
    std::fill_n(state, 2 * size, 0.0);
    for (int64_t c = 0; first && c < net_.copies; ++c) {
        double* copy = state + c * net_.stride + net_.margin - net_.shift[c];
        std::copy_n(first, H, copy);
        if (net_.D) std::copy_n(first, H, copy + H);
    }
    int64_t rows[kChunkSteps];
    std::iota(rows, rows + kChunkSteps, int64_t{0});
    Linear<double> input{I_, H, Activation::none, rows, x, true, w_in_, bias_, states, H};
    for (int64_t t = 0; t < steps; t += kChunkSteps) {
        const int64_t count = std::min(kChunkSteps, steps - t);
        input.x = x + t * I_;
        input.y = states + t * H;
        f64.linear(input, {0, count});
        kernels_->reservoir.run(net_, {t, t + count}, input.y, state);
    }
    copy_row(last, steps > 0 ? states + (steps - 1) * H : first, H);
}

}  // namespace rnncore
