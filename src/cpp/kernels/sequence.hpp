// The time loop: the only one there is. It runs a cell's recurrent product and its pointwise formulas over the packed
// rows of a batch, forward and backward, and knows no cell by name.
#pragma once

#include "../api.hpp"
#include "cells/cell.hpp"
#include "products.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// First row of the states before step t, among those that are kept from a step on.
inline int64_t kept_before(const Batch& batch, int64_t kept_from, int64_t t) {
    return t > kept_from ? batch.N + batch.offset[t - 1] - batch.offset[kept_from] : 0;
}

inline Order alternating(int64_t t) {
    return t % 2 ? Order::descending : Order::ascending;
}

template <int G, class T>
Panels gate_panels(int64_t H) {
    return {G, kMaxVectors / G, ceil_div(H, kLanes<T>)};
}

template <class Cell, class T>
Needs needs(const Options&, int64_t H, int64_t) {
    Needs needs{};
    for (int s = 0; s < Cell::states; ++s) {
        needs.state[s] = H;
        needs.carry[s] = s > 0 || Cell::hidden_carry;
    }
    needs.products = 1;
    needs.product[0] = {H, Cell::gates * H, 0, false, true, 0, Cell::split_gradient ? Cell::gates * H : 0, 0};
    needs.saved = Cell::saved * H;
    return needs;
}

// w (rows, K), all gates of all units
template <class Cell, class T>
void pack_interleaved(const T* w, int64_t K, int64_t rows, T* out) {
    pack_gates<T, Cell::gates>(w, K, rows / Cell::gates, out);
}

// Panels of hidden units in the forward and in the backward direction.
template <class Cell, class T>
int64_t forward_panels(int64_t H) {
    return gate_panels<Cell::gates, T>(H).count();
}
template <class T>
int64_t backward_panels(int64_t H) {
    return column_panels<T>(H).count();
}

// --- forward ------------------------------------------------------------------------------------------------------

// One step of some rows: what the epilogue of the recurrent product reads and writes. Pointers are to the first of
// these rows; rows of pre and saved are gate-interleaved, [H/L][gate][L], the last block cut to its width.
template <class Cell, class T>
struct ForwardStep {
    int64_t H, I;
    const T* pre;           // or null, and then what it takes to make it:
    const int64_t* tokens;  // (caller rows) rows of pre, or null where they are in order
    const T* x;
    const T* w;
    const T* b_ih;
    const T* prev[Cell::states];
    T* next[Cell::states];
    T* saved;  // null in inference
    T* y;      // null where steps are run again
    int64_t y_stride;
    const int64_t* caller_row;
    Scratch<T> scratch;

    T* row(int64_t i, int64_t panel, int64_t side) const { return scratch.row(i, panel, side); }
    void finish(int64_t begin, int64_t end, int64_t panel, int64_t side) const {
        constexpr int64_t L = kLanes<T>;
        const int64_t unit_begin = scratch.panels.first_block(panel) * L;
        const int64_t unit_end = unit_begin + scratch.panels.vectors(panel, side) / Cell::gates * L;
        for (int64_t i = begin; i < end; ++i) {
            const T* u = row(i, panel, side);
            for (int64_t unit = unit_begin; unit < unit_end; unit += L, u += Cell::gates * L) {
                if (unit + L <= H) {
                    epilogue(i, unit, L, u, Full{});
                } else {
                    epilogue(i, unit, H - unit, u, Tail{static_cast<int>(H - unit)});
                }
            }
        }
    }
    template <class Part>
    inline __attribute__((always_inline)) void epilogue(int64_t i, int64_t unit, int64_t width, const T* u_row,
                                                        Part part) const {
        Vec<T> x_gates[Cell::gates], u[Cell::gates], from[Cell::states], to[Cell::states];
        Vec<T> keep[Cell::saved ? Cell::saved : 1];
        if (pre) {
            const T* pre_row = pre + ((tokens ? tokens[caller_row[i]] : i) * H + unit) * Cell::gates;
            for (int g = 0; g < Cell::gates; ++g) x_gates[g] = load(pre_row + g * width, part);
        } else {
            input(x_gates, x + caller_row[i] * I, unit);
        }
        for (int g = 0; g < Cell::gates; ++g) u[g] = load(u_row + g * kLanes<T>);
        for (int s = 0; s < Cell::states; ++s) from[s] = load(prev[s] + i * H + unit, part);
        Cell::forward(x_gates, u, from, to, keep);
        for (int s = 0; s < Cell::states; ++s) store(next[s] + i * H + unit, to[s], part);
        if (y) store(y + caller_row[i] * y_stride + unit, to[0], part);
        if (Cell::saved && saved) {
            T* saved_row = saved + i * H * Cell::saved + unit * Cell::saved;
            for (int s = 0; s < Cell::saved; ++s) store(saved_row + s * width, keep[s], part);
        }
    }
    // x W' + b_ih of L units, in the order of multiply
    void input(Vec<T>* gates, const T* x_row, int64_t unit) const {
        constexpr int64_t L = kLanes<T>;
        const Panels& panels = scratch.panels;
        const int64_t panel = unit / L / panels.panel_blocks, first = panels.first_block(panel) * Cell::gates * L;
        const int64_t stride = panels.vectors(panel) * L, at = unit * Cell::gates - first;
        for (int g = 0; g < Cell::gates; ++g) gates[g] = load(b_ih + first + at + g * L);
        const T* w_row = w + first * I + at;
        for (int64_t k = 0; k < I; ++k, w_row += stride) {
            const Vec<T> xk = splat(x_row[k]);
            for (int g = 0; g < Cell::gates; ++g) gates[g] = fma(xk, load(w_row + g * L), gates[g]);
        }
    }
};

