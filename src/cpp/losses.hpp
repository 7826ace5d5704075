// Losses of whole batches that have kernels, with their gradients: softmax cross-entropy and CTC. A loss is a weighted
// mean over what counts: steps in cross_entropy.cpp, sequences in ctc.cpp. What does not count is never read.
#pragma once

#include <cstdint>

namespace rnncore {

struct Mean {
    double value;   // 0 if nothing counts
    double weight;  // sum of the weights that the value is a mean over
};

template <class T>
struct CrossEntropyBatch {
    int64_t N, steps, C;
    const T* outputs;        // (N, steps, C)
    const int64_t* classes;  // (N, steps); or null
    const T* probabilities;  // (N, steps, C), if there are no classes
    const int64_t* lengths;  // (N) or null: all steps count
    const double* weights;   // (N, steps), or (N) unless there is one for each step; null: 1
    bool step_weights;
    const int64_t* ignored_class;  // null if none is
    double smoothing;
    T* gradient;  // (N, steps, C) or null: of the mean, zero at steps that do not count
};

// Throws std::invalid_argument if a class that counts is not in [0, C).
template <class T>
Mean cross_entropy(const CrossEntropyBatch<T>&);

template <class T>
struct CtcBatch {
    int64_t N, steps, C, labels, blank;
    const T* outputs;               // (N, steps, C)
    const int64_t* targets;         // (N, labels)
    const int64_t* target_lengths;  // (N)
    const int64_t* lengths;         // (N) or null: all steps
    const double* weights;          // (N) or null: 1
    bool zero_infinity;
    T* gradient;  // (N, steps, C) or null: of the mean, zero at padded steps
};

// Each sequence's loss is divided by the number of its labels, if it has any. Throws std::invalid_argument if a label
// that counts is not in [0, C) or is blank.
template <class T>
Mean ctc(const CtcBatch<T>&);

}  // namespace rnncore
