// One layer in one direction, over any part of its steps, rows and hidden units: what forward passes are cut into.
#pragma once

#include <algorithm>

#include "memory.hpp"
#include "plan.hpp"

namespace rnncore {

// Up to so many inputs the time loop makes the product with W itself, which spares writing and reading it.
inline constexpr int64_t kFewInputs = 4;

// Rows of a table that are multiplied at a time.
inline constexpr int64_t kTableRows = 48;

// What a call needs besides the caller's arrays: for the input products of so many parts at a time, for states, and for
// the cells of each part.
template <class T>
struct Workspace {
    int64_t rows, row_size, cell_size;
    T *pre, *states, *pointers, *cells;
    Arrays<T> memory;

    Workspace(int64_t states_size, int64_t input_parts, int64_t rows, int64_t row_size, int64_t parts,
              int64_t cell_size)
        : rows(rows), row_size(row_size), cell_size(cell_size) {
        memory.add(pre, input_parts * rows * row_size);
        memory.add(states, states_size);
        memory.add(pointers, input_parts * rows * static_cast<int64_t>(sizeof(const T*) / sizeof(T)));
        memory.add(cells, parts * cell_size);
        memory.allocate();
    }
    T* cell_of(int64_t part) const { return cells + part * cell_size; }
    T* pre_of(int64_t part) const { return pre + part * rows * row_size; }
    const T** x_rows_of(int64_t part) const { return reinterpret_cast<const T**>(pointers) + part * rows; }
};

// y += x, at these steps of these sorted rows: of two directions, each adds the part of x that its part of y lies over.
template <class T>
void add_input(const Forward<T>& task, Span time, Span rows, int64_t first_column = 0) {
    const Batch& batch = task.batch;
    for (int64_t t = time.begin; t < time.end; ++t) {
        const int64_t end = std::min(rows.end, batch.count[t]);
        for (int64_t n = rows.begin; n < end; ++n) {
            const int64_t row = batch.caller_row[batch.offset[t] + n];
            const T* x = task.x + row * task.I + first_column;
            T* y = task.y + row * task.y_stride;
            for (int64_t p = 0; p < task.P; ++p) y[p] += x[p];
        }
    }
}

template <class T>
struct Pass {
    const CellKernels<T>* cell;
    const Plan* plan;
    const Workspace<T>* workspace;
    int64_t chunk_rows;
    bool skip;             // whether x is added to y,
    int64_t first_column;  // from this column on
    Forward<T> task;

    // Whether the input products are made a chunk at a time: neither for a whole table before, nor by the time loop.
    bool input_by_chunks() const {
        return !task.table_pre && (task.tokens || !task.packed || task.I > kFewInputs || !cell->input_in_loop);
    }
    Span all_rows() const { return {0, task.batch.N}; }
    Span all_panels() const { return {0, cell->forward_panels(task.H)}; }

    void all_steps(Span time, Span rows, int64_t part) const {
        const int64_t last = std::min(plan->steps(rows), time.end);
        for (int64_t t = time.begin, end; t < last; t = end) {
            end = input_by_chunks() ? std::min(plan->chunk_end(t, rows, chunk_rows), last) : last;
            chunk({t, end}, rows, part);
        }
    }
    void chunk(Span time, Span rows, int64_t part) const {
        T* pre = input_by_chunks() ? workspace->pre_of(part) : nullptr;
        if (pre) input(pre, time, rows, all_panels(), part);
        cell->forward(task, time, rows, all_panels(), pre, workspace->cell_of(part));
        if (skip) add_input(task, time, rows, first_column);
    }
    // Step t of a chunk for some panels. All panels share the memory of one part: each has columns of its own there.
    void step(Span chunk, int64_t t, Span panels, int64_t part) const {
        T* pre = input_by_chunks() ? workspace->pre_of(0) : nullptr;
        if (pre && t == chunk.begin) input(pre, chunk, all_rows(), panels, part);
        if (pre) pre += (task.batch.offset[t] - task.batch.offset[chunk.begin]) * workspace->row_size;
        cell->forward(task, {t, t + 1}, all_rows(), panels, pre, workspace->cell_of(part));
    }
    // The input products of some rows of the table.
    void table(Span rows, T* pre) const {
        const T* x_rows[kTableRows];
        for (int64_t i = rows.begin; i < rows.end; ++i) x_rows[i - rows.begin] = task.x + i * task.I;
        cell->input(task, rows.end - rows.begin, x_rows, all_panels(), pre + rows.begin * workspace->row_size);
    }

private:
    void input(T* pre, Span time, Span rows, Span panels, int64_t part) const {
        const T** x_rows = workspace->x_rows_of(part);
        int64_t count = 0;
        for (int64_t t = time.begin; t < time.end; ++t) {
            const int64_t* caller_row = task.batch.caller_row + task.batch.offset[t] + rows.begin;
            const int64_t n = plan->alive(t, rows);
            for (int64_t i = 0; i < n; ++i) {
                x_rows[count++] = task.x + (task.tokens ? task.tokens[caller_row[i]] : caller_row[i]) * task.I;
            }
        }
        cell->input(task, count, x_rows, panels, pre);
    }
};

}  // namespace rnncore
