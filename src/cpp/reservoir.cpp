#include "reservoir.hpp"

#include <algorithm>
#include <numeric>

#include "dispatch.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Steps whose product with W_in is made at once, in the rows where their states will be: a part of L2, most of which is
// for W.
constexpr int64_t kChunkSteps = 32;

constexpr int kMostLanes = 8;  // of float64

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
    diagonals_ = find_diagonals(weights);
    if (diagonals_.empty()) {
        pack_rows(weights);
    } else {
        pack_diagonals(weights);
    }
    net_.copies = static_cast<int64_t>(shift_.size());
    net_.shift = shift_.data();
    net_.values = values_;
}

void PackedReservoir::pack_diagonals(const ReservoirWeights& w) {
    const int64_t H = w.H, L = kernels_->f64.lanes, block = kernels_->reservoir.block, all = round_up(H, block);
    net_.D = static_cast<int64_t>(diagonals_.size());
    net_.diagonals = diagonals_.data();
    net_.stride = round_up(net_.margin + all + H, L);
    for (const int64_t d : diagonals_) {
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
            const auto found = std::lower_bound(diagonals_.begin(), diagonals_.end(), (w.indices[k] - i + H) % H);
            const int64_t d = found - diagonals_.begin();
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
    // the longest first: neighbours are side by side for long, and threads end together
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return series.lengths[a] > series.lengths[b]; });
    // Side by side if enough are there: with rows two lanes in use are worth it, with diagonals four and more than
    // half.
    const int64_t H = net_.H, L = kernels_->f64.lanes, worth = net_.D ? std::max<int64_t>(L / 2 + 1, 4) : 2;
    const int64_t groups = ceil_div(series.N, L);
    const int64_t nonzeros = net_.D ? net_.D * H : begin_.back() * L;
    const double work = static_cast<double>(begin.back()) * static_cast<double>(nonzeros + H * (I_ + 16));
    const int threads = static_cast<int>(std::min<int64_t>(threads_for(work), std::max<int64_t>(series.N, 1)));
    const Array<double> memory(threads * workspace_size());
    run_team(threads, [&](Member& team) {
        const Place place{series, begin.data(), memory + team.index() * workspace_size()};
        team.each(groups, [&](int64_t group) {
            const int64_t* which = order.data() + group * L;
            const int64_t count = std::min(L, series.N - group * L);
            const int64_t together = H >= L && count >= worth ? series.lengths[which[count - 1]] : 0;
            if (together > 0) run_lanes(place, which, count, together);
            for (int64_t g = 0; g < count; ++g) run_one(place, which[g], together);
        });
    });
}

int64_t PackedReservoir::workspace_size() const {
    const int64_t L = kernels_->f64.lanes;
    return round_up(2 * std::max(net_.copies * net_.stride, (net_.H + L) * L), L);
}

void PackedReservoir::make_pre(int64_t count, const double* x, double* states) const {
    int64_t rows[kChunkSteps];
    std::iota(rows, rows + count, int64_t{0});
    const Linear<double> input{I_, net_.H, Activation::none, rows, x, true, w_in_, bias_, states, net_.H};
    kernels_->f64.linear(input, {0, count});
}

void PackedReservoir::run_lanes(const Place& place, const int64_t* which, int64_t count, int64_t steps) const {
    const ReservoirSeries& series = place.series;
    const int64_t H = net_.H, L = kernels_->f64.lanes, chunk = kChunkSteps / L;
    double* state = place.workspace;
    std::fill_n(state, 2 * (H + L) * L, 0.0);
    for (int64_t g = 0; series.first && g < count; ++g) {
        const double* first = series.first + which[g] * H;
        for (int64_t i = 0; i < H + L; ++i) state[i * L + g] = first[i % H];
    }
    double* states[kMostLanes] = {};
    for (int64_t t = 0; t < steps; t += chunk) {
        const int64_t now = std::min(chunk, steps - t);
        for (int64_t g = 0; g < count; ++g) {
            const int64_t row = place.begin[which[g]] + t;
            states[g] = series.states + row * H;
            make_pre(now, series.x + row * I_, states[g]);
        }
        kernels_->reservoir.run_lanes(net_, {t, t + now}, states, state);
    }
}

void PackedReservoir::run_one(const Place& place, int64_t n, int64_t t) const {
    const ReservoirSeries& series = place.series;
    const int64_t H = net_.H, size = net_.copies * net_.stride, steps = series.lengths[n], row = place.begin[n];
    double* states = series.states + row * H;
    const double* first = t > 0 ? states + (t - 1) * H : series.first ? series.first + n * H : nullptr;
    if (t < steps) {
        double* state = place.workspace;
        std::fill_n(state, 2 * size, 0.0);
        for (int64_t c = 0; first && c < net_.copies; ++c) {
            double* copy = state + t % 2 * size + c * net_.stride + net_.margin - shift_[static_cast<size_t>(c)];
            std::copy_n(first, H, copy);
            if (net_.D) std::copy_n(first, H, copy + H);
        }
        for (; t < steps; t += kChunkSteps) {
            const int64_t count = std::min(kChunkSteps, steps - t);
            make_pre(count, series.x + (row + t) * I_, states + t * H);
            kernels_->reservoir.run(net_, {t, t + count}, states + t * H, state);
        }
    }
    copy_row(series.last + n * H, steps > 0 ? states + (steps - 1) * H : first, H);
}

}  // namespace rnncore
