// Networks over trees: from the leaves up each node makes its state of its own input and its children's states, all
// nodes of a level side by side. Two products and pointwise formulas, of
//
//   TreeRNN (Elman's cell over trees)          h = act(x + u),   u = U h~ + b_hh,   h~ = sum_k h_k
//   child-sum Tree-LSTM, (2) to (8) and        (Tai, Socher & Manning 2015, arXiv:1503.00075)
//   binary Tree-LSTM, (9) to (14), N = 2
//
//     i, o = sigmoid(x + u)    g = tanh(x + u)    f_k = sigmoid(x_f + u_fk)
//     c = i g + sum_k f_k c_k                     h = o tanh(c)
//
// with x = W x + b_ih. Child-sum: u = U h~ + b_hh for i, g and o, and u_fk = U_f h_k + b_f, which is made when the
// child is. Binary: all from one product, u = [U_left | U_right] [h_left, h_right] + b_hh for i, f_left, f_right, g and
// o.
//
// The first child (binary: the left one) goes through the very formula of LSTM (cells/lstm.hpp), and where there is
// none a child of zeros does, so that a chain has the bits of an LSTM.
#pragma once

#include "../api.hpp"
#include "activations.hpp"
#include "cells/cell.hpp"
#include "products.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

struct Children {
    const int64_t* row;
    int64_t count;
};
inline Children children_of(const TreeNodes& nodes, int64_t row) {
    return {nodes.child + nodes.first_child[row], nodes.first_child[row + 1] - nodes.first_child[row]};
}

// Of rows of one level, how many are no roots: they come first.
inline int64_t count_with_parent(const TreeNodes& nodes, Span rows) {
    int64_t count = 0;
    while (count < rows.end - rows.begin && nodes.parent[rows.begin + count] >= 0) ++count;
    return count;
}

// Passes over a row, which stays in L1: most of what nodes need, in little code.
template <class T>
[[gnu::noinline]] void add(int64_t n, const T* a, const T* b, T* out) {
    each_vector<T>(n, [=](int64_t p, auto part) { store(out + p, load(a + p, part) + load(b + p, part), part); });
}
template <class T>
[[gnu::noinline]] void add_product(int64_t n, const T* a, const T* b, T* out) {
    each_vector<T>(n, [=](int64_t p, auto part) {
        store(out + p, fma(load(a + p, part), load(b + p, part), load(out + p, part)), part);
    });
}
// out = 1 / sigmoid(a + b), and tanh(a) = top / bottom
template <class T>
[[gnu::noinline]] void sigmoid_denominators(int64_t n, const T* a, const T* b, T* out) {
    each_vector<T>(n, [=](int64_t p, auto part) {
        store(out + p, sigmoid_denominator(load(a + p, part) + load(b + p, part)), part);
    });
}
template <class T>
[[gnu::noinline]] void tanh_quotients(int64_t n, const T* a, T* top, T* bottom) {
    each_vector<T>(n, [=](int64_t p, auto part) {
        const auto quotient = tanh_quotient(load(a + p, part));
        store(top + p, quotient.top, part), store(bottom + p, quotient.bottom, part);
    });
}
template <class T>
const RowActivation<T>& activation_of(Activation kind) {
    return row_activations<T>[static_cast<int>(kind)];
}

// The activation of TreeRNN; null for other cells.
template <class T>
const RowActivation<T>* elman(TreeCell cell) {
    if (cell == TreeCell::rnn_tanh) return &activation_of<T>(Activation::tanh);
    return cell == TreeCell::rnn_relu ? &activation_of<T>(Activation::relu) : nullptr;
}

