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
// Of a step: of a transition of eight steps of a cell with one product, or four of one with two, and its shortcut.
inline constexpr int kMaxProducts = 9;

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
    // A deep transition: the cell's own step so many times, the others without an input, each with weights and vectors
    // of its own. With a shortcut, the input of the last is a product of the state before the step.
    int depth = 1;
    bool shortcut = false;
};

// A product of a step: rows (K) times weights (columns, K).
struct Product {
    int64_t K, columns;
    int64_t first;     // its weights are the rows from here on of w_hh; or, if it is an inner product, whose result has
                       // no W x beside it, of w_inner,
    bool inner, bias;  // and so its bias, if it has one
    int operand;       // the product whose operand it multiplies: its own, or the first, of which that is h
    // The gradients of its result have this many columns of their own, or, if 0, lie where those of the product before
    // it do (before all, in the gradients of gates), and begin at the column `at` there.
    int64_t own, at;
};

// What a layer of a cell with some options takes.
struct Needs {
    int64_t state[kMaxStates];  // sizes of the states of a row
    bool carry[kMaxStates];     // whether part of their gradients reaches the state before not through products
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
