// Whole calls of decoders with attention: recurrent layers whose time loop has an attention in it, since what it finds
// at one step is read at the next (Bahdanau et al. 2015; Luong et al. 2015). Forward and backward run all steps of a
// slice of rows on one thread.
//
//   Feed::nothing   h_t = cell(x_t)              c_t = attend(h_t)      y_t = tanh(W_c [c_t; h_t] + b_c)
//   Feed::output    h_t = cell([x_t; y_{t-1}])   c_t and y_t likewise
//   Feed::context   c_t = attend(h_{t-1})        h_t = cell([x_t; c_t])      y_t likewise
//
// The query is h_t or h_{t-1} of the top layer, or W_q times it.
#pragma once

#include <vector>

#include "engine.hpp"

namespace rnncore {

enum class Feed : int { nothing, output, context };

template <class T>
struct DecoderWeights {
    std::vector<Weights<T>> layers;  // of which the first reads I numbers and what is fed
    Score score;
    Feed feed;
    int64_t I, E, A, C;      // numbers of x, of the memory, of a query, of y
    const T* w_q = nullptr;  // (A, P), or null for `dot`, where A is P
    const T* w_c;            // (C, E + P)
    const T* b_c;            // (C)
    const T* v = nullptr;    // (A) of `additive`

    int64_t P() const { return layers[0].P; }
    int64_t fed() const { return feed == Feed::nothing ? 0 : feed == Feed::output ? C : E; }
};

// The same, packed. Never written again.
template <class T>
struct Decoder {
    explicit Decoder(const DecoderWeights<T>& weights);

    Stack<T> stack;
    Score score;
    Feed feed;
    int64_t I, E, A, C, fed;
    Array<T> memory;
    T *w_q, *w_c, *b_c, *v;
};

// Initial states, of each layer, and what is fed at first may be null, which stands for zeros.
template <class T>
struct DecoderInput {
    const T* x;                  // (N, T, I)
    const T* first[kMaxStates];  // (layers, N, state)
    const T* first_fed;          // (N, C) of Feed::output
    int64_t S;
    const T* memory;               // (sources, S, E)
    const T* keys;                 // (sources, S, A); null for `location`
    const int64_t* source_length;  // (sources)
    const int64_t* source;         // (N) of each row; null if row n has source n
};

template <class T>
struct DecoderOutput {
    T* y;                 // (N, T, C)
    T* weights;           // (N, T, S) of the attention; as backward reads them
    T* last[kMaxStates];  // (layers, N, state)
    T* last_fed;          // (N, C) of Feed::output, or null
};

// What backward needs besides the arrays of the call: packed rows of all steps.
template <class T>
struct DecoderTape {
    const KernelTable* kernels;
    Plan plan;
    std::vector<Kept<T>> kept;     // of each layer
    std::vector<Array<T>> inputs;  // of each layer, (R, its I)
    Array<T> combined;             // (R, E + P)
    Array<T> y;                    // (R, C)
    Array<T> queries;              // (R, A), unless they are h itself
};

template <class T>
struct DecoderGradients {
    T* x;                              // (N, T, I)
    std::vector<Gradients<T>> layers;  // x not used; `first` of (N, state)
    T *w_q, *w_c, *b_c, *v;            // as the weights
    T* memory;                         // (N, S, E)
    T* keys;       // (N, S, A), of `dot` where the keys are not the memory, and of `additive`; or null
    T* first_fed;  // (N, C) of Feed::output
};

// Layout: batch first, lengths or not, nothing else.
template <class T>
void decode(const Decoder<T>& decoder, const Layout& layout, const DecoderInput<T>& input,
            const DecoderOutput<T>& output);

template <class T>
DecoderTape<T> decode_for_training(const Decoder<T>& decoder, const Layout& layout, const DecoderInput<T>& input,
                                   const DecoderOutput<T>& output);

// Row n must have had source n. dy, dlast and dlast_fed may be null; weights are those that forward wrote.
template <class T>
void decode_backward(const DecoderWeights<T>& weights, const DecoderInput<T>& input, const DecoderTape<T>& tape,
                     const DecoderOutput<const T>& cotangents, const DecoderGradients<T>& gradients);

}  // namespace rnncore