template <int G, class T>
void input(const Forward<T>& task, int64_t rows, const T* const* x_rows, Span part, T* pre) {
    const FlushDenormals guard;
    T scratch[kScratchSize<T>];
    const Panels panels = gate_panels<G, T>(task.H);
    const auto pre_row = [=, &task](int64_t i) { return pre + i * task.H * G; };
    const StoreRows<T, decltype(pre_row)> sink{task.H, pre_row, {panels, scratch}};
    const auto x_row = [=](int64_t i) { return x_rows[i]; };
    if (task.packed) {
        multiply(rows, task.I, panels, part, task.w, task.b_ih, x_row, sink);
    } else {
        multiply_unpacked(rows, task.I, task.H, panels, part, task.w, task.b_ih, x_row, sink);
    }
}

template <class Cell, class T>
void forward(const Forward<T>& task, Span time, Span rows, Span part, const T* pre, T*) {
    const FlushDenormals guard;
    T scratch[kScratchSize<T>];
    const Batch& batch = task.batch;
    const int64_t H = task.H;
    const Panels panels = gate_panels<Cell::gates, T>(H);
    const int64_t unit_begin = panels.first_block(part.begin) * kLanes<T>;
    const int64_t unit_end = least(H, panels.first_block(part.end) * kLanes<T>);

    for (int64_t t = time.begin; t < time.end; ++t) {
        const int64_t n = alive(batch, t, rows);
        const int64_t first = batch.offset[t] + rows.begin;
        const int64_t prev_row = (task.keep ? kept_before(batch, task.kept_from, t) : t % 2 * batch.N) + rows.begin;
        const int64_t next_row =
            (task.keep ? kept_before(batch, task.kept_from, t + 1) : (t + 1) % 2 * batch.N) + rows.begin;

        ForwardStep<Cell, T> step{};
        step.H = H;
        step.I = task.I;
        step.pre = task.table_pre ? task.table_pre : pre;
        step.tokens = task.table_pre ? task.tokens : nullptr;
        step.x = task.x;
        step.w = task.w;
        step.b_ih = task.b_ih;
        for (int s = 0; s < Cell::states; ++s) {
            step.prev[s] = task.states[s] + prev_row * H;
            step.next[s] = task.states[s] + next_row * H;
        }
        step.saved = task.keep ? task.saved + (first - batch.offset[task.kept_from]) * H * Cell::saved : nullptr;
        step.y = task.y;
        step.y_stride = task.y_stride;
        step.caller_row = batch.caller_row + first;
        step.scratch = {panels, scratch};
        // u = h_{t-1} U' + b_hh, then the cell
        const T* h = step.prev[0];
        const auto h_row = [=](int64_t i) { return h + i * H; };
        if (task.packed) {
            multiply(n, H, panels, part, task.u[0], task.b_hh[0], h_row, step, alternating(t));
        } else {
            multiply_unpacked(n, H, H, panels, part, task.u[0], task.b_hh[0], h_row, step);
        }

        // rows whose sequence ends here
        for (int64_t i = alive(batch, t + 1, rows); i < n; ++i) {
            const int64_t caller = batch.order[rows.begin + i];
            for (int s = 0; s < Cell::states && task.last[s]; ++s) {
                __builtin_memcpy(task.last[s] + caller * H + unit_begin, step.next[s] + i * H + unit_begin,
                                 sizeof(T) * (unit_end - unit_begin));
            }
        }
        if (pre) pre += n * H * Cell::gates;
    }
}

// --- backward -----------------------------------------------------------------------------------------------------

// One step of BPTT of some rows. Where ForwardStep has gates interleaved, gradients of gates lie gate-major as in
// torch: they are operands of the products that follow.
template <class Cell, class T>
struct BackwardStep {
    int64_t H;
    const T* saved;
    const T* prev[Cell::states];
    const T* next[Cell::states];
    const T* dy;  // null if absent
    const int64_t* caller_row;
    T* carry[Cell::states];
    T* dx;
    T* du;
    Scratch<T> scratch;

