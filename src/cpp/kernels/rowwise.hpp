// What cells with options are made of: values of a whole row at a time, gate-major, [gate][H]. Between the input of a
// gate and its value there may be layer normalisation and clipping, and its activation is one of many; a step may have
// a second product. The loops over time that run such cells are in rows.hpp.
#pragma once

#include "activations.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

inline constexpr int kMaxGates = 4;
inline constexpr int kRowProducts = 2;  // of one transition

// out = f(in...), over rows of n
template <class T, class F, class... In>
inline void map(int64_t n, T* out, F f, const In*... in) {
    each_vector<T>(n, [&](int64_t i, auto part) { store(out + i, f(load(in + i, part)...), part); });
}

// Where a gate keeps what backward needs.
template <class T>
struct Record {
    T* value;  // (H)
    T* input;  // (H) normalised, or as it was before it was clipped; only if it is either
    T* scale;  // 1 / standard deviation; only if normalised
};

// From the input a of a gate to its value: f(clip(gain * normalised(a) + shift)), as far as there is each of these.
template <class T>
struct Gate {
    int64_t H;
    RowActivation<T> activation;
    Parameters<T> parameters;
    const T* gain;   // (H) or null
    const T* shift;  // (H), if there is a gain
    T clip;          // 0 for none

    static constexpr T kEpsilon = T(1e-5);

    [[gnu::noinline]] void forward(const T* a, const Record<T>& to) const {
        const T* input = a;
        if (gain) {
            normalise(a, to);
            map<T>(
                H, to.value, [](auto x, auto g, auto s) { return fma(x, g, s); }, to.input, gain, shift);
            input = to.value;
        } else if (clip > 0) {
            __builtin_memcpy(to.input, a, sizeof(T) * H);
        }
        if (clip > 0) {
            map<T>(
                H, to.value, [this](auto s) { return clamp(s, -clip, clip); }, input);
            input = to.value;
        }
        activation.forward(input, to.value, H, parameters);
    }

    // da from dy, which may be the same memory; adds to the gradients of gain and shift.
    [[gnu::noinline]] void backward(const Record<const T>& from, const T* dy, T* da, T* dgain, T* dshift) const {
        activation.backward(from.value, dy, da, H, parameters);
        if (clip > 0) {
            const auto passed = [this](auto s, auto d) { return magnitude(s) <= clip ? d : decltype(d){}; };
            if (gain) {
                const auto f = [&](auto x, auto g, auto b, auto d) { return passed(fma(x, g, b), d); };
                map<T>(H, da, f, from.input, gain, shift, da);
            } else {
                map<T>(H, da, passed, from.input, da);
            }
        }
        if (gain) normalise_backward(from, da, dgain, dshift);
    }

private:
    T mean_of(Vec<T> sum) const { return sum_of_lanes<T>(sum) / static_cast<T>(H); }

    // x = (a - mean(a)) / sqrt(variance(a) + epsilon)
    void normalise(const T* a, const Record<T>& to) const {
        Vec<T> sum{}, squares{};
        each_vector<T>(H, [&](int64_t i, auto part) { sum += load(a + i, part); });
        const T mean = mean_of(sum);
        each_vector<T>(H, [&](int64_t i, auto part) {
            const Vec<T> rest = fill(load(a + i, part) - mean, part, T(0));
            squares = fma(rest, rest, squares);
        });
        const T scale = (1 / sqrt(splat(mean_of(squares) + kEpsilon)))[0];
        map<T>(
            H, to.input, [=](auto v) { return (v - mean) * scale; }, a);
        *to.scale = scale;
    }

    // With ds in da: dgain += ds x, dshift += ds, and, with dx = ds gain,
    // da = scale (dx - mean(dx) - x mean(dx x))
    void normalise_backward(const Record<const T>& from, T* da, T* dgain, T* dshift) const {
        Vec<T> sum{}, product{};
        each_vector<T>(H, [&](int64_t i, auto part) {
            const Vec<T> ds = load(da + i, part), x = load(from.input + i, part);
            store(dgain + i, fma(ds, x, load(dgain + i, part)), part);
            store(dshift + i, ds + load(dshift + i, part), part);
            const Vec<T> dx = ds * load(gain + i, part);
            sum += dx;
            product = fma(dx, x, product);
            store(da + i, dx, part);
        });
        const T mean = mean_of(sum), share = mean_of(product), scale = *from.scale;
        map<T>(
            H, da, [=](auto dx, auto x) { return (dx - mean - x * share) * scale; }, da, from.input);
    }
};

// What a cell is to the time loop: its constants,
struct RowShape {
    int gates, output;  // whether it has an activation of its output besides those of its gates
    int kept;           // vectors that it keeps for backward besides gates; with two states the first is the new c
    int peepholes, states;
    int products;         // of one transition
    bool split_gradient;  // whether du differs from dx
    bool projects;        // whether h may be projected
    bool candidate[kMaxGates];
    int gates_of_product[kRowProducts];
};
template <class Cell>
constexpr RowShape row_shape() {
    RowShape shape{
        Cell::gates,    Cell::output, Cell::kept, Cell::peepholes, Cell::states, Cell::products, Cell::split_gradient,
        Cell::projects, {},           {}};
    for (int k = 0; k < Cell::gates; ++k) shape.candidate[k] = Cell::is_candidate(k);
    for (int p = 0; p < Cell::products; ++p) shape.gates_of_product[p] = Cell::gates_of_product(p);
    return shape;
}

