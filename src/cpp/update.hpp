// Steps of optimisers over flat vectors, and the norm of gradients, on as many threads as the vectors are worth. No
// result depends on their number.
#pragma once

#include "api.hpp"

namespace rnncore {

// Adam's step number `step`, counted from 1. decoupled: weight decay as in AdamW.
Adam adam_rule(double rate, double beta1, double beta2, double eps, double weight_decay, bool decoupled, int64_t step);

template <class T>
void step(const Sgd& rule, const Update<T>& update, int64_t n);
template <class T>
void step(const Rmsprop& rule, const Update<T>& update, int64_t n);
template <class T>
void step(const Adam& rule, const Update<T>& update, int64_t n);

// The Euclidean norm, summed in float64; gradients whose norm is finite and larger than max_norm are scaled to that.
template <class T>
double clip_norm(T* gradients, int64_t n, double max_norm);

}  // namespace rnncore
