#include "plan.hpp"

#include <algorithm>
#include <numeric>

namespace rnncore {

Plan::Plan(const Layout& layout) : N_(layout.N), length_(layout.N, layout.T), order_(layout.N) {
    std::iota(order_.begin(), order_.end(), int64_t{0});
    if (layout.lengths) {
        const int64_t* lengths = layout.lengths;
        std::stable_sort(order_.begin(), order_.end(), [=](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
        for (int64_t n = 0; n < N_; ++n) length_[n] = lengths[order_[n]];
    }
    T_ = N_ ? length_[0] : 0;
    padded_ = N_ > 0 && length_[N_ - 1] < layout.T;

    count_.resize(T_);
    offset_.resize(T_ + 1);
    for (int64_t t = 0, n = N_; t < T_; ++t) {
        while (length_[n - 1] <= t) --n;
        count_[t] = n;
        offset_[t + 1] = offset_[t] + n;
    }
    R_ = offset_[T_];

    caller_row_.resize(R_);
    const int64_t step_stride = layout.batch_first ? 1 : layout.N;
    const int64_t row_stride = layout.batch_first ? layout.T : 1;
    int64_t* out = caller_row_.data();
    for (int64_t t = 0; t < T_; ++t) {
        for (int64_t n = 0; n < count_[t]; ++n) {
            const int64_t step = layout.reverse ? length_[n] - 1 - t : t;
            *out++ = order_[n] * row_stride + step * step_stride;
        }
    }
}

Batch Plan::batch() const {
    return {T_, N_, R_, count_.data(), offset_.data(), caller_row_.data(), order_.data()};
}

std::vector<int64_t> Plan::previous_rows() const {
    std::vector<int64_t> rows(R_);
    for (int64_t t = 0; t < T_; ++t) {
        const int64_t first = t ? N_ + offset_[t - 1] : 0;
        std::iota(rows.begin() + offset_[t], rows.begin() + offset_[t + 1], first);
    }
    return rows;
}

std::vector<int64_t> Plan::slices(int parts) const {
    std::vector<int64_t> bounds{0};
    const int64_t slices = std::clamp<int64_t>(parts, 1, std::max<int64_t>(N_, 1));
    int64_t rows = 0;
    for (int64_t n = 0; n < N_; ++n) {
        rows += length_[n];
        const int64_t made = static_cast<int64_t>(bounds.size());
        // close the slice at its share of the rows, but leave one row for each of the slices to come
        if (made < slices && n + 1 < N_ && (rows * slices >= R_ * made || N_ - (n + 1) == slices - made)) {
            bounds.push_back(n + 1);
        }
    }
    bounds.push_back(N_);
    return bounds;
}

std::vector<int64_t> Plan::chunks(int64_t rows) const {
    std::vector<int64_t> bounds{0};
    for (int64_t t = 0; t < T_; ++t) {
        if (t > bounds.back() && offset_[t + 1] - offset_[bounds.back()] > rows) bounds.push_back(t);
    }
    if (T_ > 0) bounds.push_back(T_);
    return bounds;
}

}  // namespace rnncore