    T* row(int64_t i, int64_t panel, int64_t side) const { return scratch.row(i, panel, side); }
    void finish(int64_t begin, int64_t end, int64_t panel, int64_t side) const {
        constexpr int64_t L = kLanes<T>;
        const int64_t unit_begin = scratch.panels.first_block(panel) * L;
        const int64_t unit_end = unit_begin + scratch.panels.vectors(panel, side) * L;
        for (int64_t i = begin; i < end; ++i) {
            const T* dh = row(i, panel, side);
            for (int64_t unit = unit_begin; unit < unit_end; unit += L, dh += L) {
                if (unit + L <= H) {
                    epilogue(i, unit, L, load(dh), Full{});
                } else {
                    epilogue(i, unit, H - unit, load(dh), Tail{static_cast<int>(H - unit)});
                }
            }
        }
    }
    template <class Part>
    inline __attribute__((always_inline)) void epilogue(int64_t i, int64_t unit, int64_t width, Vec<T> dh,
                                                        Part part) const {
        Vec<T> keep[Cell::saved ? Cell::saved : 1], from[Cell::states], to[Cell::states];
        Vec<T> dx_unit[Cell::gates], du_unit[Cell::gates], around[Cell::states];
        const int64_t at = i * H + unit;
        const T* saved_row = saved + i * H * Cell::saved + unit * Cell::saved;
        for (int s = 0; s < Cell::saved; ++s) keep[s] = load(saved_row + s * width, part);
        for (int s = 0; s < Cell::states; ++s) {
            from[s] = load(prev[s] + at, part);
            to[s] = load(next[s] + at, part);
        }
        if (dy) dh += load(dy + caller_row[i] * H + unit, part);
        for (int s = !Cell::hidden_carry; s < Cell::states; ++s) around[s] = load(carry[s] + at, part);
        Cell::backward(keep, from, to, dh, around, dx_unit, du_unit);
        for (int s = !Cell::hidden_carry; s < Cell::states; ++s) store(carry[s] + at, around[s], part);
        const int64_t gate_at = i * H * Cell::gates + unit;
        for (int g = 0; g < Cell::gates; ++g) {
            store(dx + gate_at + g * H, dx_unit[g], part);
            if (Cell::split_gradient) store(du + gate_at + g * H, du_unit[g], part);
        }
    }
};

// dh of the rows whose sequence ends here comes from the gradient of the final state instead of a product.
template <class T, class Sink>
void finish_ending_rows(const Backward<T>& task, int64_t first_row, Span ending, Span part, const Sink& sink) {
    const Panels panels = sink.scratch.panels;
    for (int64_t i = ending.begin; i < ending.end; ++i) {
        const T* dlast = task.dlast[0] ? task.dlast[0] + task.batch.order[first_row + i] * task.H : nullptr;
        for (int64_t panel = part.begin; panel < part.end; ++panel) {
            T* dh = sink.row(i, panel, 1);
            const int64_t first = panels.first_block(panel) * kLanes<T>;
            const int64_t width = panels.vectors(panel) * kLanes<T>;
            if (dlast) {
                copy_columns(dlast, 1, task.H, task.H, first, width, dh);
            } else {
                for (int64_t l = 0; l < width; ++l) dh[l] = 0;
            }
            sink.finish(i, i + 1, panel, 1);
        }
    }
}

template <class Cell, class T>
void backward(const Backward<T>& task, Span time, Span rows, Span part, T*) {
    const FlushDenormals guard;
    T scratch[kScratchSize<T>];
    const Batch& batch = task.batch;
    const int64_t H = task.H, GH = H * Cell::gates;
    const Panels panels = column_panels<T>(H, task.u_stride[0]);
    const auto gates_at = [&](T* buffer, int64_t t) {
        return buffer + (batch.offset[t] - batch.offset[task.chunk.begin] + rows.begin) * GH;
    };

    for (int64_t t = time.end - 1; t >= time.begin; --t) {
        const int64_t n = alive(batch, t, rows);
        const int64_t continuing = alive(batch, t + 1, rows);
        const int64_t first = batch.offset[t] + rows.begin;
        const int64_t prev_row = kept_before(batch, task.kept_from, t) + rows.begin;
        const int64_t next_row = kept_before(batch, task.kept_from, t + 1) + rows.begin;

        BackwardStep<Cell, T> step{};
        step.H = H;
        step.saved = task.saved + (first - batch.offset[task.kept_from]) * H * Cell::saved;
        for (int s = 0; s < Cell::states; ++s) {
            step.prev[s] = task.states[s] + prev_row * H;
            step.next[s] = task.states[s] + next_row * H;
        }
        step.dy = task.dy;
        step.caller_row = batch.caller_row + first;
        for (int s = !Cell::hidden_carry; s < Cell::states; ++s) step.carry[s] = task.carry[s] + rows.begin * H;
        step.dx = gates_at(task.dx_gates, t);
        step.du = gates_at(task.du[0], t);
        step.scratch = {panels, scratch};
        // dh = du_{t+1} U, then the cell
        const T* du = t + 1 < task.chunk.end ? gates_at(task.du[0], t + 1) : task.du_next + rows.begin * GH;
        multiply(
            continuing, GH, panels, part, task.u[0], static_cast<const T*>(nullptr),
            [=](int64_t i) { return du + i * GH; }, step, alternating(t));
        finish_ending_rows(task, rows.begin, {continuing, n}, part, step);
    }
}

template <class Cell, class T>
void backward_first(const Backward<T>& task, Span rows) {
    gradients_of_first_states<T>(task, needs<Cell, T>(*task.options, task.H, task.P), rows);
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
