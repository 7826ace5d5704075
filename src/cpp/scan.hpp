// Whole calls of the linear scan, h_t = a_t h_{t-1} + b_t elementwise, forward and backward: cuts the work by
// sequences, by channels and, where it is told to, by chunks of steps, and lends the kernels their workspace; does no
// arithmetic of its own.
#pragma once

#include "api.hpp"

namespace rnncore {

// What a call is about, and what it reads. Complex numbers are pairs of reals; C counts reals.
template <class T>
struct LinearScan {
    int64_t N, T_, C;
    bool is_complex, constant, reverse;
    const int64_t* lengths;  // (N) or null: all steps
    int64_t chunk;           // steps of a chunk, or 0: sequences are scanned as they are
    const T* a;              // (N, T, C), or (C) if constant
    const T* first;          // (N, C) or null for zeros
};

// y (N, T, C), 0 at padded steps, and the last states (N, C).
//
// With chunks, what each does to a state is found for all at once: h = P first + S, P the product of its factors and S
// its last state after zeros. From these come the states between chunks, in order, and from those the steps. So y
// differs from that of a plain scan by the rounding of P and S, whatever the number of threads.
template <class T>
void linear_scan(const KernelTable& table, const LinearScan<T>& call, const T* b, T* y, T* last);

// Gradients, of complex numbers (re, im) as those of two reals.
template <class T>
struct LinearScanGradients {
    T* a;      // as a, 0 at padded steps
    T* b;      // (N, T, C), 0 at padded steps
    T* first;  // (N, C)
};

// y is that of the call, which is not run again. dy (N, T, C), dlast (N, C) or null for zeros.
template <class T>
void linear_scan_backward(const KernelTable& table, const LinearScan<T>& call, const T* y, const T* dy, const T* dlast,
                          const LinearScanGradients<T>& gradients);

}  // namespace rnncore
