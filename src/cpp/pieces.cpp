#include "pieces.hpp"

#include <algorithm>

namespace rnncore {

Pieces::Pieces(const Layout& layout, const uint8_t* resets)
    : layout_(layout),
      begins_(static_cast<size_t>(layout.N)),
      ends_(static_cast<size_t>(layout.N)),
      anew_(static_cast<size_t>(layout.N)) {
    const auto length_of = [&](int64_t n) { return layout.lengths ? layout.lengths[n] : layout.T; };
    pieces_.reserve(static_cast<size_t>(layout.N));
    for (int64_t n = 0; n < layout.N; ++n) {
        const int64_t length = length_of(n);
        anew_[static_cast<size_t>(n)] = length > 0 && resets[layout.caller_row(n, 0)];
        int64_t begin = 0;
        for (int64_t t = 1; t < length; ++t) {
            if (!resets[layout.caller_row(n, t)]) continue;
            pieces_.push_back({n, begin, t - begin, 0});
            begin = t;
        }
        pieces_.push_back({n, begin, length - begin, layout.ragged ? 0 : layout.T - length});
    }
    std::stable_sort(pieces_.begin(), pieces_.end(),
                     [](const Piece& a, const Piece& b) { return a.length > b.length; });
    for (int64_t p = 0; p < count(); ++p) {
        const Piece& piece = pieces_[static_cast<size_t>(p)];
        const size_t row = static_cast<size_t>(piece.row);
        if (piece.begin == 0) begins_[row] = p;
        if (piece.begin + piece.length == length_of(piece.row)) ends_[row] = p;
    }
}

Layout Pieces::layout() const {
    Layout layout = layout_;
    layout.pieces = pieces_.data();
    layout.piece_count = count();
    return layout;
}

bool Pieces::takes_initial(int64_t piece, bool reverse) const {
    const size_t n = static_cast<size_t>(row(piece));
    return reverse ? ends_[n] == piece : begins_[n] == piece && !anew_[n];
}

namespace {

// One state of all pieces, of H numbers, before and after they are read, in every pass.
template <class T>
struct States {
    const Pieces& pieces;
    int64_t passes, directions, H;

    int64_t size() const { return passes * pieces.count() * H; }
    // Of two directions the second is reversed; of one, the layout says it.
    bool reverse(int64_t pass) const { return directions == 2 ? pass % 2 == 1 : pieces.layout().reverse; }

    // first (passes, pieces, H) from initial and start (passes, N, H)
    void enter(const T* initial, const T* start, T* first) const {
        for (int64_t pass = 0; pass < passes; ++pass) {
            const bool reversed = reverse(pass);
            for (int64_t p = 0; p < pieces.count(); ++p, first += H) {
                const T* from = pieces.takes_initial(p, reversed) ? initial : start;
                copy_row(first, from ? from + (pass * pieces.rows() + pieces.row(p)) * H : nullptr, H);
            }
        }
    }
    // final (passes, N, H) from last (passes, pieces, H)
    void leave(const T* last, T* final) const {
        for (int64_t pass = 0; pass < passes; ++pass, last += pieces.count() * H) {
            for (const int64_t p : pieces.leaves_final(reverse(pass))) {
                std::copy_n(last + p * H, H, final);
                final += H;
            }
        }
    }
    // dlast from dfinal, in one pass
    void leave_backward(const T* dfinal, T* dlast) const {
        std::fill_n(dlast, pieces.count() * H, T{0});
        for (const int64_t p : pieces.leaves_final(reverse(0))) {
            std::copy_n(dfinal, H, dlast + p * H);
            dfinal += H;
        }
    }
    // dinitial and dstart from dfirst, in one pass. A row's pieces are summed in an order that is its own.
    void enter_backward(const T* dfirst, T* dinitial, T* dstart) const {
        std::fill_n(dinitial, pieces.rows() * H, T{0});
        if (dstart) std::fill_n(dstart, pieces.rows() * H, T{0});
        const bool reversed = reverse(0);
        for (int64_t p = 0; p < pieces.count(); ++p, dfirst += H) {
            const int64_t at = pieces.row(p) * H;
            if (pieces.takes_initial(p, reversed)) {
                std::copy_n(dfirst, H, dinitial + at);
            } else {
                for (int64_t i = 0; dstart && i < H; ++i) dstart[at + i] += dfirst[i];
            }
        }
    }
};

// The rows of pieces, (pieces, P), from those of sequences.
template <class T>
Array<T> of_pieces(const Pieces& pieces, const T* rows, int64_t P) {
    if (!rows) return {};
    Array<T> all(pieces.count() * P);
    for (int64_t p = 0; p < pieces.count(); ++p) std::copy_n(rows + pieces.row(p) * P, P, all + p * P);
    return all;
}

// The states of pieces in the place of those of rows, in one call of the engine.
template <class T>
struct Call {
    const Pieces& pieces;
    int64_t passes, directions;
    Needs needs;
    Input<T> input;
    Output<T> output;
    Array<T> first[kMaxStates], last[kMaxStates], recurrent_mask;

