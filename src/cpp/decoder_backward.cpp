// The backward half of decoders: the time loop in reverse, a slice of rows on one thread, which leaves the gradients of
// all gates; then the gradients of the memory and, over all rows, of the weights.
#include <algorithm>
#include <numeric>

#include "decoder.hpp"
#include "dispatch.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "sums.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// What backward has of one layer.
template <class T>
struct LayerGradients {
    Backward<T> task;
    T *dx_gates, *du_own[kMaxProducts], *carry[kMaxStates], *u[kMaxProducts], *w, *sums;
    T* dh;  // (N, P) of the layer's h at the current step, of sorted rows
    Arrays<T, 4 + kMaxStates + 2 * kMaxProducts> memory;
};

template <class T>
struct BackwardRun {
    BackwardRun(const DecoderWeights<T>& weights, const DecoderInput<T>& input, const DecoderTape<T>& tape,
                const DecoderOutput<const T>& cotangents, const DecoderGradients<T>& gradients, int threads);
    void pack(int64_t index) const;  // of 1 + layers
    void slice(Span rows, int thread) const;
    void sources(Span rows, int thread);  // the gradients of the memory and the keys of these rows' sources
    void weight_gradients() const;

    const DecoderWeights<T>& weights;
    const DecoderInput<T>& input;
    const DecoderTape<T>& tape;
    const DecoderOutput<const T>& cotangents;
    const DecoderGradients<T>& gradients;
    const Kernels<T>& kernels;
    const CellKernels<T>& cell;
    const Needs needs;
    const Batch batch;
    const int64_t L, I, E, A, C, P, GH, fed, R, N, cell_size;
    std::vector<int64_t> in_order, row_of_step, previous_rows, source;
    std::vector<LayerGradients<T>> layers;
    // combined and attention: (R, ...), packed rows; the rest (N, ...), sorted rows at the current step
    T *dout, *dcombined, *dscores, *dqueries, *dinput, *dfed, *dquery, *dv, *w_c, *w_q, *cells;
    Arrays<T> memory;
    std::vector<const T*> left, right;  // (threads, T)
    Attention<T> attention;

private:
    const T* top_states(int64_t t) const {  // h of the top layer before step t, of all sorted rows
        return tape.kept.back().states[0] + (t ? N + batch.offset[t - 1] : 0) * P;
    }
    // The h that step t looks with.
    const T* queried(int64_t t) const { return top_states(weights.feed == Feed::context ? t : t + 1); }
    // dquery of the rows alive at step t, through what they looked at with h.
    void attend(Span rows, int64_t t) const;
    void add(int64_t rows, int64_t columns, const T* from, int64_t stride, T* to) const {
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t c = 0; c < columns; ++c) to[i * columns + c] += from[i * stride + c];
        }
    }
};

