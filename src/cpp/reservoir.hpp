// Whole calls of a reservoir: its weights packed once, and series taken through it, side by side where there are
// several, and each on one thread.
#pragma once

#include <vector>

#include "api.hpp"
#include "memory.hpp"

namespace rnncore {

// The caller's weights. W is compressed by rows (CSR): row i has data[indptr[i]:indptr[i + 1]] at as many columns.
struct ReservoirWeights {
    int64_t I, H;
    double leak;
    const double* w_in;      // (H, I)
    const double* bias;      // (H) or null
    const double* data;      // (nonzeros)
    const int64_t* indices;  // (nonzeros) of columns, in [0, H), ascending in each row
    const int64_t* indptr;   // (H + 1)
};

// Series one after the other.
struct ReservoirSeries {
    int64_t N;
    const int64_t* lengths;  // (N) their sum is R
    const double* x;         // (R, I)
    const double* first;     // (N, H) initial states, or null for zeros
    double* states;          // (R, H)
    double* last;            // (N, H)
};

// Packed for the instruction set that is in use when it is made; never changes.
class PackedReservoir {
public:
    explicit PackedReservoir(const ReservoirWeights& weights);
    PackedReservoir(const PackedReservoir&) = delete;
    PackedReservoir& operator=(const PackedReservoir&) = delete;

    int64_t inputs() const { return I_; }
    int64_t units() const { return net_.H; }
    int64_t diagonals() const { return net_.D; }  // 0 where W is not made of cyclic diagonals

    // What a series makes depends on nothing but the series and its initial state: not on threads, nor on other series,
    // nor on whether it comes in one call or in several.
    void run(const ReservoirSeries& series) const;

private:
    void pack_diagonals(const ReservoirWeights& weights);
    void pack_rows(const ReservoirWeights& weights);
    // The rows at which series begin, and memory for workspace_size numbers.
    struct Place {
        const ReservoirSeries& series;
        const int64_t* begin;
        double* workspace;
    };
    int64_t workspace_size() const;
    // The first steps of up to L series, side by side.
    void run_lanes(const Place& place, const int64_t* which, int64_t count, int64_t steps) const;
    // Series n alone, from step t on; the states before that are there.
    void run_one(const Place& place, int64_t n, int64_t t) const;
    void make_pre(int64_t count, const double* x, double* states) const;

    const KernelTable* kernels_;
    int64_t I_;
    Reservoir<double> net_{};
    Array<double> w_in_, bias_, values_;
    std::vector<int64_t> shift_, diagonals_, place_, begin_;
    std::vector<int32_t> columns_;
};

}  // namespace rnncore
