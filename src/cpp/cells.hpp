// Cells by name, what a layer may add to them, and what they take of the engine for it. Plain structs, like api.hpp,
// whose letters these are.
#pragma once

#include <cstdint>

namespace rnncore {

enum class Cell : int {
    rnn_tanh,
    rnn_relu,
    lstm,
    gru,
    slstm,
    // those that take Options
    rnn_rows,
    lstm_rows,
    lstm_coupled,
    gru_rows,
    gru_before,
    mgu,
    // those without a product
    ind_rnn_relu,
    ind_rnn_tanh,
    min_gru,
    min_lstm,
    sru,
    qrnn,
    lru,
    lru_complex,
};
inline constexpr int kCells = 19;
inline constexpr int kMaxStates = 4;
inline constexpr int kMaxProducts = 2;

enum class Activation : int {
    none,
    tanh,
    sigmoid,
    relu,
    hard_sigmoid,
    softsign,
    affine,
    leaky_relu,
    thresholded_relu,
    scaled_tanh,
    elu,
    softplus,
};
inline constexpr int kActivations = 12;
inline constexpr int kPlainActivations = 4;  // those in front, which affine layers have

// An activation and its parameters, if it has any.
struct Curve {
    Activation kind;
    double alpha, beta;
};

// What a layer adds to its cell's equations, if the cell works row by row (kernels/rowwise.hpp). Others ignore it.
struct Options {
    Curve activation{Activation::tanh, 0, 0};               // in the place of tanh
    Curve recurrent_activation{Activation::sigmoid, 0, 0};  // in the place of the sigmoid of gates
    bool peephole = false;
    bool layer_norm = false;
    double gate_clip = 0, cell_clip = 0;  // bounds of what goes into a gate and of the cell state; 0 for none
    // h' = h + take (h~ - h), where h~ is what the cell makes of h: a constant, times an element of a mask if there is
    // one. Likewise c.
    double take[2] = {1, 1};
};

// A product of a step: rows (K) times weights (columns, K), which are the rows from `first` on of w_hh, or w_hr.
struct Product {
    int64_t K, columns, first;
    bool projects;
};

// What a layer of a cell with some options takes.
struct Needs {
    int64_t state[kMaxStates];  // sizes of the states of a row
    bool carry[kMaxStates];     // whether part of their gradients reaches the state before not through products
    bool split_gradient;        // whether du differs from dx
    int products;               // the first multiplies h
    Product product[kMaxProducts];
    int64_t saved;         // numbers that forward leaves for backward, of a row and step, besides states and operands
    int64_t vectors;       // numbers of the parameters that are not matrices
    int64_t forward_row;   // numbers of workspace for each row of a step,
    int64_t forward_once;  // and for all of them
    int64_t backward_row;  // likewise
    int64_t backward_once;
};

}  // namespace rnncore