// One transition of a layer of a cell, ready to run rows. The activation of the output is one gate more, normalised but
// not clipped.
template <class T>
struct RowLayer {
    int64_t H, P;
    Gate<T> gate[kMaxGates + 1];
    const T* peephole;  // (peepholes, H) or null
    T cell_clip;        // 0 for none
    bool inputs, scales;
    int gates, records, peepholes, kept_vectors;

    RowLayer(const RowShape& cell, const Options& options, int64_t H, int64_t P, const T* vectors)
        : H(H),
          P(P),
          peephole(options.peephole && cell.peepholes > 0 ? vectors : nullptr),
          cell_clip(static_cast<T>(options.cell_clip)),
          inputs(options.layer_norm || options.gate_clip > 0),
          scales(options.layer_norm),
          gates(cell.gates),
          records(cell.gates + cell.output),
          peepholes(options.peephole ? cell.peepholes : 0),
          kept_vectors(cell.kept) {
        const T* gains = vectors + peepholes * H;
        for (int k = 0; k < records; ++k) {
            const bool output = k == gates;
            const Curve& curve = output || cell.candidate[k] ? options.activation : options.recurrent_activation;
            gate[k].H = H;
            gate[k].activation = row_activations<T>[static_cast<int>(curve.kind)];
            gate[k].parameters = {static_cast<T>(curve.alpha), static_cast<T>(curve.beta)};
            gate[k].gain = options.layer_norm ? gains + gain_of(k) * H : nullptr;
            gate[k].shift = options.layer_norm ? gains + shift_of(k) * H : nullptr;
            gate[k].clip = output ? T(0) : static_cast<T>(options.gate_clip);
        }
    }

    // Vectors: of peepholes, gains of all gates, their shifts, and gain and shift of the output.
    int gain_of(int k) const { return k == gates ? 2 * gates : k; }
    int shift_of(int k) const { return k == gates ? 2 * gates + 1 : gates + k; }
    static int64_t vectors(const RowShape& cell, const Options& options, int64_t H) {
        const int peepholes = options.peephole ? cell.peepholes : 0;
        return (peepholes + (options.layer_norm ? 2 * (cell.gates + cell.output) : 0)) * H;
    }
    // On to the transition that has its vectors `step` elements further on.
    void move_vectors(int64_t step) {
        if (peephole) peephole += step;
        for (int k = 0; scales && k < records; ++k) gate[k].gain += step, gate[k].shift += step;
    }

    // What is saved: [values of gates, and whatever else the cell keeps][inputs][scales]
    static int64_t saved(const RowShape& cell, const Options& options, int64_t H) {
        const int records = cell.gates + cell.output;
        const bool inputs = options.layer_norm || options.gate_clip > 0;
        return (records + cell.kept + (inputs ? records : 0)) * H + (options.layer_norm ? records : 0);
    }
    template <class U>
    Record<U> record(U* saved, int k) const {
        U* behind = saved + (records + kept_vectors) * H;
        return {saved + k * H, inputs ? behind + k * H : nullptr, scales ? behind + records * H + k : nullptr};
    }
    template <class U>
    U* kept(U* saved, int index) const {
        return saved + (records + index) * H;
    }

    void forward_gate(int k, const T* a, T* saved) const { gate[k].forward(a, record(saved, k)); }
    void backward_gate(int k, const T* saved, const T* dy, T* da, T* sums) const {
        T* gains = sums + peepholes * H;
        gate[k].backward(record(saved, k), dy, da, gains + gain_of(k) * H, gains + shift_of(k) * H);
    }
};

// One row at one step, forward. What is written to `u` is the cell's to use.
template <class T>
struct RowForward {
    const T* x;                     // (G*H) W x + b_ih
    T* u[kRowProducts];             // (columns) results of the products
    const T* h;                     // (P) the previous h as the products take it
    const T* previous[kMaxStates];  // the states before the step, and
    T* next[kMaxStates];            // what the cell makes of them
    T* operand;                     // (K) of the second product; without one, the next h
    T* saved;
};

template <class T>
struct RowBackward {
    const T* saved;
    const T* h;
    const T* previous[kMaxStates];
    const T* d[kMaxStates];    // gradients of what the cell made of the states
    T* dprevious[kMaxStates];  // added to: gradients of the states before
    T* dh;                     // added to: gradient of h as products take it, but for what reaches it through the first
    T* dx;                     // (G*H)
    T* du[kRowProducts];       // (columns), a part of dx for a product whose gradients do not differ
    const T* doperand;         // (K) gradient of `operand`
    T* sums;                   // added to: gradients of the vectors
    T* room;                   // (kRoom*H) for the cell to use
};
inline constexpr int kRoom = 2;

// and its formulas, for stage after stage of a transition.
template <class T>
struct RowCell {
    RowShape shape;
    void (*forward)(const RowLayer<T>& layer, int stage, const RowForward<T>& row);
    void (*backward)(const RowLayer<T>& layer, int stage, const RowBackward<T>& row);
};
template <class Cell, class T>
constexpr RowCell<T> row_cell{row_shape<Cell>(), Cell::template forward<T>, Cell::template backward<T>};

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
