// How many threads a call is worth, and how a pass over time is cut for them. Nothing here changes a result.
#pragma once

#include <cstdint>

namespace rnncore {

// Threads worth waking for so many multiply-adds, for packing so many weights, or for reading and writing so many
// bytes.
int threads_for(double multiply_adds);
int threads_for_packing(int64_t elements);
int threads_for_traffic(int64_t bytes);

// A pass over time is cut along its rows, and each thread runs all steps of its own; or along its hidden units, where
// each thread keeps its share of U in its own cache, and all wait for each other at every step.
struct Cut {
    int rows;        // slices of rows
    int units;       // slices of hidden units; more than 1 only if there is one slice of rows
    double step_ns;  // what a step of the pass takes by the model, all slices together
};

// rows: of a step. weights: bytes of U. panels: of hidden units, as many slices of units as there can be.
Cut cut_pass(int threads, int64_t rows, double weight_bytes, int64_t panels);

}  // namespace rnncore