// What the children of a node make for the product with U: [h_left, h_right], or the sum of all, the first first.
template <class T>
void make_operand(const TreeForward<T>& task, int64_t row, T* out) {
    const int64_t H = task.H;
    const Children children = children_of(task.nodes, row);
    const bool binary = task.cell == TreeCell::binary;
    if (binary && children.count < 2) __builtin_memset(out, 0, sizeof(T) * 2 * H);
    for (int64_t k = 0; k < children.count; ++k) {
        const T* h = task.h + children.row[k] * H;
        if (binary || k == 0) {
            __builtin_memcpy(out + (binary ? task.nodes.side[children.row[k]] * H : 0), h, sizeof(T) * H);
        } else {
            add(H, out, h, out);
        }
    }
}

// Where the gates of a Tree-LSTM are among the numbers of a node. What goes into the forget gate for a child lies with
// the child (child-sum), or among u, by its side (binary).
struct GatePlaces {
    bool binary;
    int64_t H;

    int64_t g() const { return (binary ? 3 : 1) * H; }  // of u
    int64_t o() const { return (binary ? 4 : 2) * H; }
    template <class U>
    U* forget(const TreeNodes& nodes, int64_t child, U* u, U* by_child) const {
        return binary ? u + (1 + nodes.side[child]) * H : by_child + child * H;
    }
};

// x (4*H) i, f, g, o; u (sizes.product); room (4*H)
template <class T>
void tree_lstm_row(const TreeForward<T>& task, int64_t row, const T* x, const T* u, T* gates, T* room) {
    using V = Vec<T>;
    const int64_t H = task.H;
    const TreeNodes& nodes = task.nodes;
    const GatePlaces place{task.cell == TreeCell::binary, H};
    const Children children = children_of(nodes, row);
    const bool has_first = children.count > 0 && !(place.binary && nodes.side[children.row[0]] == 1);
    const auto u_of = [&](int64_t child) { return place.forget(nodes, child, u, static_cast<const T*>(task.forget)); };
    const int64_t first = has_first ? children.row[0] : -1;
    const T* u_first = has_first ? u_of(first) : place.binary ? u + H : task.b_forget;
    T *h = task.h + row * H, *c = task.c + row * H;

    // With i = 1/I, f = 1/F, g = n/D and o = 1/O, tanh(c) = m/E:
    T *const inputs = room, *const forgets = room + H, *const top = room + 2 * H, *const bottom = room + 3 * H;
    sigmoid_denominators(H, x, u, inputs);
    sigmoid_denominators(H, x + H, u_first, forgets);
    add(H, x + 2 * H, u + place.g(), top);
    tanh_quotients(H, static_cast<const T*>(top), top, bottom);
    each_vector<T>(H, [&](int64_t p, auto part) {
        const auto at = [=](const T* a) { return load(a + p, part); };
        const V I = at(inputs), F = at(forgets), n = at(top), D = at(bottom);
        const V ID = I * D;
        const V inverse = 1 / (F * ID);
        store(c + p, fma(ID, has_first ? at(task.c + first * H) : V{}, F * n) * inverse, part);
        store(gates + p, F * D * inverse, part);
        store(gates + H + p, I * F * n * inverse, part);
        if (has_first) store(task.forget + first * H + p, ID * inverse, part);
    });
    for (int64_t k = has_first; k < children.count; ++k) {
        const int64_t child = children.row[k];
        T* forget = task.forget + child * H;
        add(H, x + H, u_of(child), forget);
        activation_of<T>(Activation::sigmoid).forward(forget, forget, H, {});
        add_product(H, static_cast<const T*>(forget), static_cast<const T*>(task.c) + child * H, c);
    }
    T* const outputs = room;
    sigmoid_denominators(H, x + 3 * H, u + place.o(), outputs);
    tanh_quotients(H, static_cast<const T*>(c), top, bottom);
    each_vector<T>(H, [=](int64_t p, auto part) {
        const V E = load(bottom + p, part);
        const V inverse = 1 / (load(outputs + p, part) * E);
        store(h + p, load(top + p, part) * inverse, part);
        store(gates + 2 * H + p, E * inverse, part);
    });
}

