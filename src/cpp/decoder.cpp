// The forward half of decoders.
#include "decoder.hpp"

#include <algorithm>
#include <numeric>

#include "dispatch.hpp"
#include "pass.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Where packed rows lie in the memory of a call, and what is in it: all of them if a tape is kept, or else one row for
// each sequence, which is the current step's.
template <class T>
struct Run {
    Run(const Decoder<T>& decoder, const Plan& plan, const DecoderInput<T>& input, const DecoderOutput<T>& output,
        DecoderTape<T>* tape, int threads);
    void slice(Span rows, int thread);

    const Decoder<T>& decoder;
    const Kernels<T>& kernels;
    const CellKernels<T>& cell;
    const Plan& plan;
    const Batch batch;
    const DecoderInput<T>& input;
    const DecoderOutput<T>& output;
    const bool keep;
    const int64_t L, P, row_size, step_rows;
    std::vector<int64_t> slices, place, in_order, source;  // place (R): of packed rows; source (N): of sorted rows
    std::vector<Array<T>> inputs_memory;
    std::vector<T*> inputs;  // of each layer, (rows, its I)
    T *combined, *y, *queries;
    Arrays<T> memory;
    T *states, *pre, *cells;
    int64_t cell_size;
    std::vector<const T*> x_rows;  // (N) what sorted rows read at the current step
    std::vector<Forward<T>> tasks;
    Attention<T> attention;

private:
    int64_t width(int64_t layer) const { return decoder.stack.passes[static_cast<size_t>(layer)].I; }
    const T* top_states(int64_t t) const;  // before step t, of all sorted rows
    void start(Span rows) const;
    void attend(Span rows, int64_t t, const T* h, T* queries) const;
};

template <class T>
Run<T>::Run(const Decoder<T>& decoder, const Plan& plan, const DecoderInput<T>& input, const DecoderOutput<T>& output,
            DecoderTape<T>* tape, int threads)
    : decoder(decoder),
      kernels(precision<T>(*decoder.stack.kernels)),
      cell(decoder.stack.cell_kernels()),
      plan(plan),
      batch(plan.batch()),
      input(input),
      output(output),
      keep(tape != nullptr),
      L(decoder.stack.layers()),
      P(decoder.stack.P),
      row_size(cell.gates * decoder.stack.H),
      step_rows(std::max<int64_t>(batch.N, 1)),
      slices(plan.slices(threads)),
      place(static_cast<size_t>(batch.R)),
      in_order(static_cast<size_t>(std::max(batch.R, batch.N))),
      source(static_cast<size_t>(batch.N)),
      x_rows(static_cast<size_t>(batch.N)) {
    const Needs& needs = decoder.stack.needs;
    std::iota(in_order.begin(), in_order.end(), int64_t{0});
    for (int64_t t = 0; t < batch.T; ++t) {
        std::iota(place.begin() + batch.offset[t], place.begin() + batch.offset[t + 1], keep ? batch.offset[t] : 0);
    }
    for (int64_t n = 0; n < batch.N; ++n) {
        source[static_cast<size_t>(n)] = input.source ? input.source[batch.order[n]] : batch.order[n];
    }

    const int64_t slot = 2 * batch.N * state_size(needs), rows = keep ? 0 : batch.N;
    cell_size = needs.forward_row * step_rows + needs.forward_once;
    memory.add(states, keep ? 0 : L * slot);
    memory.add(pre, batch.N * row_size);
    memory.add(cells, threads * cell_size);
    memory.add(combined, rows * (decoder.E + P));
    memory.add(y, rows * decoder.C);
    memory.add(queries, decoder.w_q ? rows * decoder.A : 0);
    memory.allocate();
    for (int64_t l = 0; l < L; ++l) {
        if (!keep) inputs_memory.emplace_back(batch.N * width(l));
        inputs.push_back(keep ? tape->inputs[static_cast<size_t>(l)] : inputs_memory.back());
    }
    if (keep) combined = tape->combined, y = tape->y, queries = tape->queries;

    for (int64_t l = 0; l < L; ++l) {
        const PackedWeights<T>& weights = decoder.stack.passes[static_cast<size_t>(l)];
        Forward<T>& task = tasks.emplace_back();
        task.batch = batch;
        task.batch.caller_row = place.data();
        task.options = &decoder.stack.spec.options;
        task.I = weights.I, task.H = decoder.stack.H, task.P = P;
        task.packed = true;
        task.w = weights.w, task.b_ih = weights.b_ih, task.vectors = weights.vectors;
        std::copy_n(weights.u, decoder.stack.needs.products, task.u);
        std::copy_n(weights.b_hh, decoder.stack.needs.products, task.b_hh);
        task.keep = keep;
        const bool top = l + 1 == L;
        task.y = top ? combined + decoder.E : inputs[static_cast<size_t>(l + 1)];
        task.y_stride = top ? decoder.E + P : P;
        T* state = states + l * slot;
        for (int s = 0; s < cell.states; ++s) {
            task.states[s] = keep ? tape->kept[static_cast<size_t>(l)].states[s] : state;
            state += 2 * batch.N * needs.state[s];
            task.last[s] = output.last[s] + l * batch.N * needs.state[s];
        }
        if (!keep) continue;
        task.saved = tape->kept[static_cast<size_t>(l)].saved;
        for (int p = 0; p < needs.products; ++p) {
            task.operands[p] = tape->kept[static_cast<size_t>(l)].operand(p);
        }
    }
    attention = {decoder.score, input.S,    decoder.E,           decoder.A,
                 input.memory,  input.keys, input.source_length, decoder.v};
}

