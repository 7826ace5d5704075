// Gradients of weights and biases from all rows at once: for passes over time whose gradients of gates are all kept.
#pragma once

#include <vector>

#include "api.hpp"

namespace rnncore {

// weight = b' a and bias = the column sums of b, over rows: a's are those that a_row names.
template <class T>
struct WeightSum {
    int64_t K;             // columns of a
    const T* a;            // (any, K)
    const int64_t* a_row;  // (rows)
    int64_t columns, b_stride;
    const T* b;  // (rows, b_stride)
    T* weight;   // (columns, K)
    T* bias;     // (columns) or null
};

template <class T>
void sum_weights(const KernelTable& table, int64_t rows, const std::vector<WeightSum<T>>& sums);

}  // namespace rnncore
