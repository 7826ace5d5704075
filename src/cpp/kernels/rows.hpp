// The time loop of cells that work row by row (rowwise.hpp): products into rows of memory, then the cell on each whole
// row; and what is common to such cells, masks and the share of the new state that is taken. Where sequence.hpp spares
// every load that it can, this spares cells every detail but their equations.
#pragma once

#include "rowwise.hpp"
#include "sequence.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// How the products of a step follow each other: those of the first transition, of the second, ..., each a stage; and
// before them all that of the shortcut, which is the last of the products. A projection is a stage of the only one.
struct RowStages {
    int count, of_transition;
    int shortcut;  // number of the product, or of none

    RowStages(const Options& options, const Needs& needs)
        : count(needs.products - options.shortcut), of_transition(count / options.depth), shortcut(count) {}
    // Whether a product has memory of its own for its results: transitions share that of the first.
    bool has_room(int product) const { return product < of_transition || product == shortcut; }
};

template <class T>
[[gnu::noinline]] Needs needs_of_rows(const RowShape& cell, const Options& options, int64_t H, int64_t P) {
    Needs needs{};
    const int64_t sizes[2] = {P, H};
    for (int s = 0; s < cell.states; ++s) {
        needs.state[s] = sizes[s];
        needs.carry[s] = true;
    }
    const int64_t GH = cell.gates * H;
    for (int depth = 0; depth < options.depth; ++depth) {
        int64_t at = 0;  // of the rows of a transition's matrix
        for (int p = 0; p < cell.products; ++p) {
            const int64_t columns = cell.gates_of_product[p] * H;
            const int64_t own = p == 0 && (depth > 0 || cell.split_gradient) ? GH : 0;
            const bool inner = depth > 0;
            needs.product[needs.products] = {
                P, columns, (inner ? depth - 1 : 0) * GH + at, inner, true, needs.products, own, at};
            ++needs.products, at += columns;
        }
    }
    if (options.shortcut) {  // (whose result is in the place of W x: its gradients are dx, mostly those of du)
        needs.product[needs.products] = {P,     GH, (options.depth - 1) * GH,     true,
                                         false, 0,  cell.split_gradient ? GH : 0, 0};
        ++needs.products;
    }
    if (cell.projects && P != H) {
        needs.product[needs.products] = {H, P, 0, true, false, needs.products, P, 0};
        ++needs.products;
    }
    needs.saved = options.depth * RowLayer<T>::saved(cell, options, H);
    needs.vectors = options.depth * RowLayer<T>::vectors(cell, options, H);
    const RowStages stages(options, needs);
    for (int p = 0; p < needs.products; ++p) {
        if (stages.has_room(p)) needs.forward_row += needs.product[p].columns;
        if (needs.product[p].operand == p) needs.forward_row += needs.product[p].K;
    }
    (stages.count > 1 ? needs.forward_row : needs.forward_once) += needs.saved;  // until the row's last stage
    needs.backward_row = P + H;
    needs.backward_once = kRoom * H + P;
    if (stages.count > 1) needs.backward_row += needs.product[1].K;
    if (options.depth > 1) {
        needs.forward_once += GH, needs.backward_once += GH;
        needs.backward_row += P + H;
    }
    return needs;
}

template <class Cell, class T>
Needs row_needs(const Options& options, int64_t H, int64_t P) {
    return needs_of_rows<T>(row_cell<Cell, T>.shape, options, H, P);
}

// Rows of what is taken of a new state: a constant, or one for each element.
template <class T>
struct Take {
    int64_t size;
    T constant;
    const T* mask;  // (caller rows, size) or null

    Take(const Options& options, int state, const T* mask, int64_t size)
        : size(size), constant(static_cast<T>(options.take[state])), mask(mask) {}
    bool all() const { return !mask && constant == 1; }

