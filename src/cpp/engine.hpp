// Whole calls: one layer in one direction, forward or backward. Cuts the work into tasks for the threads and lends the
// kernels their workspace; does no arithmetic of its own.
#pragma once

#include "api.hpp"
#include "memory.hpp"
#include "plan.hpp"

namespace rnncore {

// What a layer is made of. Biases and initial states may be null, which stands for zeros.
template <class T>
struct Layer {
    Cell cell;
    int64_t I, H;
    const T* x;                  // (caller rows, I)
    const T* w_ih;               // (G*H, I)
    const T* w_hh;               // (G*H, H)
    const T* b_ih;               // (G*H)
    const T* b_hh;               // (G*H)
    const T* first[kMaxStates];  // (N, H)
};

template <class T>
struct Output {
    T* y;                 // (caller rows, H)
    T* last[kMaxStates];  // (N, H)
};

template <class T>
struct Gradients {
    T* x;                  // (caller rows, I)
    T* w_ih;               // (G*H, I)
    T* w_hh;               // (G*H, H)
    T* b_ih;               // (G*H)
    T* b_hh;               // (G*H)
    T* first[kMaxStates];  // (N, H)
};

// What backward needs of a forward pass besides the layer's arrays. Never written again, so backward can run many
// times, on many threads.
template <class T>
struct Tape {
    const KernelTable* kernels;  // the layout of `saved` is that of one instruction set
    Plan plan;
    Array<T> states[kMaxStates];  // (N + R, H)
    Array<T> saved;               // (R, saved * H)
};

template <class T>
void forward(const Layer<T>& layer, const Layout& layout, const Output<T>& output);

template <class T>
Tape<T> forward_for_training(const Layer<T>& layer, const Layout& layout, const Output<T>& output);

// dy and dlast may be null, which stands for zeros.
template <class T>
void backward(const Layer<T>& layer, const Layout& layout, const Tape<T>& tape, const Output<const T>& cotangents,
              const Gradients<T>& gradients);

// Number of gates and of states of a cell.
int gates_of(Cell cell);
int states_of(Cell cell);

}  // namespace rnncore