template <class T>
BackwardRun<T>::BackwardRun(const DecoderWeights<T>& weights, const DecoderInput<T>& input, const DecoderTape<T>& tape,
                            const DecoderOutput<const T>& cotangents, const DecoderGradients<T>& gradients, int threads)
    : weights(weights),
      input(input),
      tape(tape),
      cotangents(cotangents),
      gradients(gradients),
      kernels(precision<T>(*tape.kernels)),
      cell(kernels.cells[static_cast<int>(weights.layers[0].spec.cell)]),
      needs(cell.needs(weights.layers[0].spec.options, weights.layers[0].H, weights.P())),
      batch(tape.plan.batch()),
      L(static_cast<int64_t>(weights.layers.size())),
      I(weights.I),
      E(weights.E),
      A(weights.A),
      C(weights.C),
      P(weights.P()),
      GH(cell.gates * weights.layers[0].H),
      fed(weights.fed()),
      R(batch.R),
      N(batch.N),
      cell_size(N * needs.backward_row + needs.backward_once),
      in_order(static_cast<size_t>(std::max(R, N))),
      row_of_step(static_cast<size_t>(R)),
      previous_rows(tape.plan.previous_rows({0, batch.T})),
      source(batch.order, batch.order + N),
      layers(static_cast<size_t>(L)),
      left(static_cast<size_t>(threads * batch.T)),
      right(static_cast<size_t>(threads * batch.T)) {
    std::iota(in_order.begin(), in_order.end(), int64_t{0});
    for (int64_t t = 0; t < batch.T; ++t) {
        std::iota(row_of_step.begin() + batch.offset[t], row_of_step.begin() + batch.offset[t + 1], int64_t{0});
    }
    memory.add(dout, R * C);
    memory.add(dcombined, R * (E + P));
    memory.add(dscores, R * input.S);
    memory.add(dqueries, weights.w_q ? R * A : 0);
    memory.add(dinput, N * (I + fed));
    memory.add(dfed, N * C);
    memory.add(dquery, N * P);
    memory.add(dv, weights.score == Score::additive ? N * A : 0);
    memory.add(w_c, C * round_up(E + P, kernels.lanes));
    memory.add(w_q, weights.w_q ? A * round_up(P, kernels.lanes) : 0);
    memory.add(cells, threads * cell_size);
    memory.allocate();
    if (weights.score == Score::additive) std::fill_n(dv, N * A, T{0});

    for (size_t l = 0; l < layers.size(); ++l) {
        LayerGradients<T>& layer = layers[l];
        const Weights<T>& of = weights.layers[l];
        const Kept<T>& kept = tape.kept[l];
        layer.memory.add(layer.dx_gates, R * GH);
        for (int p = 0; p < needs.products; ++p) {
            const Product& product = needs.product[p];
            if (product.own > 0) layer.memory.add(layer.du_own[p], R * product.own);
            layer.memory.add(layer.u[p], product.columns * round_up(product.K, kernels.lanes));
        }
        for (int s = 0; s < cell.states; ++s) {
            layer.carry[s] = nullptr;
            if (needs.carry[s]) layer.memory.add(layer.carry[s], N * needs.state[s]);
        }
        layer.memory.add(layer.w, GH * round_up(of.I, kernels.lanes));
        layer.memory.add(layer.sums, N * needs.vectors);
        layer.memory.add(layer.dh, N * P);
        layer.memory.allocate();
        std::fill_n(layer.sums, N * needs.vectors, T{0});

        Backward<T>& task = layer.task;
        task = {};
        task.batch = batch;
        task.batch.caller_row = row_of_step.data();  // dy is layer.dh
        task.options = &of.spec.options;
        task.H = of.H, task.P = P;
        const int64_t at = static_cast<int64_t>(l) * N;
        for (int s = 0; s < cell.states; ++s) {
            task.states[s] = kept.states[s];
            task.dlast[s] = cotangents.last[s] ? cotangents.last[s] + at * needs.state[s] : nullptr;
            task.dfirst[s] = gradients.layers[l].first[s];
            task.carry[s] = layer.carry[s];
        }
        task.saved = kept.saved, task.vectors = of.vectors;
        T* du = layer.dx_gates;
        int64_t stride = GH;
        for (int p = 0; p < needs.products; ++p) {
            const Product& product = needs.product[p];
            if (product.own > 0) du = layer.du_own[p], stride = product.own;
            task.operands[p] = kept.operand(p);
            task.u[p] = layer.u[p];
            task.du[p] = du + product.at;
            task.du_stride[p] = stride;
        }
        task.dy = layer.dh;
        task.chunk = {0, batch.T};
        task.du_next = needs.products ? task.du[0] : layer.dx_gates;  // read for what is left at the first step
        task.dx_gates = layer.dx_gates;
        task.sums = layer.sums;
    }
    attention = {weights.score, input.S, E, A, input.memory, input.keys, input.source_length, weights.v};
}

template <class T>
void BackwardRun<T>::pack(int64_t index) const {
    if (index == 0) {
        kernels.pack_columns(weights.w_c, C, E + P, w_c);
        if (weights.w_q) kernels.pack_columns(weights.w_q, A, P, w_q);
        return;
    }
    const LayerGradients<T>& layer = layers[static_cast<size_t>(index - 1)];
    const Weights<T>& of = weights.layers[static_cast<size_t>(index - 1)];
    kernels.pack_columns(of.w_ih, GH, of.I, layer.w);
    for (int p = 0; p < needs.products; ++p) {
        const Product& product = needs.product[p];
        kernels.pack_columns(of.of(product), product.columns, product.K, layer.u[p]);
    }
}

template <class T>
void BackwardRun<T>::attend(Span rows, int64_t t) const {
    const int64_t n = tape.plan.alive(t, rows), first = batch.offset[t] + rows.begin;
    AttentionGradient<T> task{};
    task.source = source.data() + rows.begin;
    task.query = weights.w_q ? tape.queries + first * A : queried(t) + rows.begin * P;
    task.weight_row = batch.caller_row + first;
    task.weights = cotangents.weights;
    task.dcontext = dcombined + first * (E + P), task.dcontext_stride = E + P;
    task.dscores = dscores + first * input.S;
    task.dquery = weights.w_q ? dqueries + first * A : dquery + rows.begin * P;
    task.dkeys = gradients.keys;
    task.dv = dv + rows.begin * A;
    kernels.attend_gradient(attention, n, task);
    if (weights.w_q) {
        kernels.multiply_rows(n, A, P, dqueries + first * A, w_q, 0, in_order.data(), dquery + rows.begin * P);
    }
}

