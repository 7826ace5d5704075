// Whole calls with resets inside sequences: a row is cut before every step at which its state starts anew, and the
// engine runs the pieces side by side as if each were a row of its own. States and their gradients go here from rows to
// pieces and back: the piece of a row that is read first takes the row's initial state, unless a reset comes before it,
// the others take the start state, and what the last one leaves is the row's final state.
#pragma once

#include <cstdint>
#include <vector>

#include "engine.hpp"

namespace rnncore {

// The cuts are the same in both directions. Read backwards, a row takes its initial state in the piece that ends it,
// and a reset at step 0, before which nothing is left to read, does nothing.
class Pieces {
public:
    // resets: laid out like the steps of x, nonzero where a state starts anew; what lies in padding is ignored.
    Pieces(const Layout& layout, const uint8_t* resets);

    // The batch with its pieces; refers to them.
    Layout layout() const;
    int64_t rows() const { return layout_.N; }
    int64_t count() const { return static_cast<int64_t>(pieces_.size()); }
    int64_t row(int64_t piece) const { return pieces_[static_cast<size_t>(piece)].row; }
    // Whether a piece takes the initial state of its row, and the piece of each row that leaves the final one.
    bool takes_initial(int64_t piece, bool reverse) const;
    const std::vector<int64_t>& leaves_final(bool reverse) const { return reverse ? begins_ : ends_; }

private:
    Layout layout_;
    std::vector<Piece> pieces_;           // the longest first
    std::vector<int64_t> begins_, ends_;  // (N) the pieces with the first step and with the last one of each row
    std::vector<uint8_t> anew_;           // (N) whether there is a reset at step 0
};

// As in engine.hpp. `start`, the states after resets, are of the shape of the initial ones; null stands for zeros.
template <class T>
void forward(const Stack<T>& stack, const Pieces& pieces, const Input<T>& input, const T* const* start,
             const Output<T>& output);
template <class T>
void forward(const Weights<T>& weights, const Pieces& pieces, const Input<T>& input, const T* const* start,
             const Output<T>& output);
template <class T>
Tape<T> forward_for_training(const Weights<T>& weights, const Pieces& pieces, const Input<T>& input,
                             const T* const* start, const Output<T>& output, int64_t checkpoint_every = 0);
// dstart may have nulls, for gradients that nobody wants.
template <class T>
void backward(const Weights<T>& weights, const Pieces& pieces, const Input<T>& input, const Tape<T>& tape,
              const Output<const T>& cotangents, const Gradients<T>& gradients, T* const* dstart);

}  // namespace rnncore
