// The time loop of cells that work row by row (rowwise.hpp): products into rows of memory, then the cell on each whole
// row; and what is common to such cells, masks and the share of the new state that is taken. Where sequence.hpp spares
// every load that it can, this spares cells every detail but their equations.
#pragma once

#include "rowwise.hpp"
#include "sequence.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

template <class Cell, class T>
Needs row_needs(const Options& options, int64_t H, int64_t P) {
    Needs needs{};
    const int64_t sizes[2] = {P, H};
    for (int s = 0; s < Cell::states; ++s) {
        needs.state[s] = sizes[s];
        needs.carry[s] = true;
    }
    needs.split_gradient = Cell::split_gradient;
    needs.products = Cell::products;
    for (int p = 0, first = 0; p < Cell::products; first += Cell::gates_of_product(p++)) {
        needs.product[p] = {P, Cell::gates_of_product(p) * H, first * H, false};
    }
    if constexpr (Cell::projects) {
        if (P != H) needs.product[needs.products++] = {H, P, 0, true};
    }
    needs.saved = RowLayer<Cell, T>::saved(options, H);
    needs.vectors = RowLayer<Cell, T>::vectors(options, H);
    for (int p = 0; p < needs.products; ++p) needs.forward_row += needs.product[p].K + needs.product[p].columns;
    (needs.products > 1 ? needs.forward_row : needs.forward_once) += needs.saved;  // until the row's last stage
    needs.backward_row = P + H + (needs.products > 1 ? needs.product[1].K : 0);
    needs.backward_once = kRoom * H + P;
    return needs;
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
    const Product product{task.I, Cell::gates * task.H, 0, false};
    multiply_into(rows, product, task.packed, task.w, task.b_ih, Rows<T>{nullptr, 0, x_rows}, pre, Order::ascending);
}

inline int64_t one_panel(int64_t) {
    return 1;
}

template <class Cell, class T>
void forward_rows(const Forward<T>& task, Span time, Span rows, Span, const T* pre, T* workspace) {
    const FlushDenormals guard;
    const Batch& batch = task.batch;
    const Needs needs = row_needs<Cell, T>(*task.options, task.H, task.P);
    const RowLayer<Cell, T> layer(*task.options, task.H, task.P, task.vectors);
    const Take<T> take[2] = {{*task.options, 0, task.take[0], task.P}, {*task.options, 1, task.take[1], task.H}};
    const int64_t GH = Cell::gates * task.H, most = rows.end - rows.begin;

    T *u[kMaxProducts], *operands[kMaxProducts];
    for (int p = 0; p < needs.products; ++p) {
        u[p] = workspace, operands[p] = workspace + most * needs.product[p].columns;
        workspace += most * (needs.product[p].columns + needs.product[p].K);
    }
    T* const saved = workspace;  // in inference

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
        const T* h = task.states[0] + previous_row * task.P;
        if (task.recurrent_mask) {
            for (int64_t i = 0; i < n; ++i) {
                const T* mask = task.recurrent_mask + batch.order[rows.begin + i] * task.P;
                map<T>(
                    task.P, operands[0] + i * task.P, [](auto m, auto h) { return m * h; }, mask, h + i * task.P);
            }
            h = operands[0];
        }

        for (int stage = 0; stage < needs.products; ++stage) {
            const T* operand = stage ? operands[stage] : h;
            const int64_t K = needs.product[stage].K;
            multiply_into(n, needs.product[stage], task.packed, task.u[stage], task.b_hh[stage], Rows<T>{operand, K},
                          u[stage], alternating(t));
            const bool last = stage + 1 == needs.products;
            for (int64_t i = 0; i < n; ++i) {
                RowForward<T> row{};
                row.x = task.table_pre ? task.table_pre + task.tokens[caller_row[i]] * GH : pre + i * GH;
                for (int p = 0; p < needs.products; ++p) row.u[p] = u[p] + i * needs.product[p].columns;
                row.h = h + i * task.P;
                for (int s = 0; s < Cell::states; ++s) {
                    row.previous[s] = task.states[s] + (previous_row + i) * needs.state[s];
                    row.next[s] = task.states[s] + (next_row + i) * needs.state[s];
                }
                row.operand = needs.products > 1 ? operands[1] + i * needs.product[1].K : row.next[0];
                row.saved = task.keep ? task.saved + (kept + i) * needs.saved
                                      : saved + (needs.products > 1 ? i * needs.saved : 0);
                Cell::forward(layer, stage, row);
                if (!last) continue;
                for (int s = 0; s < Cell::states; ++s) take[s].forward(caller_row[i], row.previous[s], row.next[s]);
                if (task.y) __builtin_memcpy(task.y + caller_row[i] * task.y_stride, row.next[0], sizeof(T) * task.P);
            }
        }

        // rows whose sequence ends here
        for (int64_t i = alive(batch, t + 1, rows); i < n; ++i) {
            const int64_t caller = batch.order[rows.begin + i];
            for (int s = 0; s < Cell::states && task.last[s]; ++s) {
                const int64_t size = needs.state[s];
                __builtin_memcpy(task.last[s] + caller * size, task.states[s] + (next_row + i) * size,
                                 sizeof(T) * size);
            }
        }
        if (pre) pre += n * GH;
    }
}

