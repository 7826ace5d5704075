#include "stream.hpp"

#include <algorithm>
#include <numeric>

#include "dispatch.hpp"
#include "pass.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Rows that a thread takes through all stages at a time, so that what is between the stages stays in its cache; and as
// many rows of successive steps, where there are fewer.
constexpr int64_t kMostSliceRows = 256;
constexpr int64_t kLeastChunkRows = 64;

constexpr int64_t kLeastCapacity = 8;

// Row r of a packed chunk of m rows a step is that of the caller's batch (rows, steps) here.
template <class F>
void each_row(Span rows, Span time, F&& f) {
    const int64_t m = rows.end - rows.begin;
    for (int64_t t = time.begin; t < time.end; ++t) {
        for (int64_t i = 0; i < m; ++i) f((t - time.begin) * m + i, rows.begin + i, t);
    }
}

}  // namespace

// --- program ------------------------------------------------------------------------------------------------------

template <class T>
Program<T>::Program() : kernel_table_(&rnncore::kernels()) {}

template <class T>
const Kernels<T>& Program<T>::kernels() const {
    return precision<T>(*kernel_table_);
}

template <class T>
void Program<T>::add(Stage stage) {
    if (I_ == 0) I_ = stage.I;
    O_ = stage.O;
    widest_row_ = std::max({widest_row_, stage.I, stage.O});
    stages_.push_back(std::move(stage));
}

template <class T>
void Program<T>::add_embedding(const T* table, int64_t V, int64_t E) {
    table_ = Array<T>(V * E);
    std::copy_n(table, V * E, static_cast<T*>(table_));
    V_ = V;
    I_ = O_ = widest_row_ = E;
}

template <class T>
void Program<T>::add_recurrent(const std::vector<Weights<T>>& weights, const T* const* initial) {
    auto stack = std::make_unique<const Stack<T>>(weights, 1);
    const int64_t P = stack->P, I = weights[0].I;
    widest_gates_ = std::max(widest_gates_, stack->cell_kernels().gates * stack->H);
    state_size_ += stack->layers() * rnncore::state_size(stack->needs);
    cell_row_ = std::max(cell_row_, stack->needs.forward_row);
    cell_once_ = std::max(cell_once_, stack->needs.forward_once);
    for (const Weights<T>& layer : weights) multiply_adds_ += stack->multiply_adds(layer.I);
    Stage stage{I, P, std::move(stack), {}, {}, {}, Activation::none};
    for (int s = 0; s < kMaxStates; ++s) {
        if (!initial[s]) continue;
        const int64_t size = stage.stack->layers() * stage.stack->needs.state[s];
        stage.initial[s] = Array<T>(size);
        std::copy_n(initial[s], size, static_cast<T*>(stage.initial[s]));
    }
    add(std::move(stage));
}

template <class T>
void Program<T>::add_linear(const T* weight, const T* bias, int64_t I, int64_t O, Activation activation) {
    const int64_t columns = round_up(O, kernels().lanes);
    Stage stage{I, O, nullptr, {}, Array<T>(I * columns), Array<T>(columns), activation};
    kernels().pack_transposed(weight, I, O, stage.weight);
    std::fill_n(static_cast<T*>(stage.bias), columns, T{0});
    if (bias) std::copy_n(bias, O, static_cast<T*>(stage.bias));
    multiply_adds_ += static_cast<double>(I) * static_cast<double>(O);
    add(std::move(stage));
}

template <class T>
void Program<T>::add_activation(Activation activation, int64_t size) {
    add({size, size, nullptr, {}, {}, {}, activation});
}

// --- stream -------------------------------------------------------------------------------------------------------

template <class T>
std::vector<typename Stream<T>::Pass> Stream<T>::passes_of(const Program<T>& program) {
    std::vector<Pass> passes;
    int64_t offset = 0;
    for (size_t index = 0; index < program.stages().size(); ++index) {
        const Stack<T>* stack = program.stages()[index].stack.get();
        if (!stack) continue;
        for (const PackedWeights<T>& weights : stack->passes) {
            const int64_t layer = &weights - stack->passes.data();
            Pass pass{{}, &stack->cell_kernels(), stack, index, layer, program.stages()[index].initial, {}};
            Forward<T>& task = pass.task;
            task.options = &stack->spec.options;
            task.I = weights.I, task.H = stack->H, task.P = stack->P;
            task.packed = true;
            task.w = weights.w, task.b_ih = weights.b_ih, task.vectors = weights.vectors;
            std::copy_n(weights.u, stack->needs.products, task.u);
            std::copy_n(weights.b_hh, stack->needs.products, task.b_hh);
            task.y_stride = stack->P;
            for (int s = 0; s < pass.cell->states; ++s) {
                pass.offset[s] = offset;
                offset += pass.size(s);
            }
            passes.push_back(pass);
        }
    }
    return passes;
}