template <class T>
const T* Run<T>::top_states(int64_t t) const {
    const int64_t row = !keep ? t % 2 * batch.N : t ? batch.N + batch.offset[t - 1] : 0;
    return tasks.back().states[0] + row * P;
}

// The initial states of these sorted rows, which those of length 0 leave at once.
template <class T>
void Run<T>::start(Span rows) const {
    const Needs& needs = decoder.stack.needs;
    for (int64_t n = rows.begin; n < rows.end; ++n) {
        const int64_t caller = batch.order[n];
        for (int64_t l = 0; l < L; ++l) {
            const Forward<T>& task = tasks[static_cast<size_t>(l)];
            for (int s = 0; s < cell.states; ++s) {
                const int64_t size = needs.state[s];
                const T* first = input.first[s] ? input.first[s] + (l * batch.N + caller) * size : nullptr;
                copy_row(task.states[s] + n * size, first, size);
                if (plan.length(n) == 0) copy_row(task.last[s] + caller * size, first, size);
            }
        }
        if (output.last_fed && plan.length(n) == 0) {
            copy_row(output.last_fed + caller * decoder.C,
                     input.first_fed ? input.first_fed + caller * decoder.C : nullptr, decoder.C);
        }
    }
}

// The contexts of the rows alive at step t, and their weights, which queries from h ask for.
template <class T>
void Run<T>::attend(Span rows, int64_t t, const T* h, T* queries) const {
    const int64_t n = plan.alive(t, rows), first = batch.offset[t] + rows.begin, at = place[first];
    const T* query = h + rows.begin * P;
    if (decoder.w_q) {
        query = queries + at * decoder.A;
        const Linear<T> task{P,    decoder.A,   Activation::none, in_order.data(),          h + rows.begin * P,
                             true, decoder.w_q, nullptr,          queries + at * decoder.A, decoder.A};
        kernels.linear(task, {0, n});
    }
    kernels.attend(attention, n, source.data() + rows.begin, query, batch.caller_row + first, output.weights,
                   combined + at * (decoder.E + P), decoder.E + P);
}

template <class T>
void Run<T>::slice(Span rows, int thread) {
    const int64_t I = decoder.I, E = decoder.E, C = decoder.C, fed = decoder.fed;
    T* const slice_pre = pre + rows.begin * row_size;
    const T** const slice_rows = x_rows.data() + rows.begin;
    start(rows);
    for (int64_t t = 0, last = plan.steps(rows); t < last; ++t) {
        const int64_t n = plan.alive(t, rows), first = batch.offset[t] + rows.begin, at = place[first];
        const int64_t before = t ? place[batch.offset[t - 1] + rows.begin] : 0;
        const int64_t* caller_row = batch.caller_row + first;
        T* const step = combined + at * (E + P);
        if (decoder.feed == Feed::context) attend(rows, t, top_states(t), queries);
        for (int64_t i = 0; i < n; ++i) {
            T* to = inputs[0] + (at + i) * (I + fed);
            std::copy_n(input.x + caller_row[i] * I, I, to);
            if (decoder.feed == Feed::context) {
                std::copy_n(step + i * (E + P), E, to + I);
            } else if (decoder.feed == Feed::output) {
                const T* start = input.first_fed ? input.first_fed + batch.order[rows.begin + i] * C : nullptr;
                copy_row(to + I, t ? y + (before + i) * C : start, C);
            }
        }
        for (int64_t l = 0; l < L; ++l) {
            const Forward<T>& task = tasks[static_cast<size_t>(l)];
            for (int64_t i = 0; i < n; ++i) slice_rows[i] = inputs[static_cast<size_t>(l)] + (at + i) * task.I;
            const Span panels{0, cell.forward_panels(task.H)};
            cell.input(task, n, slice_rows, panels, slice_pre);
            cell.forward(task, {t, t + 1}, rows, panels, slice_pre, cells + thread * cell_size);
        }
        if (decoder.feed != Feed::context) attend(rows, t, top_states(t + 1), queries);
        const Linear<T> combine{E + P, C,           Activation::tanh, in_order.data(), step,
                                true,  decoder.w_c, decoder.b_c,      y + at * C,      C};
        kernels.linear(combine, {0, n});
        for (int64_t i = 0; i < n; ++i) {
            const T* from = y + (at + i) * C;
            std::copy_n(from, C, output.y + caller_row[i] * C);
            if (output.last_fed && i >= plan.alive(t + 1, rows)) {
                std::copy_n(from, C, output.last_fed + batch.order[rows.begin + i] * C);
            }
        }
    }
}