    // f(i, part, share) for the vectors of a row
    template <class F>
    void each(int64_t caller_row, F f) const {
        const T* row = mask ? mask + caller_row * size : nullptr;
        each_vector<T>(
            size, [&](int64_t i, auto part) { f(i, part, row ? load(row + i, part) * constant : splat(constant)); });
    }
    // next = share next + (1 - share) previous: exactly one of them where the share is 0 or 1
    [[gnu::noinline]] void forward(int64_t caller_row, const T* previous, T* next) const {
        if (all()) return;
        each(caller_row, [&](int64_t i, auto part, Vec<T> share) {
            store(next + i, fma(share, load(next + i, part), (1 - share) * load(previous + i, part)), part);
        });
    }
    // and so d, of which carry is what reaches the state before
    [[gnu::noinline]] void backward(int64_t caller_row, T* d, T* carry) const {
        if (all()) return __builtin_memset(carry, 0, sizeof(T) * size), void();
        each(caller_row, [&](int64_t i, auto part, Vec<T> share) {
            const Vec<T> whole = load(d + i, part);
            store(carry + i, (1 - share) * whole, part);
            store(d + i, share * whole, part);
        });
    }
};

// x W' + b_ih of rows, gate-major
template <class Cell, class T>
void input_rows(const Forward<T>& task, int64_t rows, const T* const* x_rows, Span, T* pre) {
    const FlushDenormals guard;
    multiply_into(rows, product_of(task.I, Cell::gates * task.H), task.packed, task.w, task.b_ih,
                  Rows<T>{nullptr, 0, x_rows}, pre, Order::ascending);
}

inline int64_t one_panel(int64_t) {
    return 1;
}