// do = dh tanh(c)            dc' = dc + dh o (1 - tanh(c)^2)
// di = dc' g                 dg = dc' i
// df_k = dc' c_k             dc_k = dc' f_k
// and each goes through its activation. x_f is in all forget gates, so its gradient is the sum of theirs. t (H) is
// room.
template <class T>
void tree_lstm_gradient_row(const TreeBackward<T>& task, int64_t row, const T* dh, T* dx, T* du, T* t) {
    using V = Vec<T>;
    const int64_t H = task.H;
    const TreeNodes& nodes = task.nodes;
    const GatePlaces place{task.cell == TreeCell::binary, H};
    const Children children = children_of(nodes, row);
    const T* gates = task.gates + row * 3 * H;
    T *dc = task.dc + row * H, *du_g = du + place.g(), *du_o = du + place.o();
    activation_of<T>(Activation::tanh).forward(task.c + row * H, t, H, {});
    each_vector<T>(H, [&](int64_t p, auto part) {
        const auto at = [=](const T* a) { return load(a + p, part); };
        const V i = at(gates), g = at(gates + H), o = at(gates + 2 * H), d = at(dh), tanh_c = at(t);
        const V d_all = fma(d * o, fma(-tanh_c, tanh_c, V{} + 1), at(dc));
        store(dc + p, d_all, part);
        store(du + p, d_all * g * (i * one_minus(i)), part);
        store(du_g + p, d_all * i * fma(-g, g, V{} + 1), part);
        store(du_o + p, d * tanh_c * (o * one_minus(o)), part);
    });
    T* const sum = dx + H;
    __builtin_memset(sum, 0, sizeof(T) * H);
    if (place.binary && children.count < 2) __builtin_memset(du + H, 0, sizeof(T) * 2 * H);
    for (int64_t k = 0; k < children.count; ++k) {
        const int64_t child = children.row[k];
        T *df = place.forget(nodes, child, du, task.dforget), *dc_k = task.dc + child * H;
        const T *c_k = task.c + child * H, *forget = task.forget + child * H;
        each_vector<T>(H, [=](int64_t p, auto part) {
            const V f = load(forget + p, part), d_all = load(dc + p, part);
            const V d = d_all * load(c_k + p, part) * (f * one_minus(f));
            store(df + p, d, part);
            store(sum + p, load(sum + p, part) + d, part);
            store(dc_k + p, d_all * f, part);
        });
    }
    __builtin_memcpy(dx, du, sizeof(T) * H);
    __builtin_memcpy(dx + 2 * H, du_g, sizeof(T) * 2 * H);
}

template <class T>
void tree_forward(const TreeForward<T>& task, Span rows, T* workspace) {
    const FlushDenormals guard;
    const int64_t H = task.H, n = rows.end - rows.begin, K = task.sizes.operand, P = task.sizes.product;
    const bool leaves = rows.begin < task.nodes.leaves;
    T* const pre = workspace;
    T* const u = pre + n * task.sizes.pre;
    T* const operands = u + n * P;
    T* const room = operands + n * K;
    T* const gates_nowhere = room + 4 * H;
    const T* x_row[kTreeRows];
    for (int64_t i = 0; i < n; ++i) x_row[i] = task.x + task.nodes.caller_row[rows.begin + i] * task.I;
    multiply_into(n, product_of(task.I, task.sizes.pre), task.packed, task.w, task.b_ih, Rows<T>{nullptr, 0, x_row},
                  pre, Order::ascending);
    if (!leaves) {
        T* const operand = task.operand ? task.operand + (rows.begin - task.nodes.leaves) * K : operands;
        for (int64_t i = 0; i < n; ++i) make_operand(task, rows.begin + i, operand + i * K);
        multiply_into(n, product_of(K, P), task.packed, task.u, task.b, Rows<T>{operand, K}, u, Order::ascending);
    }
    for (int64_t i = 0; i < n; ++i) {
        const int64_t row = rows.begin + i;
        const T* x = pre + i * task.sizes.pre;
        const T* u_row = leaves ? task.b : u + i * P;  // U times zeros is none
        T* h = task.h + row * H;
        if (const RowActivation<T>* activation = elman<T>(task.cell)) {
            add(H, x, u_row, h);
            activation->forward(h, h, H, {});
        } else {
            tree_lstm_row(task, row, x, u_row, task.gates ? task.gates + row * 3 * H : gates_nowhere, room);
        }
        __builtin_memcpy(task.y + task.nodes.caller_row[row] * H, h, sizeof(T) * H);
    }
    if (task.u_forget) {
        multiply_into(count_with_parent(task.nodes, rows), product_of(H, H), task.packed, task.u_forget, task.b_forget,
                      Rows<T>{task.h + rows.begin * H, H}, task.forget + rows.begin * H, Order::ascending);
    }
}

