#include "plan.hpp"

#include <algorithm>
#include <numeric>

namespace rnncore {

Plan::Plan(const Layout& layout, Span rows)
    : N_(rows.end - rows.begin), step_stride_(layout.batch_first ? 1 : layout.N) {
    const Piece* pieces = layout.pieces;
    const Ragged* ragged = layout.ragged;
    const int64_t* lengths = pieces ? nullptr : layout.lengths;
    const auto length_of = [=](int64_t row) { return pieces ? pieces[row].length : lengths ? lengths[row] : layout.T; };
    std::vector<int64_t> sorted;
    const int64_t* order = ragged && !pieces ? ragged->order.data() : nullptr;
    if (lengths && !order) {
        sorted.resize(static_cast<size_t>(layout.N));
        std::iota(sorted.begin(), sorted.end(), int64_t{0});
        std::stable_sort(sorted.begin(), sorted.end(), [=](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
        order = sorted.data();
    }
    const auto row_of = [=](int64_t n) { return order ? order[rows.begin + n] : rows.begin + n; };
    for (int64_t n = 0; n < N_; ++n) {
        const int64_t length = length_of(row_of(n));
        T_ = std::max(T_, length);
        R_ += length;
    }
    memory_.resize(4 * N_ + 2 * T_ + 1 + R_);
    length_ = memory_.data();
    order_ = length_ + N_;
    first_row_ = order_ + N_;
    padding_ = first_row_ + N_;
    count_ = padding_ + N_;
    offset_ = count_ + T_;
    caller_row_ = offset_ + T_ + 1;

    for (int64_t n = 0; n < N_; ++n) {
        const int64_t row = row_of(n);
        order_[n] = row;
        length_[n] = length_of(row);
        const int64_t of = pieces ? pieces[row].row : row, begin = pieces ? pieces[row].begin : 0;
        first_row_[n] = ragged ? ragged->sequence[static_cast<size_t>(of)] : layout.caller_row(of, begin);
        padding_[n] = pieces ? pieces[row].padding : ragged ? 0 : layout.T - length_[n];
    }
    for (int64_t t = 0, n = N_; t < T_; ++t) {
        while (length_[n - 1] <= t) --n;
        count_[t] = n;
        offset_[t + 1] = offset_[t] + n;
    }

    int64_t* out = caller_row_;
    for (int64_t t = 0; t < T_; ++t) {
        for (int64_t n = 0; n < count_[t]; ++n) {
            const int64_t step = layout.reverse ? length_[n] - 1 - t : t;
            if (ragged) {
                const int64_t begin = pieces ? pieces[order_[n]].begin : 0;
                *out++ = first_row_[n] + ragged->step[static_cast<size_t>(begin + step)];
            } else {
                *out++ = first_row_[n] + step * step_stride_;
            }
        }
    }
}

Batch Plan::batch() const {
    return {T_, N_, R_, count_, offset_, caller_row_, order_};
}

std::vector<int64_t> Plan::previous_rows(const std::vector<int64_t>& segments) const {
    std::vector<int64_t> rows(R_);
    for (size_t s = 1; s < segments.size(); ++s) {
        const int64_t begin = segments[s - 1];
        for (int64_t t = begin; t < segments[s]; ++t) {
            const int64_t first = t > begin ? N_ + offset_[t - 1] - offset_[begin] : 0;
            std::iota(rows.begin() + offset_[t], rows.begin() + offset_[t + 1], first);
        }
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

int64_t Plan::alive(int64_t t, Span rows) const {
    return t < T_ ? std::max<int64_t>(std::min(count_[t], rows.end) - rows.begin, 0) : 0;
}

int64_t Plan::chunk_end(int64_t t, Span rows, int64_t limit) const {
    const int64_t last = steps(rows);
    for (int64_t taken = 0; t < last; ++t) {
        const int64_t n = alive(t, rows);
        if (taken > 0 && taken + n > limit) break;
        taken += n;
    }
    return t;
}

std::vector<int64_t> Plan::chunks(int64_t limit) const {
    std::vector<int64_t> bounds{0};
    while (bounds.back() < T_) bounds.push_back(chunk_end(bounds.back(), {0, N_}, limit));
    return bounds;
}

std::vector<int64_t> Plan::segments(int64_t limit, int64_t steps) const {
    std::vector<int64_t> bounds{0};
    for (const int64_t end : chunks(limit)) {
        if (end > bounds.back() && (end - bounds.back() >= steps || end == T_)) bounds.push_back(end);
    }
    return bounds;
}

}  // namespace rnncore