template <class T>
int threads_of(const Decoder<T>& decoder, int64_t rows) {
    double multiply_adds = static_cast<double>(decoder.C * (decoder.E + decoder.stack.P));
    for (const PackedWeights<T>& weights : decoder.stack.passes)
        multiply_adds += decoder.stack.multiply_adds(weights.I);
    return threads_for(multiply_adds * static_cast<double>(rows));
}

template <class T>
void run(const Decoder<T>& decoder, const Plan& plan, const DecoderInput<T>& input, const DecoderOutput<T>& output,
         DecoderTape<T>* tape) {
    plan.clear_padding(output.y, decoder.C);
    plan.clear_padding(output.weights, input.S);
    const int threads = threads_of(decoder, plan.batch().R);
    Run<T> run(decoder, plan, input, output, tape, threads);
    run_team(threads, [&](Member& team) {
        team.each(static_cast<int64_t>(run.slices.size()) - 1, [&](int64_t index) {
            run.slice({run.slices[static_cast<size_t>(index)], run.slices[static_cast<size_t>(index) + 1]},
                      team.index());
        });
    });
}

}  // namespace

template <class T>
Decoder<T>::Decoder(const DecoderWeights<T>& weights)
    : stack(weights.layers, 1),
      score(weights.score),
      feed(weights.feed),
      I(weights.I),
      E(weights.E),
      A(weights.A),
      C(weights.C),
      fed(weights.fed()) {
    const Kernels<T>& kernels = precision<T>(*stack.kernels);
    const int64_t K = E + stack.P, columns = round_up(C, kernels.lanes), queries = round_up(A, kernels.lanes);
    const int64_t of_queries = weights.w_q ? stack.P * queries : 0;
    memory = Array<T>((K + 1) * columns + of_queries + queries);
    w_c = memory, b_c = w_c + K * columns;
    w_q = weights.w_q ? b_c + columns : nullptr;
    v = b_c + columns + of_queries;
    kernels.pack_transposed(weights.w_c, K, C, w_c);
    std::fill(std::copy_n(weights.b_c, C, b_c), b_c + columns, T{0});
    if (w_q) kernels.pack_transposed(weights.w_q, stack.P, A, w_q);
    copy_row(v, weights.v, A);
}

template <class T>
void decode(const Decoder<T>& decoder, const Layout& layout, const DecoderInput<T>& input,
            const DecoderOutput<T>& output) {
    run<T>(decoder, Plan(layout), input, output, nullptr);
}

template <class T>
DecoderTape<T> decode_for_training(const Decoder<T>& decoder, const Layout& layout, const DecoderInput<T>& input,
                                   const DecoderOutput<T>& output) {
    DecoderTape<T> tape{decoder.stack.kernels, Plan(layout), {}, {}, {}, {}, {}};
    const Batch batch = tape.plan.batch();
    for (const PackedWeights<T>& weights : decoder.stack.passes) {
        tape.kept.emplace_back(decoder.stack.needs, batch.N, batch.R, false);
        tape.inputs.emplace_back(batch.R * weights.I);
    }
    tape.combined = Array<T>(batch.R * (decoder.E + decoder.stack.P));
    tape.y = Array<T>(batch.R * decoder.C);
    tape.queries = Array<T>(decoder.w_q ? batch.R * decoder.A : 0);
    run(decoder, tape.plan, input, output, &tape);
    return tape;
}

template struct Decoder<float>;
template struct Decoder<double>;
template void decode(const Decoder<float>&, const Layout&, const DecoderInput<float>&, const DecoderOutput<float>&);
template void decode(const Decoder<double>&, const Layout&, const DecoderInput<double>&, const DecoderOutput<double>&);
template DecoderTape<float> decode_for_training(const Decoder<float>&, const Layout&, const DecoderInput<float>&,
                                                const DecoderOutput<float>&);
template DecoderTape<double> decode_for_training(const Decoder<double>&, const Layout&, const DecoderInput<double>&,
                                                 const DecoderOutput<double>&);

}  // namespace rnncore