template <class Cell, class T>
void backward_rows(const Backward<T>& task, Span time, Span rows, Span, T* workspace) {
    const FlushDenormals guard;
    const Batch& batch = task.batch;
    const Needs needs = row_needs<Cell, T>(*task.options, task.H, task.P);
    const RowLayer<Cell, T> layer(*task.options, task.H, task.P, task.vectors);
    const Take<T> take[2] = {{*task.options, 0, task.take[0], task.P}, {*task.options, 1, task.take[1], task.H}};
    const int64_t GH = Cell::gates * task.H, most = rows.end - rows.begin, P = task.P;
    const auto sum = [](auto a, auto b) { return a + b; };

    T* const d[2] = {workspace, workspace + most * P};
    T* const doperand = d[1] + most * task.H;
    T* const room = doperand + (needs.products > 1 ? most * needs.product[1].K : 0);
    T* const dmasked = room + kRoom * task.H;

    for (int64_t t = time.end - 1; t >= time.begin; --t) {
        const int64_t n = alive(batch, t, rows);
        const int64_t first = batch.offset[t] + rows.begin, kept = first - batch.offset[task.kept_from];
        const int64_t previous_row = kept_before(batch, task.kept_from, t) + rows.begin;
        const int64_t* caller_row = batch.caller_row + first;
        const auto of_chunk = [&](T* array, int64_t step, int64_t stride) {
            return array + (batch.offset[step] - batch.offset[task.chunk.begin] + rows.begin) * stride;
        };
        const auto carry = [&](int s, int64_t i) { return task.carry[s] + (rows.begin + i) * needs.state[s]; };
        const auto d_row = [&](int s, int64_t i) { return d[s] + i * needs.state[s]; };

        const T* du_next = t + 1 < task.chunk.end ? of_chunk(task.du[0], t + 1, task.du_stride[0])
                                                  : task.du_next + rows.begin * task.du_stride[0];
        recurrent_gradient<T>(task, needs.product[0], rows.begin, alive(batch, t + 1, rows), n, du_next, nullptr, d[0],
                              alternating(t));
        for (int64_t i = 0; i < n; ++i) {
            map<T>(P, d_row(0, i), sum, d_row(0, i), carry(0, i));
            if (task.dy) map<T>(P, d_row(0, i), sum, d_row(0, i), task.dy + caller_row[i] * P);
            if (Cell::states > 1) __builtin_memcpy(d_row(1, i), carry(1, i), sizeof(T) * task.H);
            for (int s = 0; s < Cell::states; ++s) take[s].backward(caller_row[i], d_row(s, i), carry(s, i));
        }

        for (int stage = needs.products - 1; stage >= 0; --stage) {
            for (int64_t i = 0; i < n; ++i) {
                RowBackward<T> row{};
                row.saved = task.saved + (kept + i) * needs.saved;
                const T* mask = task.recurrent_mask ? task.recurrent_mask + batch.order[rows.begin + i] * P : nullptr;
                for (int s = 0; s < Cell::states; ++s) {
                    row.previous[s] = task.states[s] + (previous_row + i) * needs.state[s];
                    row.d[s] = d_row(s, i);
                    row.dprevious[s] = carry(s, i);
                }
                row.h = mask ? task.operands[0] + (kept + i) * P : row.previous[0];
                row.dh = mask ? dmasked : row.dprevious[0];
                row.dx = of_chunk(task.dx_gates, t, GH) + i * GH;
                for (int p = 0; p < needs.products; ++p) {
                    row.du[p] = of_chunk(task.du[p], t, task.du_stride[p]) + i * task.du_stride[p];
                }
                row.doperand = needs.products > 1 ? doperand + i * needs.product[1].K : row.d[0];
                row.sums = task.sums + (rows.begin + i) * needs.vectors;
                row.room = room;
                if (mask) __builtin_memset(dmasked, 0, sizeof(T) * P);
                Cell::backward(layer, stage, row);
                if (!mask) continue;
                const auto add_masked = [](auto to, auto m, auto d) { return fma(m, d, to); };
                map<T>(P, row.dprevious[0], add_masked, row.dprevious[0], mask, dmasked);
            }
            if (stage == 0) continue;
            multiply_back<T>(n, needs.product[stage], task.u[stage], task.u_stride[stage],
                             of_chunk(task.du[stage], t, task.du_stride[stage]), task.du_stride[stage], nullptr,
                             doperand, alternating(t));
        }
    }
}

template <class Cell, class T>
void backward_first_rows(const Backward<T>& task, Span rows) {
    gradients_of_first_states<T>(task, row_needs<Cell, T>(*task.options, task.H, task.P), rows);
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
