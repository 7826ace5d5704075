// The loop over time of cells without a product: every unit goes its own way, so its state stays in registers for all
// steps of a chunk, on the chains that linear scans run on, too (chains.hpp). A line is a sorted row of the batch.
//
// A cell is constants and two pointwise functions over vectors, where parts of the state and of the output are H wide:
//
//   gates, parts, outputs    of the state and of the output: 1, or 2 for complex ones
//   saved, vectors           of each unit, as elsewhere
//
//   forward(x[G], v[vectors], state[parts], next[parts], y[outputs], saved[])
//   backward(saved[], v[], previous[parts], next[parts], dy[outputs], dstate[parts], dx[G], dv[vectors])
//       dstate arrives as the gradient of the new state, without what dy brings, and leaves as that of the previous
//       one; dv is added to.
#pragma once

#include "chains.hpp"
#include "rows.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

inline constexpr int kElementwiseVectors = 2;  // of units, in a tile at most

// A gathering of n parts, each H wide, of one row.
template <int n, class T, class Part>
inline void load_parts(const T* row, int64_t H, Part part, Vec<T>* out) {
    for (int i = 0; i < n; ++i) out[i] = load(row + i * H, part);
}
template <int n, class T, class Part>
inline void store_parts(T* row, int64_t H, Part part, const Vec<T>* from) {
    for (int i = 0; i < n; ++i) store(row + i * H, from[i], part);
}
constexpr int at_least_one(int n) {
    return n > 0 ? n : 1;
}

template <class Cell, class T>
struct UnitVectors {
    Vec<T> v[at_least_one(Cell::vectors)];
};

