// How one call's batch becomes packed rows (api.hpp): sorted by length, stored step by step, each row with the row of
// the caller's arrays it came from.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "api.hpp"

namespace rnncore {

// A batch as the caller has it: x is (N, T, I) or (T, N, I), row n has lengths[n] steps, all T if lengths is null.
struct Layout {
    int64_t N, T;
    bool batch_first;
    bool reverse;  // each row is read from its own last step to its first
    const int64_t* lengths;
};

class Plan {
public:
    explicit Plan(const Layout& layout);

    Batch batch() const;
    bool padded() const { return padded_; }                 // whether some steps are not computed
    int64_t length(int64_t n) const { return length_[n]; }  // of sorted row n
    // Row of a kept state buffer that holds the state before each packed row's step.
    std::vector<int64_t> previous_rows() const;
    // Sorted rows in at most `parts` slices with about the same number of packed rows: boundaries, first 0, last N.
    std::vector<int64_t> slices(int parts) const;
    // Steps in runs of about `rows` packed rows, at least one step each: boundaries, first 0, last T.
    std::vector<int64_t> chunks(int64_t rows) const;

private:
    int64_t T_ = 0, N_, R_ = 0;
    bool padded_ = false;
    std::vector<int64_t> length_, order_, count_, offset_, caller_row_;
};

}  // namespace rnncore
