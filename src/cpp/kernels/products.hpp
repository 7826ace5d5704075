// Products of rows with whole results in rows of memory. They are long functions, of which all cells share these.
#pragma once

#include "../api.hpp"
#include "gemm.hpp"
#include "unpacked.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// How many of these sorted rows are alive at step t.
inline int64_t alive(const Batch& batch, int64_t t, Span rows) {
    if (t >= batch.T) return 0;
    const int64_t n = least(batch.count[t], rows.end) - rows.begin;
    return n > 0 ? n : 0;
}

// Rows that lie `stride` apart, or at pointers.
template <class T>
struct Rows {
    const T* first;
    int64_t stride;
    const T* const* at = nullptr;
    const T* operator()(int64_t i) const { return at ? at[i] : first + i * stride; }
};

// A product by itself, of which no more than its sizes matter.
inline Product product_of(int64_t K, int64_t columns) {
    Product product{};
    product.K = K, product.columns = columns;
    return product;
}

// out[i] = a[i] times weights (columns, K), packed or as the caller has them, plus a bias; a is given by its rows
template <class T>
[[gnu::noinline]] void multiply_into(int64_t rows, const Product& product, bool packed, const T* w, const T* bias,
                                     Rows<T> a_row, T* out, Order order) {
    T scratch[kScratchSize<T>];
    const Panels panels = column_panels<T>(product.columns);
    const auto out_row = [=](int64_t i) { return out + i * product.columns; };
    const StoreRows<T, decltype(out_row)> sink{product.columns, out_row, {panels, scratch}};
    if (packed) {
        multiply(rows, product.K, panels, panels.all(), w, bias, a_row, sink, order);
    } else if (rows > 0) {
        multiply_unpacked(rows, product.K, product.columns, panels, panels.all(), w, bias, a_row, sink);
    }
}

// out[index[i]] = du[i] times the same weights (columns, K), packed by pack_columns or with a stride; du (rows, stride)
template <class T>
[[gnu::noinline]] void multiply_back(int64_t rows, const Product& product, const T* w, int64_t w_stride, const T* du,
                                     int64_t du_stride, const int64_t* index, T* out, Order order) {
    T scratch[kScratchSize<T>];
    const Panels panels = column_panels<T>(product.K, w_stride);
    const auto out_row = [=, K = product.K](int64_t i) { return out + (index ? index[i] : i) * K; };
    multiply(
        rows, product.columns, panels, panels.all(), w, static_cast<const T*>(nullptr),
        [=](int64_t i) { return du + i * du_stride; },
        StoreRows<T, decltype(out_row)>{product.K, out_row, {panels, scratch}}, order);
}

// The gradient of h before a step, as far as it comes through the first product: du U, times the mask that h was
// multiplied by; of rows whose sequence ends, the gradient of their final state. Row i goes to out[index[i]].
template <class T>
[[gnu::noinline]] void recurrent_gradient(const Backward<T>& task, const Product& product, int64_t first_row,
                                          int64_t continuing, int64_t all, const T* du, const int64_t* index, T* out,
                                          Order order) {
    const int64_t P = task.P;
    const int64_t* caller = task.batch.order + first_row;
    multiply_back(continuing, product, task.u[0], task.u_stride[0], du, task.du_stride[0], index, out, order);
    for (int64_t i = 0; i < all; ++i) {
        T* row = out + (index ? index[i] : i) * P;
        if (i < continuing) {
            const T* mask = task.recurrent_mask ? task.recurrent_mask + caller[i] * P : nullptr;
            if (!mask) continue;
            each_vector<T>(
                P, [=](int64_t p, auto part) { store(row + p, load(mask + p, part) * load(row + p, part), part); });
        } else if (task.dlast[0]) {
            __builtin_memcpy(row, task.dlast[0] + caller[i] * P, sizeof(T) * P);
        } else {
            __builtin_memset(row, 0, sizeof(T) * P);
        }
    }
}

// What is left at the first step: the gradients of the initial states.
template <class T>
[[gnu::noinline]] void gradients_of_first_states(const Backward<T>& task, const Needs& needs, Span rows) {
    const FlushDenormals guard;
    const int64_t* order = task.batch.order + rows.begin;
    const int64_t all = rows.end - rows.begin;
    recurrent_gradient<T>(task, needs.product[0], rows.begin, alive(task.batch, 0, rows), all,
                          task.du_next + rows.begin * task.du_stride[0], order, task.dfirst[0], Order::ascending);
    for (int64_t i = 0; i < all; ++i) {
        if (needs.carry[0]) {
            const int64_t size = needs.state[0];
            T* dh = task.dfirst[0] + order[i] * size;
            const T* carry = task.carry[0] + (rows.begin + i) * size;
            each_vector<T>(
                size, [&](int64_t p, auto part) { store(dh + p, load(dh + p, part) + load(carry + p, part), part); });
        }
        for (int s = 1; s < kMaxStates && needs.state[s] > 0; ++s) {
            const int64_t size = needs.state[s];
            __builtin_memcpy(task.dfirst[s] + order[i] * size, task.carry[s] + (rows.begin + i) * size,
                             sizeof(T) * size);
        }
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