// How many of the steps `time` a sorted row lives through.
inline int64_t steps_alive(const Batch& batch, Span time, int64_t row) {
    int64_t low = time.begin, high = time.end;  // counts never grow
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (batch.count[middle] > row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low - time.begin;
}
inline bool ends_before(const Batch& batch, int64_t t, int64_t row) {
    return t >= batch.T || batch.count[t] <= row;
}

// All units of all lines. (Tiles of several lines, which scans have, take twice the code and gain little: most cells
// are bound by their activations.)
template <class T, class Task>
inline void run_units(const Task& task, Span lines, int64_t H) {
    constexpr int64_t L = kLanes<T>, width = kElementwiseVectors * L;
    const auto run = [&]<int Vectors>(int64_t unit, auto part) {
        for (int64_t line = lines.begin; line < lines.end; ++line) {
            const int64_t steps = task.steps(line);
            const int64_t last = unit + (Vectors - 1) * L;
            run_chains<T, 1, Vectors>(task.walk(line, steps), steps, unit, last, part);
        }
    };
    int64_t unit = 0;
    for (; unit + width <= H; unit += width) run.template operator()<kElementwiseVectors>(unit, Full{});
    for (; unit + L <= H; unit += L) run.template operator()<1>(unit, Full{});
    if (unit < H) run.template operator()<1>(unit, Tail{static_cast<int>(H - unit)});
}

template <class Cell, class T>
Needs elementwise_needs(const Options&, int64_t H, int64_t) {
    Needs needs{};
    needs.state[0] = Cell::parts * H;
    needs.carry[0] = true;
    needs.saved = Cell::saved * H;
    needs.vectors = Cell::vectors * H;
    return needs;
}

// --- forward ------------------------------------------------------------------------------------------------------

template <class Cell, class T>
struct ElementwiseForward {
    const Forward<T>& task;
    Span time, rows;
    const T* pre;

    int64_t steps(int64_t row) const { return steps_alive(task.batch, time, row); }
    T* state_before(int64_t t, int64_t row) const {
        const Batch& batch = task.batch;
        const int64_t at = task.keep ? kept_before(batch, task.kept_from, t) : t % 2 * batch.N;
        return task.states[0] + (at + row) * Cell::parts * task.H;
    }

    struct Walk {
        struct State {
            Vec<T> part[Cell::parts];
        };
        using Constants = UnitVectors<Cell, T>;
        const ElementwiseForward& of;
        int64_t row, end, t;
        const T* pre;  // of the first of the slice's rows at step t

        template <class Part>
        Constants constants(int64_t unit, Part part) const {
            Constants constants;
            load_parts<Cell::vectors>(of.task.vectors + unit, of.task.H, part, constants.v);
            return constants;
        }
        template <class Part>
        State enter(int, int64_t unit, Part part) const {
            State state;
            load_parts<Cell::parts>(of.state_before(of.time.begin, row) + unit, of.task.H, part, state.part);
            return state;
        }
        template <class Part>
        inline __attribute__((always_inline)) void step(int, int64_t unit, Part part, const Constants& constants,
                                                        State& state) const {
            const Forward<T>& task = of.task;
            const int64_t H = task.H, packed = task.batch.offset[t] + row;
            const int64_t caller = task.batch.caller_row[packed];
            const T* x_row = task.table_pre ? task.table_pre + task.tokens[caller] * Cell::gates * H
                                            : pre + (row - of.rows.begin) * Cell::gates * H;
            Vec<T> x[Cell::gates], y[Cell::outputs], saved[at_least_one(Cell::saved)];
            State next;
            load_parts<Cell::gates>(x_row + unit, H, part, x);
            Cell::forward(x, constants.v, state.part, next.part, y, saved);
            if (task.y) store_parts<Cell::outputs>(task.y + caller * task.y_stride + unit, H, part, y);
            if (task.keep) {
                const int64_t kept = packed - task.batch.offset[task.kept_from];
                store_parts<Cell::saved>(task.saved + kept * Cell::saved * H + unit, H, part, saved);
                store_parts<Cell::parts>(of.state_before(t + 1, row) + unit, H, part, next.part);
            }
            state = next;
        }
        void advance() {
            if (pre) pre += alive(of.task.batch, t, of.rows) * Cell::gates * of.task.H;
            ++t;
        }
        template <class Part>
        void leave(int, int64_t unit, Part part, const State& state) const {
            const Forward<T>& task = of.task;
            const int64_t size = Cell::parts * task.H;
            if (!task.keep) store_parts<Cell::parts>(of.state_before(end, row) + unit, task.H, part, state.part);
            if (task.last[0] && ends_before(task.batch, end, row)) {
                T* last = task.last[0] + task.batch.order[row] * size;
                store_parts<Cell::parts>(last + unit, task.H, part, state.part);
            }
        }
    };

    Walk walk(int64_t row, int64_t steps) const { return {*this, row, time.begin + steps, time.begin, pre}; }
};

template <class Cell, class T>
void forward_elementwise(const Forward<T>& task, Span time, Span rows, Span, const T* pre, T*) {
    const FlushDenormals guard;
    const Span living{rows.begin, rows.begin + alive(task.batch, time.begin, rows)};
    run_units<T>(ElementwiseForward<Cell, T>{task, time, rows, pre}, living, task.H);
}

// --- backward -----------------------------------------------------------------------------------------------------

template <class Cell, class T>
struct ElementwiseBackward {
    const Backward<T>& task;
    Span time;

    int64_t steps(int64_t row) const { return steps_alive(task.batch, time, row); }
    const T* state_before(int64_t t, int64_t row) const {
        return task.states[0] + (kept_before(task.batch, task.kept_from, t) + row) * Cell::parts * task.H;
    }

    // A line from its last step to the first.
    struct Walk {
        struct State {
            Vec<T> d[Cell::parts], dv[at_least_one(Cell::vectors)];
        };
        using Constants = UnitVectors<Cell, T>;
        const ElementwiseBackward& of;
        int64_t row, t;

        template <class Part>
        Constants constants(int64_t unit, Part part) const {
            Constants constants;
            load_parts<Cell::vectors>(of.task.vectors + unit, of.task.H, part, constants.v);
            return constants;
        }
        T* carry() const { return of.task.carry[0] + row * Cell::parts * of.task.H; }
        T* sums() const { return of.task.sums + row * Cell::vectors * of.task.H; }

        template <class Part>
        State enter(int, int64_t unit, Part part) const {
            const Backward<T>& task = of.task;
            const int64_t H = task.H;
            State state{};
            if (!ends_before(task.batch, t + 1, row)) {
                load_parts<Cell::parts>(carry() + unit, H, part, state.d);
            } else if (task.dlast[0]) {
                const T* dlast = task.dlast[0] + task.batch.order[row] * Cell::parts * H;
                load_parts<Cell::parts>(dlast + unit, H, part, state.d);
            }
            load_parts<Cell::vectors>(sums() + unit, H, part, state.dv);
            return state;
        }
        template <class Part>
        inline __attribute__((always_inline)) void step(int, int64_t unit, Part part, const Constants& constants,
                                                        State& state) const {
            const Backward<T>& task = of.task;
            const Batch& batch = task.batch;
            const int64_t H = task.H, at = t, packed = batch.offset[at] + row;
            Vec<T> saved[at_least_one(Cell::saved)], previous[Cell::parts], next[Cell::parts], dy[Cell::outputs] = {};
            Vec<T> dx[Cell::gates];
            const T* kept = task.saved + (packed - batch.offset[task.kept_from]) * Cell::saved * H;
            load_parts<Cell::saved>(kept + unit, H, part, saved);
            load_parts<Cell::parts>(of.state_before(at, row) + unit, H, part, previous);
            load_parts<Cell::parts>(of.state_before(at + 1, row) + unit, H, part, next);
            if (task.dy) load_parts<Cell::outputs>(task.dy + batch.caller_row[packed] * task.P + unit, H, part, dy);
            Cell::backward(saved, constants.v, previous, next, dy, state.d, dx, state.dv);
            T* to = task.dx_gates + (packed - batch.offset[task.chunk.begin]) * Cell::gates * H;
            store_parts<Cell::gates>(to + unit, H, part, dx);
        }
        void advance() { --t; }
        template <class Part>
        void leave(int, int64_t unit, Part part, const State& state) const {
            store_parts<Cell::parts>(carry() + unit, of.task.H, part, state.d);
            store_parts<Cell::vectors>(sums() + unit, of.task.H, part, state.dv);
        }
    };

    Walk walk(int64_t row, int64_t steps) const { return {*this, row, time.begin + steps - 1}; }
};

template <class Cell, class T>
void backward_elementwise(const Backward<T>& task, Span time, Span rows, Span, T*) {
    const FlushDenormals guard;
    const Span living{rows.begin, rows.begin + alive(task.batch, time.begin, rows)};
    run_units<T>(ElementwiseBackward<Cell, T>{task, time}, living, task.H);
}

template <class Cell, class T>
void backward_first_elementwise(const Backward<T>& task, Span rows) {
    const int64_t size = Cell::parts * task.H, started = rows.begin + alive(task.batch, 0, rows);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
        const int64_t at = task.batch.order[row] * size;
        const T* from = row < started ? task.carry[0] + row * size : task.dlast[0] ? task.dlast[0] + at : nullptr;
        if (from) {
            __builtin_memcpy(task.dfirst[0] + at, from, sizeof(T) * size);
        } else {
            __builtin_memset(task.dfirst[0] + at, 0, sizeof(T) * size);
        }
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