template <class T>
Stream<T>::Stream(std::shared_ptr<const Program<T>> program, int64_t rows)
    : program_(std::move(program)), passes_(passes_of(*program_)), rows_(rows) {
    allocate(rows);
    for (int64_t row = 0; row < rows; ++row) reset(row);
}

template <class T>
Stream<T>::Stream(const Stream& other) : Stream(other.program_, other.rows_) {
    for (size_t p = 0; p < passes_.size(); ++p) {
        const Pass& from = other.passes_[p];
        for (int s = 0; s < from.cell->states; ++s) {
            std::copy_n(other.state(from, s, 0), rows_ * from.size(s), state(passes_[p], s, 0));
        }
    }
}

// Memory for so many rows. Their states stay.
template <class T>
void Stream<T>::allocate(int64_t capacity) {
    const int64_t present = slot_ * capacity_;
    Array<T> states(2 * capacity * program_->state_size());
    for (Pass& pass : passes_) {
        for (int s = 0; s < pass.cell->states; ++s) {
            const int64_t size = pass.size(s);
            T* to = states + pass.offset[s] * 2 * capacity;
            if (capacity_ > 0) std::copy_n(pass.task.states[s] + present * size, rows_ * size, to);
            pass.task.states[s] = to;
        }
    }
    states_ = std::move(states);
    slot_ = 0;
    capacity_ = capacity;

    chunk_rows_ = std::clamp(capacity, kLeastChunkRows, kMostSliceRows);
    caller_row_.resize(static_cast<size_t>(chunk_rows_));
    std::iota(caller_row_.begin(), caller_row_.end(), int64_t{0});
    count_.assign(static_cast<size_t>(chunk_rows_ + 2), rows_);
    parts_ = std::vector<Part>(static_cast<size_t>(std::clamp<int64_t>(capacity, 1, num_threads())));
    for (Part& part : parts_) {
        part.memory.add(part.pre, chunk_rows_ * program_->widest_gates());
        part.memory.add(part.cell, chunk_rows_ * program_->cell_row() + program_->cell_once());
        for (T*& rows : part.rows) part.memory.add(rows, chunk_rows_ * program_->widest_row());
        part.memory.allocate();
        part.x_rows.resize(static_cast<size_t>(chunk_rows_));
        part.offset.resize(static_cast<size_t>(chunk_rows_ + 2));
    }
}

template <class T>
T* Stream<T>::state(const Pass& pass, int state, int64_t row) const {
    return pass.task.states[state] + (slot_ * capacity_ + row) * pass.size(state);
}

template <class T>
double Stream<T>::work(int64_t steps) const {
    return program_->multiply_adds() * static_cast<double>(rows_) * static_cast<double>(steps);
}

template <class T>
void Stream<T>::run(const T* x, const int64_t* tokens, int64_t steps, T* y) {
    if (rows_ == 0 || steps == 0) return;
    const int threads = std::min(threads_for(work(steps)), static_cast<int>(parts_.size()));
    const int64_t slices = std::min(std::max<int64_t>(threads, ceil_div(rows_, kMostSliceRows)), rows_);
    run_team(threads, [&](Member& team) {
        team.each(slices, [&](int64_t s) {
            slice({rows_ * s / slices, rows_ * (s + 1) / slices}, parts_[static_cast<size_t>(team.index())], x, tokens,
                  steps, y);
        });
    });
    slot_ = (slot_ + steps) % 2;
}

template <class T>
void Stream<T>::slice(Span rows, Part& part, const T* x, const int64_t* tokens, int64_t steps, T* y) {
    const int64_t I = program_->input_size(), O = program_->output_size();
    const int64_t m = rows.end - rows.begin, most_steps = chunk_rows_ / m;
    // whether the caller's rows are in the order of packed ones already
    const bool in_order = m == 1 || steps == 1;
    for (int64_t t = 0, end; t < steps; t = end) {
        end = std::min(t + most_steps, steps);
        const int64_t at = rows.begin * steps + t;  // the caller's row, if they are
        const T* in = part.rows[0];
        if (!tokens && in_order) {
            in = x + at * I;
        } else {
            each_row(rows, {t, end}, [&](int64_t to, int64_t n, int64_t step) {
                const int64_t from = n * steps + step;
                std::copy_n(tokens ? program_->table() + tokens[from] * I : x + from * I, I, part.rows[0] + to * I);
            });
        }
        const T* out = chunk(rows, part, (slot_ + t) % 2, end - t, in, in_order ? y + at * O : nullptr);
        if (!in_order) {
            each_row(rows, {t, end}, [&](int64_t from, int64_t n, int64_t step) {
                std::copy_n(out + from * O, O, y + (n * steps + step) * O);
            });
        }
    }
}