template <class T>
[[gnu::noinline]] void run_rows_forward(const RowCell<T>& cell, const Forward<T>& task, Span time, Span rows,
                                        const T* pre, T* workspace) {
    const FlushDenormals guard;
    const Batch& batch = task.batch;
    const RowShape& shape = cell.shape;
    const Options& options = *task.options;
    const Needs needs = needs_of_rows<T>(shape, options, task.H, task.P);
    const RowStages stages(options, needs);
    RowLayer<T> layer(shape, options, task.H, task.P, task.vectors);
    const Take<T> take[2] = {{options, 0, task.take[0], task.P}, {options, 1, task.take[1], task.H}};
    const int64_t GH = shape.gates * task.H, P = task.P, most = rows.end - rows.begin;
    const int64_t depth_saved = needs.saved / options.depth, depth_vectors = needs.vectors / options.depth;

    T *u[kMaxProducts], *operands[kMaxProducts];
    for (int p = 0; p < needs.products; ++p) {
        const Product& product = needs.product[p];
        u[p] = stages.has_room(p) ? workspace : u[p % stages.of_transition];
        if (stages.has_room(p)) workspace += most * product.columns;
        operands[p] = workspace;
        if (product.operand == p) workspace += most * product.K;
    }
    T* const saved = workspace;  // in inference
    T* const no_input = saved + (stages.count > 1 ? most : 1) * needs.saved;
    if (options.depth > 1) __builtin_memset(no_input, 0, sizeof(T) * GH);

    for (int64_t t = time.begin; t < time.end; ++t) {
        const int64_t n = alive(batch, t, rows);
        const int64_t first = batch.offset[t] + rows.begin;
        const int64_t kept = task.keep ? first - batch.offset[task.kept_from] : 0;
        const int64_t previous_row = (task.keep ? kept_before(batch, task.kept_from, t) : t % 2 * batch.N) + rows.begin;
        const int64_t next_row =
            (task.keep ? kept_before(batch, task.kept_from, t + 1) : (t + 1) % 2 * batch.N) + rows.begin;
        const int64_t* caller_row = batch.caller_row + first;
        for (int p = 0; p < needs.products; ++p) {
            if (task.keep && task.operands[p]) operands[p] = task.operands[p] + kept * needs.product[p].K;
        }
        const T* h = task.states[0] + previous_row * P;
        if (task.recurrent_mask) {
            for (int64_t i = 0; i < n; ++i) {
                const T* mask = task.recurrent_mask + batch.order[rows.begin + i] * P;
                map<T>(
                    P, operands[0] + i * P, [](auto m, auto h) { return m * h; }, mask, h + i * P);
            }
            h = operands[0];
        }
        const auto product = [&](int p, const T* operand) {
            const int64_t K = needs.product[p].K;
            multiply_into(n, needs.product[p], task.packed, task.u[p], task.b_hh[p], Rows<T>{operand, K}, u[p],
                          alternating(t));
        };

        if (options.shortcut) product(stages.shortcut, h);
        int stage = 0;
        for (int depth = 0; depth < options.depth; ++depth) {
            const bool last = depth + 1 == options.depth, has_shortcut = last && options.shortcut;
            const int p = stage;                      // the first product of the transition,
            const T* from = depth ? operands[p] : h;  // what it multiplies,
            T* to =
                last ? task.states[0] + next_row * P : operands[p + stages.of_transition];  // and what becomes of it
            for (int k = 0; k < stages.of_transition; ++k, ++stage) {
                product(stage, k ? operands[stage] : from);
                for (int64_t i = 0; i < n; ++i) {
                    RowForward<T> row{};
                    row.saved = (task.keep ? task.saved + (kept + i) * needs.saved
                                           : saved + (stages.count > 1 ? i * needs.saved : 0)) +
                                depth * depth_saved;
                    if (depth > 0) {
                        row.x = has_shortcut ? u[stages.shortcut] + i * GH : no_input;
                    } else {
                        row.x = task.table_pre ? task.table_pre + task.tokens[caller_row[i]] * GH : pre + i * GH;
                    }
                    for (int q = 0; q < stages.of_transition; ++q) row.u[q] = u[q] + i * needs.product[q].columns;
                    row.h = from + i * P;
                    for (int s = 0; s < shape.states; ++s) {
                        row.previous[s] = task.states[s] + (previous_row + i) * needs.state[s];
                        row.next[s] = task.states[s] + (next_row + i) * needs.state[s];
                    }
                    // Between transitions h is an operand, and c what the cell has saved of it.
                    if (depth > 0) {
                        row.previous[0] = row.h;
                        if (shape.states > 1) row.previous[1] = layer.kept(row.saved - depth_saved, 0);
                    }
                    if (!last) {
                        row.next[0] = to + i * P;
                        if (shape.states > 1) row.next[1] = layer.kept(row.saved, 0);
                    }
                    row.operand = stages.of_transition > 1 ? operands[p + 1] + i * needs.product[1].K : row.next[0];
                    cell.forward(layer, k, row);
                    if (!last || k + 1 < stages.of_transition) continue;
                    if (options.depth > 1) {  // the state before the step, not before the last transition
                        for (int s = 0; s < shape.states; ++s) {
                            row.previous[s] = task.states[s] + (previous_row + i) * needs.state[s];
                        }
                    }
                    for (int s = 0; s < shape.states; ++s) take[s].forward(caller_row[i], row.previous[s], row.next[s]);
                    if (task.y) __builtin_memcpy(task.y + caller_row[i] * task.y_stride, row.next[0], sizeof(T) * P);
                }
            }
            if (options.depth > 1) layer.move_vectors(last ? -depth * depth_vectors : depth_vectors);
        }

        // rows whose sequence ends here
        for (int64_t i = alive(batch, t + 1, rows); i < n; ++i) {
            const int64_t caller = batch.order[rows.begin + i];
            for (int s = 0; s < shape.states && task.last[s]; ++s) {
                const int64_t size = needs.state[s];
                __builtin_memcpy(task.last[s] + caller * size, task.states[s] + (next_row + i) * size,
                                 sizeof(T) * size);
            }
        }
        if (pre) pre += n * GH;
    }
}

