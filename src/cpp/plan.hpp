// How one call's batch becomes packed rows (api.hpp): sorted by length, stored step by step, each row with the row of
// the caller's arrays it came from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "api.hpp"

namespace rnncore {

// Steps [begin, begin + length) of a row, run by themselves from a state of their own (pieces.hpp).
struct Piece {
    int64_t row, begin, length;
    int64_t padding;  // steps of the row after it that are not computed
};

// Sequences in arrays of rows (R, ...) without padding, where step t of sequence n is row step[t] + sequence[n].
struct Ragged {
    std::vector<int64_t> lengths;   // (N)
    std::vector<int64_t> sequence;  // (N)
    std::vector<int64_t> step;      // (T)
    std::vector<int64_t> order;     // (N) the sequences, the longest first
    int64_t R = 0;
};

// A batch as the caller has it: x is (N, T, I) or (T, N, I), row n has lengths[n] steps, all T if lengths is null. Or x
// is (R, I), as `ragged` says; N, T and lengths are those of it then.
struct Layout {
    int64_t N, T;
    bool batch_first;
    bool reverse;  // each row is read from its own last step to its first
    const int64_t* lengths;
    const Ragged* ragged = nullptr;
    const Piece* pieces = nullptr;  // (piece_count) the longest first, or null: what is run in place of whole rows
    int64_t piece_count = 0;

    int64_t caller_rows() const { return ragged ? ragged->R : N * T; }
    // The caller's row of step t of row n.
    int64_t caller_row(int64_t n, int64_t t) const {
        if (ragged) return ragged->sequence[static_cast<size_t>(n)] + ragged->step[static_cast<size_t>(t)];
        return batch_first ? n * T + t : t * N + n;
    }
    // Sequences that are run: rows of the states that the engine takes and gives.
    int64_t sequences() const { return pieces ? piece_count : N; }
};

class Plan {
public:
    explicit Plan(const Layout& layout) : Plan(layout, {0, layout.sequences()}) {}
    Plan(const Layout& layout, Span rows);  // of these sorted rows alone
    Plan(const Plan&) = delete;
    Plan(Plan&&) = default;  // (the pointers stay valid: the block moves as a whole)

    Batch batch() const;
    int64_t length(int64_t n) const { return length_[n]; }  // of sorted row n
    // How many of these sorted rows are alive at step t, and how many steps they live in all.
    int64_t alive(int64_t t, Span rows) const;
    int64_t steps(Span rows) const { return rows.begin < rows.end ? length_[rows.begin] : 0; }
    // Where a chunk of steps that begins at t ends, of at most `limit` packed rows of these rows, but one step at
    // least.
    int64_t chunk_end(int64_t t, Span rows, int64_t limit) const;
    // Row of a kept state buffer that holds the state before each packed row's step, where each of these segments has a
    // buffer of its own.
    std::vector<int64_t> previous_rows(const std::vector<int64_t>& segments) const;
    // Sorted rows in at most `parts` slices with about the same number of packed rows: boundaries, first 0, last N.
    std::vector<int64_t> slices(int parts) const;
    // All steps in such chunks: boundaries, first 0, last T.
    std::vector<int64_t> chunks(int64_t limit) const;
    // All steps in segments, each of whole chunks, as many as have at least so many steps: boundaries likewise.
    std::vector<int64_t> segments(int64_t limit, int64_t steps) const;
    // Zeros at the steps that are not computed, in an array (caller rows, width).
    template <class T>
    void clear_padding(T* array, int64_t width) const {
        for (int64_t n = 0; n < N_; ++n) {
            for (int64_t t = length_[n]; t < length_[n] + padding_[n]; ++t) {
                std::fill_n(array + (first_row_[n] + t * step_stride_) * width, width, T{0});
            }
        }
    }

private:
    int64_t T_ = 0, N_, R_ = 0;
    int64_t step_stride_;          // of the caller's arrays
    std::vector<int64_t> memory_;  // one block for all of these, whose meaning is that in Batch,
    int64_t *length_, *order_, *count_, *offset_, *caller_row_;
    int64_t *first_row_, *padding_;  // (N) the caller's row of the first step (or Ragged::sequence), steps not computed
};

}  // namespace rnncore