    Call(const Pieces& pieces, int64_t passes, int64_t directions, const Needs& needs, const Input<T>& of_rows,
         const T* const* start, const Output<T>& to)
        : pieces(pieces),
          passes(passes),
          directions(directions),
          needs(needs),
          input(of_rows),
          output(to),
          recurrent_mask(of_pieces(pieces, of_rows.recurrent_mask, needs.state[0])) {
        input.recurrent_mask = recurrent_mask;
        for (int s = 0; s < kMaxStates && needs.state[s] > 0; ++s) {
            const States<T> states = of(s);
            last[s] = Array<T>(states.size());
            output.last[s] = last[s];
            if (!of_rows.first[s] && !start[s]) continue;
            first[s] = Array<T>(states.size());
            states.enter(of_rows.first[s], start[s], first[s]);
            input.first[s] = first[s];
        }
    }
    Call(const Pieces& pieces, const Weights<T>& weights, const Input<T>& of_rows, const T* const* start,
         const Output<T>& to)
        : Call(pieces, 1, 1, needs_of<T>(weights.spec, weights.H, weights.P), of_rows, start, to) {}

    States<T> of(int state) const { return {pieces, passes, directions, needs.state[state]}; }
    void leave(const Output<T>& to) const {
        for (int s = 0; s < kMaxStates; ++s) {
            if (to.last[s]) of(s).leave(last[s], to.last[s]);
        }
    }
};

}  // namespace

template <class T>
void forward(const Stack<T>& stack, const Pieces& pieces, const Input<T>& input, const T* const* start,
             const Output<T>& output) {
    const Call<T> call(pieces, static_cast<int64_t>(stack.passes.size()), stack.directions, stack.needs, input, start,
                       output);
    forward(stack, pieces.layout(), call.input, call.output);
    call.leave(output);
}

template <class T>
void forward(const Weights<T>& weights, const Pieces& pieces, const Input<T>& input, const T* const* start,
             const Output<T>& output) {
    const Call<T> call(pieces, weights, input, start, output);
    forward(weights, pieces.layout(), call.input, call.output);
    call.leave(output);
}

template <class T>
Tape<T> forward_for_training(const Weights<T>& weights, const Pieces& pieces, const Input<T>& input,
                             const T* const* start, const Output<T>& output, int64_t checkpoint_every) {
    const Call<T> call(pieces, weights, input, start, output);
    Tape<T> tape = forward_for_training(weights, pieces.layout(), call.input, call.output, checkpoint_every);
    call.leave(output);
    return tape;
}

template <class T>
void backward(const Weights<T>& weights, const Pieces& pieces, const Input<T>& input, const Tape<T>& tape,
              const Output<const T>& cotangents, const Gradients<T>& gradients, T* const* dstart) {
    const Needs needs = needs_of<T>(weights.spec, weights.H, weights.P);
    const auto states = [&](int s) { return States<T>{pieces, 1, 1, needs.state[s]}; };
    const Array<T> recurrent_mask = of_pieces(pieces, input.recurrent_mask, needs.state[0]);
    Input<T> from = input;
    from.recurrent_mask = recurrent_mask;
    Output<const T> last = cotangents;
    Gradients<T> to = gradients;
    Array<T> dlast[kMaxStates], dfirst[kMaxStates];
    const int count = states_of(weights.spec.cell);
    for (int s = 0; s < count; ++s) {
        to.first[s] = dfirst[s] = Array<T>(states(s).size());
        if (!cotangents.last[s]) continue;
        dlast[s] = Array<T>(states(s).size());
        states(s).leave_backward(cotangents.last[s], dlast[s]);
        last.last[s] = dlast[s];
    }
    backward(weights, from, tape, last, to);
    for (int s = 0; s < count; ++s) states(s).enter_backward(dfirst[s], gradients.first[s], dstart[s]);
}

template void forward(const Stack<float>&, const Pieces&, const Input<float>&, const float* const*,
                      const Output<float>&);
template void forward(const Weights<float>&, const Pieces&, const Input<float>&, const float* const*,
                      const Output<float>&);
template Tape<float> forward_for_training(const Weights<float>&, const Pieces&, const Input<float>&,
                                          const float* const*, const Output<float>&, int64_t);
template void backward(const Weights<float>&, const Pieces&, const Input<float>&, const Tape<float>&,
                       const Output<const float>&, const Gradients<float>&, float* const*);
template void forward(const Stack<double>&, const Pieces&, const Input<double>&, const double* const*,
                      const Output<double>&);
template void forward(const Weights<double>&, const Pieces&, const Input<double>&, const double* const*,
                      const Output<double>&);
template Tape<double> forward_for_training(const Weights<double>&, const Pieces&, const Input<double>&,
                                           const double* const*, const Output<double>&, int64_t);
template void backward(const Weights<double>&, const Pieces&, const Input<double>&, const Tape<double>&,
                       const Output<const double>&, const Gradients<double>&, double* const*);

}  // namespace rnncore
