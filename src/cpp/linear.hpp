// Whole calls of an affine layer, y = act(x W' + b), forward and backward: cuts the work into tasks for the threads and
// lends the kernels their workspace; does no arithmetic of its own.
#pragma once

#include <algorithm>
#include <vector>

#include "api.hpp"

namespace rnncore {

// Which rows of the caller's arrays a call computes. The others are neither read nor, but for zeros, written.
class Rows {
public:
    explicit Rows(int64_t all);                          // each of them
    Rows(int64_t N, int64_t T, const int64_t* lengths);  // of (N, T), the first lengths[n] of each n
    int64_t count() const { return static_cast<int64_t>(index_.size()); }
    int64_t all() const { return all_; }
    const int64_t* index() const { return index_.data(); }  // ascending

    template <class T>
    void zero_others(T* out, int64_t columns) const {  // out (all, columns)
        if (count() == all_) return;
        int64_t next = 0;
        const auto zero_up_to = [&](int64_t row) {
            std::fill(out + next * columns, out + row * columns, T{0});
            next = row + 1;
        };
        for (const int64_t row : index_) zero_up_to(row);
        zero_up_to(all_);
    }

private:
    int64_t all_;
    std::vector<int64_t> index_;
};

template <class T>
struct LinearGradients {
    T* x;       // (caller rows, I)
    T* weight;  // (O, I)
    T* bias;    // (O)
};

// The layer's arrays are as the caller has them; its caller_row is not read, that of `rows` takes its place.
template <class T>
void linear_forward(const KernelTable& table, const Rows& rows, const Linear<T>& layer);

// y of the layer is read if it has an activation, bias never.
template <class T>
void linear_backward(const KernelTable& table, const Rows& rows, const Linear<T>& layer, const T* dy,
                     const LinearGradients<T>& gradients);

}  // namespace rnncore