template <class T>
const T* Stream<T>::chunk(Span rows, Part& part, int64_t slot, int64_t steps, const T* in, T* out) {
    const Kernels<T>& kernels = program_->kernels();
    const int64_t m = rows.end - rows.begin, R = m * steps;
    for (int64_t t = 0; t < steps; ++t) part.offset[static_cast<size_t>(slot + t)] = t * m - rows.begin;
    // (a step more than there are: the sequences do not end)
    const Batch batch{slot + steps + 1, capacity_, R, count_.data(), part.offset.data(), caller_row_.data(), nullptr};
    const auto& stages = program_->stages();
    const auto target = [&](bool last) { return last && out ? out : part.rows[in == part.rows[0]]; };

    auto pass = passes_.begin();
    for (size_t index = 0; index < stages.size(); ++index) {
        const typename Program<T>::Stage& stage = stages[index];
        const bool last_stage = index + 1 == stages.size();
        for (; pass != passes_.end() && pass->stage == index; ++pass) {
            const CellKernels<T>& cell = *pass->cell;
            const bool last = last_stage && (pass + 1 == passes_.end() || pass[1].stage != index);
            Forward<T> task = pass->task;
            const Span panels{0, cell.forward_panels(task.H)};
            task.batch = batch;
            task.x = in;
            task.y = target(last);
            const bool product_before = task.I > kFewInputs || !cell.input_in_loop;
            if (product_before) {
                for (int64_t r = 0; r < R; ++r) part.x_rows[static_cast<size_t>(r)] = in + r * task.I;
                cell.input(task, R, part.x_rows.data(), panels, part.pre);
            }
            cell.forward(task, {slot, slot + steps}, rows, panels, product_before ? part.pre : nullptr, part.cell);
            if (stage.stack->spec.skip && pass->layer > 0) add_input(task, {slot, slot + steps}, rows);
            in = task.y;
        }
        if (stage.stack) continue;
        T* to = target(last_stage);
        if (stage.weight) {
            kernels.linear({stage.I, stage.O, stage.activation, caller_row_.data(), in, true, stage.weight, stage.bias,
                            to, stage.O},
                           {0, R});
        } else {
            kernels.activate(stage.activation, in, to, R * stage.I);
        }
        in = to;
    }
    return in;
}

template <class T>
void Stream<T>::attach() {
    if (rows_ == capacity_) allocate(std::max(2 * capacity_, kLeastCapacity));
    std::fill(count_.begin(), count_.end(), ++rows_);
    reset(rows_ - 1);
}

template <class T>
void Stream<T>::detach(int64_t row) {
    std::fill(count_.begin(), count_.end(), --rows_);
    for (const Pass& pass : passes_) {
        for (int s = 0; s < pass.cell->states && row < rows_; ++s) {
            std::copy_n(state(pass, s, rows_), pass.size(s), state(pass, s, row));
        }
    }
}

template <class T>
void Stream<T>::reset(int64_t row) {
    for (const Pass& pass : passes_) {
        for (int s = 0; s < pass.cell->states; ++s) {
            const T* initial = pass.initial[s];
            copy_row(state(pass, s, row), initial ? initial + pass.layer * pass.size(s) : nullptr, pass.size(s));
        }
    }
}

template <class T>
bool Stream<T>::renew(std::shared_ptr<const Program<T>> program) {
    using Stage = typename Program<T>::Stage;
    const auto& stages = program_->stages();
    const bool same = program->tokens() == program_->tokens() && program->input_size() == program_->input_size() &&
                      std::equal(stages.begin(), stages.end(), program->stages().begin(), program->stages().end(),
                                 [](const Stage& a, const Stage& b) {
                                     if (a.I != b.I || a.O != b.O || a.activation != b.activation) return false;
                                     if (!a.stack || !b.stack) return a.stack == b.stack && !a.weight == !b.weight;
                                     return a.stack->spec.cell == b.stack->spec.cell &&
                                            a.stack->layers() == b.stack->layers() && a.stack->H == b.stack->H;
                                 });
    if (!same) return false;
    std::vector<Pass> passes = passes_of(*program);
    for (size_t p = 0; p < passes.size(); ++p) {
        std::copy_n(passes_[p].task.states, kMaxStates, passes[p].task.states);
    }
    passes_ = std::move(passes);
    program_ = std::move(program);
    return true;
}

template <class T>
void Stream<T>::read_state(size_t stage, int index, Span rows, T* out) const {
    for (const Pass& pass : passes_) {
        if (pass.stage != stage) continue;
        out = std::copy_n(state(pass, index, rows.begin), (rows.end - rows.begin) * pass.size(index), out);
    }
}

template <class T>
void Stream<T>::write_state(size_t stage, int index, Span rows, const T* in) {
    for (const Pass& pass : passes_) {
        if (pass.stage != stage) continue;
        const int64_t size = (rows.end - rows.begin) * pass.size(index);
        std::copy_n(in, size, state(pass, index, rows.begin));
        in += size;
    }
}

template class Program<float>;
template class Program<double>;
template class Stream<float>;
template class Stream<double>;

}  // namespace rnncore