template <class T>
void BackwardRun<T>::slice(Span rows, int thread) const {
    const bool context = weights.feed == Feed::context, output = weights.feed == Feed::output;
    const LayerGradients<T>& top = layers.back();
    for (const LayerGradients<T>& layer : layers) {
        for (int64_t n = rows.begin; n < rows.end; ++n) {
            for (int s = 0; s < cell.states; ++s) {
                const int64_t size = needs.state[s];
                const T* from = s && layer.task.dlast[s] ? layer.task.dlast[s] + batch.order[n] * size : nullptr;
                if (layer.carry[s]) copy_row(layer.carry[s] + n * size, from, size);
            }
        }
    }
    for (int64_t t = tape.plan.steps(rows) - 1; t >= 0; --t) {
        const int64_t n = tape.plan.alive(t, rows), continuing = tape.plan.alive(t + 1, rows);
        const int64_t first = batch.offset[t] + rows.begin;
        const int64_t* caller_row = batch.caller_row + first;

        // y = tanh(W_c [c; h] + b_c), which is fed to the step after
        for (int64_t i = 0; i < n; ++i) {
            T* to = dout + (first + i) * C;
            copy_row(to, cotangents.y ? cotangents.y + caller_row[i] * C : nullptr, C);
            const T* more = nullptr;
            if (output && i < continuing) more = dfed + (rows.begin + i) * C;
            if (output && i >= continuing && cotangents.last_fed) {
                more = cotangents.last_fed + batch.order[rows.begin + i] * C;
            }
            if (more) add(1, C, more, C, to);
        }
        const Linear<T> combine{E + P, C,       Activation::tanh, in_order.data(), tape.combined,
                                false, nullptr, nullptr,          tape.y,          C};
        kernels.linear_gradient(combine, {first, first + n}, dout, dout + first * C);
        kernels.multiply_rows(n, C, E + P, dout + first * C, w_c, 0, in_order.data(), dcombined + first * (E + P));

        // what reaches h: as a part of what is combined, and as a query, of the step itself or the one after
        T* dh = top.dh + rows.begin * P;
        if (!context) attend(rows, t);
        for (int64_t i = 0; i < n; ++i) {
            std::copy_n(dcombined + (first + i) * (E + P) + E, P, dh + i * P);
        }
        add(context ? continuing : n, P, dquery + rows.begin * P, P, dh);

        const Span panels{0, cell.backward_panels(weights.layers[0].H)};
        for (int64_t l = L - 1; l >= 0; --l) {
            const LayerGradients<T>& layer = layers[static_cast<size_t>(l)];
            cell.backward(layer.task, {t, t + 1}, rows, panels, cells + thread * cell_size);
            const int64_t width = l ? P : I + fed;
            T* dx = l ? layers[static_cast<size_t>(l - 1)].dh + rows.begin * P : dinput + rows.begin * width;
            kernels.multiply_rows(n, GH, width, layer.dx_gates + first * GH, layer.w, 0, in_order.data(), dx);
        }
        for (int64_t i = 0; i < n; ++i) {
            const T* from = dinput + (rows.begin + i) * (I + fed);
            std::copy_n(from, I, gradients.x + caller_row[i] * I);
            if (output) std::copy_n(from + I, C, dfed + (rows.begin + i) * C);
            if (context) add(1, E, from + I, E, dcombined + (first + i) * (E + P));
        }
        if (context) attend(rows, t);
    }

    for (const LayerGradients<T>& layer : layers) cell.backward_first(layer.task, rows);
    for (int64_t n = rows.begin; n < rows.end; ++n) {
        const int64_t caller = batch.order[n];
        const bool any = tape.plan.length(n) > 0;
        if (context && any) add(1, P, dquery + n * P, P, top.task.dfirst[0] + caller * P);
        if (!gradients.first_fed) continue;
        const T* last = cotangents.last_fed ? cotangents.last_fed + caller * C : nullptr;
        copy_row(gradients.first_fed + caller * C, any ? dfed + n * C : last, C);
    }
}

// dm_s = sum_t a_ts dc_t, and of the score q . k_s: dk_s = sum_t de_ts q_t
template <class T>
void BackwardRun<T>::sources(Span rows, int thread) {
    const T** const a = left.data() + thread * batch.T;
    const T** const b = right.data() + thread * batch.T;
    for (int64_t n = rows.begin; n < rows.end; ++n) {
        const int64_t steps = tape.plan.length(n), length = input.source_length[source[static_cast<size_t>(n)]];
        const int64_t at = source[static_cast<size_t>(n)] * input.S;
        for (int64_t t = 0; t < steps; ++t) {
            const int64_t r = batch.offset[t] + n;
            a[t] = cotangents.weights + batch.caller_row[r] * input.S;
            b[t] = dcombined + r * (E + P);
        }
        kernels.sum_outer(steps, a, b, length, E, gradients.memory + at * E);
        if (weights.score != Score::dot) continue;
        for (int64_t t = 0; t < steps; ++t) {
            a[t] = dscores + (batch.offset[t] + n) * input.S;
            b[t] = queried(t) + n * P;
        }
        T* const dkeys = gradients.keys ? gradients.keys : gradients.memory;
        kernels.sum_outer(steps, a, b, length, A, dkeys + at * A);
    }
}

