// Whole calls of many networks of one shape, each with weights of its own: gives threads whole networks where there are
// enough of them, and otherwise runs them in turn. Every network has the bits of a call of its own.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine.hpp"
#include "linear.hpp"

namespace rnncore {

// Something of every network: that of network m begins m * stride elements after that of network 0. With stride 0 it is
// one thing that all share.
template <class T>
struct PerNetwork {
    T* first = nullptr;  // null: none of them has any
    int64_t stride = 0;
    T* of(int64_t m) const { return first ? first + m * stride : nullptr; }
};

// One layer in one direction.
template <class T>
struct ManyWeights {
    Spec spec;
    int64_t I, H, P;
    PerNetwork<const T> w_ih, w_hh, b_ih, b_hh, w_inner, b_inner, vectors;
    Weights<T> of(int64_t m) const {
        return {spec,         I, H, P, w_ih.of(m), w_hh.of(m), b_ih.of(m), b_hh.of(m), w_inner.of(m), b_inner.of(m),
                vectors.of(m)};
    }
};

// M > 0 networks.
template <class T>
struct Networks {
    int64_t M;
    int directions;
    std::vector<ManyWeights<T>> passes;                   // as those of a stack
    std::shared_ptr<const std::vector<Stack<T>>> packed;  // of all networks; or null: then a call packs what it runs

    Stack<T> stack(int64_t m, int64_t rows_of_single_step) const;
    // The same in a stack that had another network: where weights stay as they are, only pointers change.
    void turn_to(int64_t m, int64_t rows_of_single_step, std::optional<Stack<T>>& stack) const;
    void pack();
};

struct ManyLayouts {
    int64_t N, T;
    bool batch_first, reverse;
    PerNetwork<const int64_t> lengths;
    bool shared() const { return lengths.stride == 0; }
    Layout of(int64_t m) const { return {N, T, batch_first, reverse, lengths.of(m)}; }
};

template <class T>
struct ManyInputs {
    PerNetwork<const T> x, first[kMaxStates];  // no tokens
    Input<T> of(int64_t m) const { return {x.of(m), {first[0].of(m), first[1].of(m), first[2].of(m), first[3].of(m)}}; }
};

template <class T>
struct ManyOutputs {
    PerNetwork<T> y, last[kMaxStates];
    Output<T> of(int64_t m) const { return {y.of(m), {last[0].of(m), last[1].of(m), last[2].of(m), last[3].of(m)}}; }
};

template <class T>
struct ManyGradients {
    PerNetwork<T> x, w_ih, w_hh, b_ih, b_hh, w_inner, b_inner, vectors, first[kMaxStates];
    Gradients<T> of(int64_t m) const {
        return {x.of(m),       w_ih.of(m),    w_hh.of(m),
                b_ih.of(m),    b_hh.of(m),    w_inner.of(m),
                b_inner.of(m), vectors.of(m), {first[0].of(m), first[1].of(m), first[2].of(m), first[3].of(m)}};
    }
};

template <class T>
void forward(const Networks<T>& networks, const ManyLayouts& layouts, const ManyInputs<T>& inputs,
             const ManyOutputs<T>& outputs);

// Of networks of one pass: the tapes of all.
template <class T>
std::vector<Tape<T>> forward_for_training(const Networks<T>& networks, const ManyLayouts& layouts,
                                          const ManyInputs<T>& inputs, const ManyOutputs<T>& outputs,
                                          int64_t checkpoint_every);

// The gradient of an x that all share is the sum of theirs, network after network.
template <class T>
void backward(const Networks<T>& networks, const ManyLayouts& layouts, const ManyInputs<T>& inputs,
              const std::vector<Tape<T>>& tapes, const ManyOutputs<const T>& cotangents,
              const ManyGradients<T>& gradients);

// Affine layers with the rows of each, or those of all.
template <class T>
struct ManyLinears {
    int64_t M, I, O;
    Activation activation;
    std::vector<Rows> rows;  // one, or M
    PerNetwork<const T> x, weight, bias;
    PerNetwork<T> y;
    const Rows& rows_of(int64_t m) const { return rows[rows.size() == 1 ? 0 : static_cast<size_t>(m)]; }
    Linear<T> of(int64_t m) const {
        return {I, O, activation, nullptr, x.of(m), false, weight.of(m), bias.of(m), y.of(m), O};
    }
};

template <class T>
struct ManyLinearGradients {
    PerNetwork<T> x, weight, bias;
};

template <class T>
void linear_forward(const KernelTable& table, const ManyLinears<T>& layers);

// The gradient of a shared x as in `backward`.
template <class T>
void linear_backward(const KernelTable& table, const ManyLinears<T>& layers, PerNetwork<const T> dy,
                     const ManyLinearGradients<T>& gradients);

}  // namespace rnncore
