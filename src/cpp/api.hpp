// The contract across the ISA boundary: plain structs and a table of function pointers, filled once per instruction
// set by kernels/table.cpp and called by the engine. No function is defined here: an inline one would be merged by the
// linker across instruction sets.
//
// Letters, everywhere: T steps, N batch rows, I inputs, H hidden units, P numbers of h (H unless h is projected), O
// outputs, G gates, L lanes of a vector, R packed rows. Sizes are signed 64-bit. A shape in a comment is row-major.
//
// Packed rows: the batch is sorted by length, longest first, and stored step by step. Step t owns the packed rows
// [offset[t], offset[t] + count[t]); count never grows, so the rows alive at t are a prefix of those alive at t-1.
// State buffers have N rows more, the initial states, in front: the state before step 0 is rows [0, N), the state
// after step t is rows [N + offset[t], N + offset[t] + count[t]).
#pragma once

#include <cstdint>

#include "cells.hpp"
#include "tree_tasks.hpp"

namespace rnncore {

// Indices [begin, end): of steps, of sorted rows, of panels of hidden units.
struct Span {
    int64_t begin, end;
};

struct Batch {
    int64_t T;                  // steps of the longest sequence
    int64_t N;                  // sequences, those of length 0 among them
    int64_t R;                  // packed rows: the sum of all lengths
    const int64_t* count;       // (T)    rows alive at step t, all > 0
    const int64_t* offset;      // (T+1)  first packed row of step t
    const int64_t* caller_row;  // (R)    row of the caller's x, y, dx and dy that packed row r is
    const int64_t* order;       // (N)    row of the caller's states that sorted row n is
};

template <class T>
struct Forward {
    Batch batch;
    const Options* options;
    int64_t I, H, P;
    const T* x;             // (caller rows, I); with tokens a table, (V, I)
    const int64_t* tokens;  // (caller rows) or null: the row of the table that is each row's input
    const T* table_pre;     // (V, G*H) or null: pre of all rows of the table, for `forward` to find its rows in
    bool packed;  // whether W, U and the biases are packed by `pack`, or as the caller has them: then biases may be
                  // null, and there is no more than one step of unpacked_rows
    const T* w;
    const T* b_ih;
    const T* u[kMaxProducts];     // weights of the products, and their
    const T* b_hh[kMaxProducts];  // biases
    const T* vectors;             // (vectors), never packed
    const T* take[2];             // (caller rows, state) masks of what is taken of the new h and c, or null
    const T* recurrent_mask;      // (N, P) in the caller's order: factors of h in the products; or null
    T* y;                         // (caller rows, y_stride), of which the first P columns are written; or null
    int64_t y_stride;             // at least P
    T* last[kMaxStates];          // (N, state) final states, or null
    bool keep;                    // training: keep every state and what backward needs, from the step kept_from on
    int64_t kept_from;            // its first packed row is row 0 of `saved`, and the states before it are rows [0, N)
    T* states[kMaxStates];        // (N + rows kept, state) if keep, otherwise two slots (2, N, state)
    T* saved;                     // (rows kept, saved) if keep
    T* operands[kMaxProducts];    // (rows kept, K) if keep: what the products multiply; null where that is h itself,
                                  // and where it is the operand of another
};

template <class T>
struct Backward {
    Batch batch;
    const Options* options;
    int64_t H, P;
    int64_t kept_from;            // as in Forward, and so are
    const T* states[kMaxStates];  // (N + rows kept, state)
    const T* saved;               // (rows kept, saved)
    const T* operands[kMaxProducts];
    const T* vectors;
    const T* take[2];
    const T* recurrent_mask;
    const T* u[kMaxProducts];         // weights of products, packed by pack_columns; or the caller's (columns, K)
    int64_t u_stride[kMaxProducts];   // and K, or 0 if packed
    const T* dy;                      // (caller rows, P) or null
    const T* dlast[kMaxStates];       // (N, state) or null
    T* dfirst[kMaxStates];            // (N, state) gradients of the initial states
    T* carry[kMaxStates];             // (N, state) gradients that bypass the products; null unless the cell has one
    Span chunk;                       // steps whose gate gradients are in memory
    const T* du_next;                 // (N, du_stride) du of the first product in the step after the chunk
    T* dx_gates;                      // (rows of the chunk, G*H)
    T* du[kMaxProducts];              // (rows of the chunk, du_stride), of which the first columns are the product's:
    int64_t du_stride[kMaxProducts];  // a part of dx_gates unless the gradients differ
    T* sums;                          // (N, vectors) gradients of the vectors, of each row; added to
};

// C += A' B, summed over packed rows: the gradients of weights and biases. A has a last column of ones, so the last row
// of C is the column sum of B.
template <class T>
struct OuterProduct {
    int64_t rows;      // to sum over
    int64_t M;         // columns of A, that of ones among them
    int64_t columns;   // of B and C
    int64_t b_stride;  // at least columns
    T* a;              // A, packed by pack_outer_rows
    const T* b;        // (rows, b_stride)
    T* c;              // (panels, M, panel width)
};

// An affine map with an activation: y = act(x W' + b), W (O, I), at the rows of the caller's arrays that caller_row
// names.
template <class T>
struct Linear {
    int64_t I, O;
    Activation activation;
    const int64_t* caller_row;  // (rows)
    const T* x;                 // (caller rows, I)
    bool packed;  // whether W is packed by pack_transposed and b goes on with zeros to whole vectors, or both are as
                  // the caller has them: then there are no more than unpacked_rows rows
    const T* weight;
    const T* bias;     // or null
    T* y;              // (caller rows, y_stride), of which the first O columns are written
    int64_t y_stride;  // at least O
};

// A step of an optimiser: n parameters, their gradients and the moments that its rule keeps. No two overlap.
inline constexpr int kMaxMoments = 3;
template <class T>
struct Update {
    T* parameters;            // (n)
    const T* gradients;       // (n)
    T* moments[kMaxMoments];  // (n), in the order of the rule; null for those that it does not keep
};

// The rules, whose formulas stand in kernels/update.hpp. Kernels round these numbers to T once.
struct Sgd {
    double rate, momentum, weight_decay;
    bool nesterov;
};
struct Rmsprop {
    double rate, alpha, eps, momentum, weight_decay;
};
struct Adam {
    double rate;        // of this step: the corrections of both moments for their start at zero
    double root_scale;  // are in it and in this factor of the root of the second
    double beta1, beta2, eps;
    double weight_decay;  // as a part of the gradient
    double keep;          // and as a factor of the parameters, 1 for none
};

// Softmax cross-entropy of rows of logits x against targets q, probabilities of classes:
//
//   loss = -sum_c q'_c log softmax(x)_c,  q' = (1 - smoothing) q + smoothing / C
template <class T>
struct CrossEntropy {
    int64_t C;
    const T* x;              // (rows, C)
    const int64_t* classes;  // (rows) where q is 1; or null
    const T* q;              // (rows, C), if there are no classes
    double smoothing;
    const double* scale;  // (rows) factors of the gradient; what belongs to a row whose factor is 0 is not read
    double* loss;         // (rows)
    T* gradient;          // (rows, C) or null
};

// The connectionist temporal classification of one sequence of logits x: of all ways to its labels.
template <class T>
struct Ctc {
    int64_t steps, C, labels, blank;
    const T* x;             // (steps, C)
    const int64_t* target;  // (labels), none of them blank
    T scale;                // factor of the gradient
    T* gradient;            // (steps, C) or null
    T* workspace;           // of ctc_workspace elements
};

// A line of a series to scan: a sequence, or a chunk of one.
struct ScanLine {
    int64_t first;  // element of the series where its first step begins
    int64_t steps;
};

// The linear scan h_t = a_t h_{t-1} + b_t along lines, elementwise. Complex numbers are pairs of reals, re and im.
template <class T>
struct Scan {
    int64_t C;        // reals of a step: channels, or twice as many complex ones
    bool is_complex;  // then C is even
    bool constant;    // a is one vector for all steps
    int64_t stride;   // of a series, from a step to the next that is read; may be negative
    const ScanLine* lines;
    const T* a;      // a series, or (C)
    const T* b;      // a series
    T* y;            // a series: h of every step
    const T* first;  // (lines, C) states before the lines, or null for zeros
    T* last;         // (lines, C) states after them
};

template <class T>
struct ScanGradient {
    Scan<T> scan;    // as it ran, last not read
    const T* dy;     // a series
    const T* dlast;  // (lines, C) or null for zeros
    T* da;           // a series; of a constant a (lines, C), sums over the steps of each line
    T* db;           // a series
    T* dfirst;       // (lines, C)
};

// What lines do to any state before them: h = product first + sum.
template <class T>
struct ScanSummary {
    T* product;  // (lines, C)
    T* sum;      // (lines, C)
};

// How well a query q fits a step of a source, of which k_s is the key: kernels/attention.hpp has the formulas.
enum class Score : int { dot, additive, location };

// What rows attend to: a memory of numbers for each step of each source.
template <class T>
struct Attention {
    Score score;
    int64_t S, E, A;         // steps of the longest source; numbers of a step, and of a query
    const T* memory;         // (sources, S, E)
    const T* keys;           // (sources, S, A); not of `location`, where A is at least as long as any source
    const int64_t* lengths;  // (sources) from 0 to S; what is behind is not read
    const T* v;              // (A) of `additive`
};

template <class T>
struct AttentionGradient {
    const int64_t* source;  // (rows) of each row
    const T* query;         // (rows, A)
    const int64_t* weight_row;
    const T* weights;   // (any, S), of row i at weight_row[i]
    const T* dcontext;  // (rows, dcontext_stride), of which the first E columns are its
    int64_t dcontext_stride;
    T* dscores;  // (rows, S)
    T* dquery;   // (rows, A)
    T* dkeys;  // (sources, S, A) of `additive`, which are added to; those of `dot` are sums over rows of dscores and q
    T* dv;     // (rows, A) of `additive`, added to
};

template <class T>
struct CellKernels {
    int gates;
    int states;
    bool multiplies;     // whether a step has products
    bool input_in_loop;  // whether the time loop makes the product with W where there is no pre
    int packed_gates;    // `pack` fills whole vectors for each of so many parts of the rows
    Needs (*needs)(const Options&, int64_t H, int64_t P);
    // Hidden units come in panels, and a kernel works on a span of them: the results of one panel need nothing of
    // another but the state before the step (forward) or du of the step after (backward).
    int64_t (*forward_panels)(int64_t H);
    int64_t (*backward_panels)(int64_t H);
    // w (rows, K), the input weights or those of a product, in panels. A bias is the case K = 1.
    void (*pack)(const T* w, int64_t K, int64_t rows, T* out);
    // pre (rows, G*H): the rows x_rows[i] (I) of the input times W, plus b_ih.
    void (*input)(const Forward<T>&, int64_t rows, const T* const* x_rows, Span panels, T* pre);
    // Steps `time` of the sorted rows `rows`. pre begins with the first of these rows at the first of these steps; if
    // null, there is a table_pre, or the product with W is made on the way (worth it for small I).
    void (*forward)(const Forward<T>&, Span time, Span rows, Span panels, const T* pre, T* workspace);
    // Steps `time` of the chunk, last first, of the sorted rows `rows`: fills dx_gates and du.
    void (*backward)(const Backward<T>&, Span time, Span rows, Span panels, T* workspace);
    // What is left at the first step: the gradients of the initial states.
    void (*backward_first)(const Backward<T>&, Span rows);
};

template <class T>
struct Kernels {
    int lanes;
    int64_t unpacked_rows, few_rows;
    int panel;  // columns of a full panel of pack_columns, pack_outer_rows and OuterProduct::c
    CellKernels<T> cells[kCells];
    // out: w (K, columns) in panels, [columns/panel][K][panel]
    void (*pack_columns)(const T* w, int64_t K, int64_t columns, T* out);
    // out[caller_row[r]] = a[r] B for r in [0, rows): a (rows, K), out (caller rows, columns), B packed by
    // pack_columns, or with a stride of `columns` as it is. What is not packed must have whole vectors of columns.
    void (*multiply_rows)(int64_t rows, int64_t K, int64_t columns, const T* a, const T* b, int64_t b_stride,
                          const int64_t* caller_row, T* out);
    // out: w (columns, K) transposed, in panels as pack_columns makes them
    void (*pack_transposed)(const T* w, int64_t K, int64_t columns, T* out);
    // y at the rows [rows.begin, rows.end) of caller_row
    void (*linear)(const Linear<T>& task, Span rows);
    // da (rows, O), the gradient of x W' + b at such rows, from y and dy, which lies like y
    void (*linear_gradient)(const Linear<T>& task, Span rows, const T* dy, T* da);
    // Row tile `tile` of A = [a_rows | 1] into product.a; a_row (rows) are the rows of a (any, M-1) to take.
    int64_t (*outer_tiles)(int64_t M);
    void (*pack_outer_rows)(const OuterProduct<T>& product, int64_t tile, const T* a, const int64_t* a_row);
    // Panel `panel` of C; packed_b (rows, panel) is workspace.
    void (*outer_panel)(const OuterProduct<T>& product, int64_t panel, T* packed_b);
    // gradient (columns, M-1) and its column of sums (columns), from panel `panel` of C
    void (*unpack_outer)(const OuterProduct<T>& product, int64_t panel, T* gradient, T* sums);
    // All of it at once for up to few_rows rows; product.a and c are not used.
    void (*outer_few_rows)(const OuterProduct<T>& product, const T* a, const int64_t* a_row, T* gradient, T* sums);
    // out[to_row[r]] += a[r], one r after the other, at the columns `span` of the `columns` that both have.
    void (*add_rows)(int64_t rows, int64_t columns, Span span, const T* a, const int64_t* to_row, T* out);
    // The elements `elements` of a step.
    void (*sgd)(const Sgd& rule, const Update<T>& update, Span elements);
    void (*rmsprop)(const Rmsprop& rule, const Update<T>& update, Span elements);
    void (*adam)(const Adam& rule, const Update<T>& update, Span elements);
    // The sum of x^2 in float64, and x times a factor.
    double (*sum_of_squares)(const T* x, Span elements);
    void (*scale)(T* x, T factor, Span elements);
    // Losses and gradients of a span of rows.
    void (*cross_entropy)(const CrossEntropy<T>&, Span rows);
    // -log P(target | x), infinite where no way leads to the target; the gradient is 0 then.
    int64_t (*ctc_workspace)(int64_t steps, int64_t labels);
    double (*ctc)(const Ctc<T>&);
    // y = act(x), n values.
    void (*activate)(Activation activation, const T* x, T* y, int64_t n);
    // For tests and for those who build on the formulas: y = f(x), n values.
    void (*sigmoid)(const T* x, T* y, int64_t n);
    void (*tanh)(const T* x, T* y, int64_t n);
    void (*exp)(const T* x, T* y, int64_t n);
    void (*log)(const T* x, T* y, int64_t n);
    // The channels `channels`, in reals, of the lines `lines` of a scan, and backward. A cut between threads is best at
    // a multiple of these numbers of lines and channels.
    int64_t scan_lines, scan_channels;
    void (*scan)(const Scan<T>&, Span lines, Span channels);
    void (*scan_gradient)(const ScanGradient<T>&, Span lines, Span channels);
    // What the lines do to h going forward, and to its gradient going backward; states and dlast are not read.
    void (*summarize_scan)(const Scan<T>&, const ScanSummary<T>&, Span lines, Span channels);
    void (*summarize_scan_gradient)(const ScanGradient<T>&, const ScanSummary<T>&, Span lines, Span channels);
    // Weights (any, S) of row i at weight_row[i], and context (rows, context_stride), of the rows' queries (rows, A).
    void (*attend)(const Attention<T>&, int64_t rows, const int64_t* source, const T* query, const int64_t* weight_row,
                   T* weights, T* context, int64_t context_stride);
    void (*attend_gradient)(const Attention<T>&, int64_t rows, const AttentionGradient<T>&);
    // out (M, columns) += sum_r left[r] right[r]' of `count` pairs of rows (M), (columns)
    void (*sum_outer)(int64_t count, const T* const* left, const T* const* right, int64_t M, int64_t columns, T* out);
    // A block of rows of one level of a forest, when all below are done, and backward, when all above are. workspace
    // has the sum of `sizes` for each row and 7*H more; backward, H for each row and H more.
    void (*tree_forward)(const TreeForward<T>&, Span rows, T* workspace);
    void (*tree_backward)(const TreeBackward<T>&, Span rows, T* workspace);
};

// A reservoir: H units with fixed sparse weights W (H, H), packed for a number of lanes. kernels/reservoir.hpp has its
// equation and its two forms of W, which is made of diagonals if D > 0 and of rows otherwise.
//
// A state lies in `copies` copies of `stride` numbers. Copy c has unit i at margin - shift[c] + i, and with diagonals
// at margin - shift[c] + H + i too; all else is 0. shift[0] is 0.
template <class T>
struct Reservoir {
    int64_t H;
    T leak;
    int64_t copies, stride, margin;
    const int64_t* shift;  // (copies)
    int64_t D;
    const int64_t* diagonals;  // (D) ascending
    const int64_t* place;      // (D) where in a state that lies which meets unit 0 on the diagonal
    const T* values;       // diagonals: (blocks, D, block), blocks of ReservoirKernels::block units; rows: (vectors, L)
    const int64_t* begin;  // (slices + 1) rows: the first vector of each slice of L rows
    const int32_t* columns;  // (vectors, L) rows: of the values. Rows that end before others have zeros at column 0.
};

struct ReservoirKernels {
    int block;
    // The steps `time`, in place: states (steps, H) holds what is added to W x and then the states. x has two states;
    // that before step t is number t mod 2, that after it becomes the other.
    void (*run)(const Reservoir<double>& net, Span time, double* states, double* x);
    // The same for up to L series side by side, if H is at least L: states (L) are theirs, null where there is none; x
    // has two times (H + L, L), a series in each lane and the first L units once more at the end.
    void (*run_lanes)(const Reservoir<double>& net, Span time, double* const* states, double* x);
};

struct KernelTable {
    Kernels<float> f32;
    Kernels<double> f64;
    ReservoirKernels reservoir;
};

}  // namespace rnncore