// dh of a node: dy, what comes through its parent's operand and, child-sum, through the forget gate for it; of a root,
// the gradient of the final state.
template <class T>
void add_gradients_of_h(const TreeBackward<T>& task, int64_t row, T* dh) {
    const int64_t H = task.H, parent = task.nodes.parent[row];
    const int64_t side = task.cell == TreeCell::binary ? task.nodes.side[row] : 0;
    if (task.dy) add<T>(H, dh, task.dy + task.nodes.caller_row[row] * H, dh);
    if (parent >= 0) {
        add<T>(H, dh, task.doperand + (parent - task.nodes.leaves) * task.sizes.operand + side * H, dh);
    } else if (task.dlast[0]) {
        add<T>(H, dh, task.dlast[0] + (-1 - parent) * H, dh);
    }
}

template <class T>
void tree_backward(const TreeBackward<T>& task, Span rows, T* workspace) {
    const FlushDenormals guard;
    const int64_t H = task.H, n = rows.end - rows.begin, K = task.sizes.operand, P = task.sizes.product;
    const int64_t with_parent = count_with_parent(task.nodes, rows);
    T* const dh = workspace;
    const int64_t made = task.u_forget ? with_parent : 0;
    multiply_back(made, product_of(H, H), task.u_forget, 0, task.dforget + rows.begin * H, H,
                  static_cast<const int64_t*>(nullptr), dh, Order::ascending);
    __builtin_memset(dh + made * H, 0, sizeof(T) * (n - made) * H);
    for (int64_t i = 0; i < n; ++i) {
        const int64_t row = rows.begin + i;
        T *d = dh + i * H, *du = task.du + row * P, *dx = task.dpre + task.nodes.caller_row[row] * task.sizes.pre;
        add_gradients_of_h(task, row, d);
        if (const RowActivation<T>* activation = elman<T>(task.cell)) {
            activation->backward(task.h + row * H, d, du, H, {});
            __builtin_memcpy(dx, du, sizeof(T) * H);
            continue;
        }
        if (i >= with_parent) {
            const T* dlast = task.dlast[1] ? task.dlast[1] + (-1 - task.nodes.parent[row]) * H : nullptr;
            T* dc = task.dc + row * H;
            if (dlast) {
                __builtin_memcpy(dc, dlast, sizeof(T) * H);
            } else {
                __builtin_memset(dc, 0, sizeof(T) * H);
            }
            if (task.u_forget) __builtin_memset(task.dforget + row * H, 0, sizeof(T) * H);
        }
        tree_lstm_gradient_row(task, row, d, dx, du, workspace + n * H);
    }
    if (rows.begin < task.nodes.leaves) return;
    multiply_back(n, product_of(K, P), task.u, 0, task.du + rows.begin * P, P, static_cast<const int64_t*>(nullptr),
                  task.doperand + (rows.begin - task.nodes.leaves) * K, Order::ascending);
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