template <class T>
void BackwardRun<T>::weight_gradients() const {
    std::vector<WeightSum<T>> sums;
    std::vector<int64_t> query_rows;
    sums.push_back({E + P, tape.combined, in_order.data(), C, C, dout, gradients.w_c, gradients.b_c});
    if (weights.w_q) {
        // before the step or after it, where states have N rows in front
        query_rows = previous_rows;
        if (weights.feed != Feed::context) std::iota(query_rows.begin(), query_rows.end(), N);
        sums.push_back({P, tape.kept.back().states[0], query_rows.data(), A, A, dqueries, gradients.w_q, nullptr});
    }
    for (size_t l = 0; l < layers.size(); ++l) {
        const LayerGradients<T>& layer = layers[l];
        const Gradients<T>& to = gradients.layers[l];
        const Kept<T>& kept = tape.kept[l];
        sums.push_back(
            {weights.layers[l].I, tape.inputs[l], in_order.data(), GH, GH, layer.dx_gates, to.w_ih, to.b_ih});
        for (int p = 0; p < needs.products; ++p) {
            const Product& product = needs.product[p];
            const T* operands = kept.operand(product.operand);
            sums.push_back({product.K, operands ? operands : static_cast<const T*>(kept.states[0]),
                            operands ? in_order.data() : previous_rows.data(), product.columns, layer.task.du_stride[p],
                            layer.task.du[p], to.of(product), to.bias_of(product)});
        }
    }
    sum_weights(*tape.kernels, R, sums);
    // sums over sequences, one after the other
    const std::vector<int64_t> one_row(static_cast<size_t>(N));
    const auto sum_rows = [&](int64_t columns, const T* rows, T* to) {
        std::fill_n(to, columns, T{0});
        kernels.add_rows(N, columns, {0, columns}, rows, one_row.data(), to);
    };
    if (weights.score == Score::additive) sum_rows(A, dv, gradients.v);
    for (size_t l = 0; l < layers.size() && needs.vectors; ++l) {
        sum_rows(needs.vectors, layers[l].sums, gradients.layers[l].vectors);
    }
}

}  // namespace

template <class T>
void decode_backward(const DecoderWeights<T>& weights, const DecoderInput<T>& input, const DecoderTape<T>& tape,
                     const DecoderOutput<const T>& cotangents, const DecoderGradients<T>& gradients) {
    const Batch batch = tape.plan.batch();
    tape.plan.clear_padding(gradients.x, weights.I);
    const int64_t all_steps = batch.N * input.S;
    std::fill_n(gradients.memory, all_steps * weights.E, T{0});
    if (gradients.keys) std::fill_n(gradients.keys, all_steps * weights.A, T{0});
    double multiply_adds = static_cast<double>(weights.C * (weights.E + weights.P()));
    for (const Weights<T>& layer : weights.layers) {
        multiply_adds += static_cast<double>(gates_of(layer.spec.cell) * layer.H * (layer.I + weights.P()));
    }
    const int threads = threads_for(2 * multiply_adds * static_cast<double>(batch.R));
    BackwardRun<T> run(weights, input, tape, cotangents, gradients, threads);
    const std::vector<int64_t> slices = tape.plan.slices(threads);
    run_team(threads, [&](Member& team) {
        team.each(1 + run.L, [&](int64_t index) { run.pack(index); });
        team.each(static_cast<int64_t>(slices.size()) - 1, [&](int64_t index) {
            const Span rows{slices[static_cast<size_t>(index)], slices[static_cast<size_t>(index) + 1]};
            run.slice(rows, team.index());
            run.sources(rows, team.index());
        });
    });
    run.weight_gradients();
}

template void decode_backward(const DecoderWeights<float>&, const DecoderInput<float>&, const DecoderTape<float>&,
                              const DecoderOutput<const float>&, const DecoderGradients<float>&);
template void decode_backward(const DecoderWeights<double>&, const DecoderInput<double>&, const DecoderTape<double>&,
                              const DecoderOutput<const double>&, const DecoderGradients<double>&);

}  // namespace rnncore