template <class Cell, class T>
void forward_rows(const Forward<T>& task, Span time, Span rows, Span, const T* pre, T* workspace) {
    run_rows_forward(row_cell<Cell, T>, task, time, rows, pre, workspace);
}

template <class T>
[[gnu::noinline]] void run_rows_backward(const RowCell<T>& cell, const Backward<T>& task, Span time, Span rows,
                                         T* workspace) {
    const FlushDenormals guard;
    const Batch& batch = task.batch;
    const RowShape& shape = cell.shape;
    const Options& options = *task.options;
    const Needs needs = needs_of_rows<T>(shape, options, task.H, task.P);
    const RowStages stages(options, needs);
    RowLayer<T> layer(shape, options, task.H, task.P, task.vectors);
    const Take<T> take[2] = {{options, 0, task.take[0], task.P}, {options, 1, task.take[1], task.H}};
    const int64_t GH = shape.gates * task.H, most = rows.end - rows.begin, P = task.P;
    const int64_t depth_saved = needs.saved / options.depth, depth_vectors = needs.vectors / options.depth;
    const auto sum = [](auto a, auto b) { return a + b; };

    // gradients of what a transition made of the states, and, of deep ones, of the states before it
    T *d[2] = {workspace, workspace + most * P}, *before[2] = {};
    T* const doperand = d[1] + most * task.H;
    T* room = doperand + (stages.count > 1 ? most * needs.product[1].K : 0);
    if (options.depth > 1) {
        before[0] = room, before[1] = room + most * P;
        room += most * (P + task.H);
    }
    T* const dmasked = room + kRoom * task.H;
    T* const unread = dmasked + P;  // dx of a transition without an input, if du differs
    if (options.depth > 1) layer.move_vectors((options.depth - 1) * depth_vectors);

    for (int64_t t = time.end - 1; t >= time.begin; --t) {
        const int64_t n = alive(batch, t, rows);
        const int64_t first = batch.offset[t] + rows.begin, kept = first - batch.offset[task.kept_from];
        const int64_t previous_row = kept_before(batch, task.kept_from, t) + rows.begin;
        const int64_t* caller_row = batch.caller_row + first;
        const auto of_chunk = [&](T* array, int64_t step, int64_t stride) {
            return array + (batch.offset[step] - batch.offset[task.chunk.begin] + rows.begin) * stride;
        };
        const auto du_of = [&](int p) { return of_chunk(task.du[p], t, task.du_stride[p]); };
        const auto carry = [&](int s, int64_t i) { return task.carry[s] + (rows.begin + i) * needs.state[s]; };
        const auto d_row = [&](int s, int64_t i) { return d[s] + i * needs.state[s]; };
        const auto mask_of = [&](int64_t i) {
            return task.recurrent_mask ? task.recurrent_mask + batch.order[rows.begin + i] * P : nullptr;
        };
        const auto add_masked = [](auto to, auto m, auto d) { return fma(m, d, to); };
        const auto back = [&](int p) {
            multiply_back<T>(n, needs.product[p], task.u[p], task.u_stride[p], du_of(p), task.du_stride[p], nullptr,
                             doperand, alternating(t));
        };

        const T* du_next = t + 1 < task.chunk.end ? of_chunk(task.du[0], t + 1, task.du_stride[0])
                                                  : task.du_next + rows.begin * task.du_stride[0];
        recurrent_gradient<T>(task, needs.product[0], rows.begin, alive(batch, t + 1, rows), n, du_next, nullptr, d[0],
                              alternating(t));
        for (int64_t i = 0; i < n; ++i) {
            map<T>(P, d_row(0, i), sum, d_row(0, i), carry(0, i));
            if (task.dy) map<T>(P, d_row(0, i), sum, d_row(0, i), task.dy + caller_row[i] * P);
            if (shape.states > 1) __builtin_memcpy(d_row(1, i), carry(1, i), sizeof(T) * task.H);
            for (int s = 0; s < shape.states; ++s) take[s].backward(caller_row[i], d_row(s, i), carry(s, i));
        }

        for (int depth = options.depth - 1; depth >= 0; --depth) {
            const int p = depth * stages.of_transition;  // the first product of the transition
            const bool has_shortcut = options.shortcut && depth + 1 == options.depth;
            for (int s = 0; s < shape.states && depth > 0; ++s) {
                __builtin_memset(before[s], 0, sizeof(T) * n * needs.state[s]);
            }
            for (int k = stages.of_transition - 1; k >= 0; --k) {
                for (int64_t i = 0; i < n; ++i) {
                    RowBackward<T> row{};
                    row.saved = task.saved + (kept + i) * needs.saved + depth * depth_saved;
                    const T* mask = depth == 0 ? mask_of(i) : nullptr;
                    for (int s = 0; s < shape.states; ++s) {
                        row.previous[s] = task.states[s] + (previous_row + i) * needs.state[s];
                        row.d[s] = d_row(s, i);
                        row.dprevious[s] = depth > 0 ? before[s] + i * needs.state[s] : carry(s, i);
                    }
                    if (depth > 0) {
                        row.previous[0] = task.operands[p] + (kept + i) * P;
                        if (shape.states > 1) row.previous[1] = layer.kept(row.saved - depth_saved, 0);
                    }
                    row.h = mask ? task.operands[0] + (kept + i) * P : row.previous[0];
                    row.dh = mask ? dmasked : row.dprevious[0];
                    for (int q = 0; q < stages.of_transition; ++q) row.du[q] = du_of(p + q) + i * task.du_stride[p + q];
                    if (depth == 0) {
                        row.dx = of_chunk(task.dx_gates, t, GH) + i * GH;
                    } else if (has_shortcut) {
                        row.dx = du_of(stages.shortcut) + i * GH;
                    } else {
                        row.dx = shape.split_gradient ? unread : row.du[0];
                    }
                    row.doperand = stages.of_transition > 1 ? doperand + i * needs.product[1].K : row.d[0];
                    row.sums = task.sums + (rows.begin + i) * needs.vectors + depth * depth_vectors;
                    row.room = room;
                    if (mask) __builtin_memset(dmasked, 0, sizeof(T) * P);
                    cell.backward(layer, k, row);
                    if (mask) map<T>(P, row.dprevious[0], add_masked, row.dprevious[0], mask, dmasked);
                }
                if (k > 0) back(p + k);
            }
            if (depth == 0) continue;
            // through the first product of the transition, to the one before
            back(p);
            for (int64_t i = 0; i < n; ++i) map<T>(P, before[0] + i * P, sum, before[0] + i * P, doperand + i * P);
            for (int s = 0; s < shape.states; ++s) {
                T* const made = d[s];
                d[s] = before[s], before[s] = made;
            }
            layer.move_vectors(-depth_vectors);
        }
        if (options.depth > 1) layer.move_vectors((options.depth - 1) * depth_vectors);
        if (!options.shortcut) continue;
        back(stages.shortcut);
        for (int64_t i = 0; i < n; ++i) {
            T* dh = carry(0, i);
            const T* through = doperand + i * P;
            if (const T* mask = mask_of(i)) {
                map<T>(P, dh, add_masked, dh, mask, through);
            } else {
                map<T>(P, dh, sum, dh, through);
            }
        }
    }
}

template <class Cell, class T>
void backward_rows(const Backward<T>& task, Span time, Span rows, Span, T* workspace) {
    run_rows_backward(row_cell<Cell, T>, task, time, rows, workspace);
}

template <class Cell, class T>
void backward_first_rows(const Backward<T>& task, Span rows) {
    gradients_of_first_states<T>(task, row_needs<Cell, T>(*task.options, task.H, task.P), rows);
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
