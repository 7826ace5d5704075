// Models that live: a program of stages with weights packed once, and streams, each with the states of some sequences,
// that take steps as they come. A call of few rows and steps allocates nothing and takes no lock.
#pragma once

#include <memory>
#include <vector>

#include "weights.hpp"

namespace rnncore {

// Stages one after the other, of one instruction set and one dtype. Made once, then shared by streams and not written.
template <class T>
class Program {
public:
    using Number = T;
    // With I inputs and O outputs: layers of one cell, or else an affine map where there is a weight, and an
    // activation.
    struct Stage {
        int64_t I, O;
        std::unique_ptr<const Stack<T>> stack;  // of one direction
        Array<T> initial[kMaxStates];           // or nothing for zeros
        Array<T> weight;                        // packed by pack_transposed, and
        Array<T> bias;                          // whole vectors of it
        Activation activation;
    };

    Program();
    // The first stage, if any: tokens become rows of a table (V, E), which is copied.
    void add_embedding(const T* table, int64_t V, int64_t E);
    // `initial` are the states (layers, state) that sequences begin with, each zeros if null.
    void add_recurrent(const std::vector<Weights<T>>& weights, const T* const* initial);
    // y = act(x W' + b), W (O, I), b (O) or null
    void add_linear(const T* weight, const T* bias, int64_t I, int64_t O, Activation activation);
    void add_activation(Activation activation, int64_t size);

    const Kernels<T>& kernels() const;
    const std::vector<Stage>& stages() const { return stages_; }
    const T* table() const { return table_; }  // null if there is no embedding
    int64_t tokens() const { return V_; }
    int64_t input_size() const { return I_; }  // of a row of the first stage, or of the table
    int64_t output_size() const { return O_; }
    int64_t widest_row() const { return widest_row_; }       // between stages
    int64_t widest_gates() const { return widest_gates_; }   // of input products
    int64_t state_size() const { return state_size_; }       // of all states of a row
    int64_t cell_row() const { return cell_row_; }           // workspace of a cell, for a row of a step,
    int64_t cell_once() const { return cell_once_; }         // and for all
    double multiply_adds() const { return multiply_adds_; }  // of a row and step

private:
    void add(Stage stage);

    const KernelTable* kernel_table_;
    Array<T> table_;
    std::vector<Stage> stages_;
    int64_t V_ = 0, I_ = 0, O_ = 0, widest_row_ = 0, widest_gates_ = 0, state_size_ = 0, cell_row_ = 0, cell_once_ = 0;
    double multiply_adds_ = 0;
};

template <class T>
class Stream {
public:
    Stream(std::shared_ptr<const Program<T>> program, int64_t rows);  // states are zeros
    Stream(const Stream& other);                                      // a twin that goes its own way

    const Program<T>& program() const { return *program_; }
    int64_t rows() const { return rows_; }

    // The next steps of all rows: x (rows, steps, I), or tokens (rows, steps), to y (rows, steps, O), which must not
    // overlap x.
    void run(const T* x, const int64_t* tokens, int64_t steps, T* y);
    // Multiply-adds of that.
    double work(int64_t steps) const;

    // A new last row, with a state of zeros; and the end of a row, whose place the last one takes.
    void attach();
    void detach(int64_t row);
    void reset(int64_t row);

    // Other weights from now on: of a program of the same stages, or else nothing happens and the result is false.
    bool renew(std::shared_ptr<const Program<T>> program);

    // One state of some rows of all layers of a recurrent stage: (layers, rows, H).
    void read_state(size_t stage, int state, Span rows, T* out) const;
    void write_state(size_t stage, int state, Span rows, const T* in);

private:
    // One layer, with its states at `offset` numbers a row.
    struct Pass {
        Forward<T> task;
        const CellKernels<T>* cell;
        const Stack<T>* stack;
        size_t stage;
        int64_t layer;
        const Array<T>* initial;
        int64_t offset[kMaxStates];

        int64_t size(int state) const { return stack->needs.state[state]; }
    };
    // What a thread needs for a chunk of steps of a slice of rows.
    struct Part {
        T* pre;      // (chunk rows, gates), input products
        T* cell;     // workspace of cells
        T* rows[2];  // (chunk rows, widest row), what is between stages
        std::vector<const T*> x_rows;
        std::vector<int64_t> offset;
        Arrays<T> memory;
    };

    static std::vector<Pass> passes_of(const Program<T>& program);  // without memory for states
    void allocate(int64_t capacity);
    T* state(const Pass& pass, int state, int64_t row) const;  // in the present slot
    void slice(Span rows, Part& part, const T* x, const int64_t* tokens, int64_t steps, T* y);
    // The stages over `steps` steps of these rows, from those of memory where the states are at `slot`. Both series are
    // packed, step by step. The result is in `out`, or if that is null in a buffer of the part, which is returned.
    const T* chunk(Span rows, Part& part, int64_t slot, int64_t steps, const T* in, T* out);

    std::shared_ptr<const Program<T>> program_;
    std::vector<Pass> passes_;
    int64_t rows_, capacity_ = 0, chunk_rows_ = 0;
    int64_t slot_ = 0;                         // which of the two slots of states is the present one
    Array<T> states_;                          // of each state of each pass (2, capacity, H)
    std::vector<Part> parts_;                  // one for each thread
    std::vector<int64_t> caller_row_, count_;  // of Batch, for the rows and steps of any chunk
};

}  // namespace rnncore
