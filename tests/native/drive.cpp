// Drives the core without Python, for sanitizers, emulators and compilers that the wheel is not built with: every cell,
// dtype and instruction set over sizes with tails, ragged batches, empty ones, tokens, resets, checkpoints, stacks of
// layers, affine layers, linear scans, trees, decoders with attention, streams, reservoirs, steps of optimisers,
// several threads inside a call, several callers at once, and fork. Prints what it did; exits with 1 if anything was
// wrong.
//
// It knows no right values (the Python tests do). It checks that every element of every output is written and finite,
// and that bits depend neither on the number of threads, nor on whether a forward pass is recorded or with checkpoints,
// nor on whether a stack runs as one or pass by pass, nor on whether x is a series or tokens. A caller's arrays are of
// exactly their size: heap blocks that AddressSanitizer watches, or, in a plain build, blocks that end at a page that
// may not be touched. The latter sees masked loads and stores too, which are intrinsics and not instrumented.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "decoder.hpp"
#include "dispatch.hpp"
#include "engine.hpp"
#include "linear.hpp"
#include "pieces.hpp"
#include "reservoir.hpp"
#include "scan.hpp"
#include "schedule.hpp"
#include "stream.hpp"
#include "threads.hpp"
#include "tree.hpp"
#include "update.hpp"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define DRIVE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define DRIVE_SANITIZED 1
#endif
#endif

// ThreadSanitizer ends a forked child that starts threads unless told otherwise; the core's child does just that.
extern "C" const char* __tsan_default_options() {
    return "die_after_fork=0";
}

namespace {

using namespace rnncore;

std::atomic<int> failures{0};

void fail(const std::string& what) {
    if (++failures <= 20) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

// --- a call's arrays ----------------------------------------------------------------------------------------------

#if defined(DRIVE_SANITIZED)

void* allocate(size_t bytes) {
    return ::operator new(bytes);
}
void release(void* data, size_t) {
    ::operator delete(data);
}

#else

// Whole pages and one more, which is closed; the block ends where that begins.
struct Guarded {
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_t open;

    explicit Guarded(size_t bytes) : open((bytes + page - 1) / page * page) {}
};

void* allocate(size_t bytes) {
    const Guarded block(bytes);
    void* pages = mmap(nullptr, block.open + block.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    char* end = static_cast<char*>(pages) + block.open;
    mprotect(end, block.page, PROT_NONE);
    return end - bytes;
}

void release(void* data, size_t bytes) {
    const Guarded block(bytes);
    munmap(static_cast<char*>(data) + bytes - block.open, block.open + block.page);
}

#endif

template <class T>
class Values {
public:
    Values() = default;
    explicit Values(int64_t n) : size_(n), data_(static_cast<T*>(allocate(bytes()))) {}
    Values(Values&& other) noexcept
        : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
    Values& operator=(Values&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(data_, other.data_);
        return *this;
    }
    ~Values() {
        if (data_) release(data_, bytes());
    }
    operator T*() const { return data_; }
    int64_t size() const { return size_; }
    size_t bytes() const { return static_cast<size_t>(size_) * sizeof(T); }

private:
    int64_t size_ = 0;
    T* data_ = nullptr;
};

// An output before the call: whatever stays unwritten is not finite.
template <class T>
Values<T> unwritten(int64_t n) {
    Values<T> values(n);
    std::fill_n(static_cast<T*>(values), n, std::numeric_limits<T>::quiet_NaN());
    return values;
}

template <class T>
Values<T> uniform(std::mt19937_64& random, int64_t n, double bound) {
    Values<T> values(n);
    std::uniform_real_distribution<double> number(-bound, bound);
    for (int64_t i = 0; i < n; ++i) values[i] = static_cast<T>(number(random));
    return values;
}

struct Shape {
    int64_t T, N, I, H;
};

enum class Lengths { full, ragged, zero };

// A cell, and what a layer adds to it.
struct Kind {
    const char* name;
    Spec spec;
    bool projects = false;  // h has half as many numbers
    bool masks = false;     // in training, of what is taken of new states and of h in products

    Kind(Cell cell) : name(names[static_cast<int>(cell)]), spec{cell} {}
    Kind(const char* name, Cell cell, const Options& options, bool projects, bool masks)
        : name(name), spec{cell, options}, projects(projects), masks(masks) {}
    int64_t P(int64_t H) const { return projects ? (H + 1) / 2 : spec.cell == Cell::lru_complex ? 2 * H : H; }
    bool multiplies() const { return rnncore::multiplies(spec.cell); }

    static constexpr const char* names[] = {"rnn_tanh", "rnn_relu", "lstm", "gru", "slstm"};
};

constexpr Cell kPlainCells[] = {Cell::rnn_tanh, Cell::rnn_relu, Cell::lstm, Cell::gru};

// Cells with options, every option among them.
const std::vector<Kind>& kinds_with_options() {
    static const std::vector<Kind> kinds = [] {
        Options normal;
        normal.layer_norm = true;
        Options all = normal;
        all.peephole = true;
        all.gate_clip = 1.5, all.cell_clip = 0.7;
        all.activation = {Activation::softsign, 0, 0};
        Options clipped;
        clipped.gate_clip = 0.5;
        clipped.recurrent_activation = {Activation::hard_sigmoid, 0.2, 0.5};
        Options leaky = clipped;
        leaky.take[0] = 0.3;
        Options peephole;
        peephole.peephole = true;
        peephole.take[0] = 0.8, peephole.take[1] = 0.6;
        Options normal_elu = normal;
        normal_elu.activation = {Activation::elu, 0.5, 0};
        Options deep = normal;
        deep.depth = 3, deep.shortcut = true;
        deep.peephole = true;
        deep.take[0] = 0.8;
        Options deepest = clipped;
        deepest.depth = kMaxProducts - 1;
        Options deep_of_two = clipped;
        deep_of_two.depth = 2, deep_of_two.shortcut = true;
        return std::vector<Kind>{
            {"lstm_rows", Cell::lstm_rows, all, true, false},
            {"gru_before with masks", Cell::gru_before, clipped, false, true},
            {"rnn_rows", Cell::rnn_rows, leaky, false, false},
            {"lstm_coupled with masks", Cell::lstm_coupled, peephole, true, true},
            {"gru_rows with masks", Cell::gru_rows, normal_elu, false, true},
            {"lstm_rows with masks", Cell::lstm_rows, peephole, false, true},
            {"gru_before", Cell::gru_before, normal, false, false},
            {"mgu with masks", Cell::mgu, clipped, false, true},
            {"rnn_rows with masks", Cell::rnn_rows, normal, false, true},
            {"deep lstm_rows with masks", Cell::lstm_rows, deep, false, true},
            {"deep gru_rows with masks", Cell::gru_rows, deep, false, true},
            {"deepest rnn_rows", Cell::rnn_rows, deepest, false, false},
            {"deep gru_before", Cell::gru_before, deep_of_two, false, false},
            {"deep mgu with masks", Cell::mgu, deep_of_two, false, true},
            {"slstm", Cell::slstm, {}, false, false},
            {"min_gru", Cell::min_gru, {}, false, false},
            {"ind_rnn_tanh", Cell::ind_rnn_tanh, {}, false, false},
            {"lru_complex", Cell::lru_complex, {}, false, false},
            {"sru", Cell::sru, {}, false, false},
            {"min_lstm", Cell::min_lstm, {}, false, false},
            {"qrnn", Cell::qrnn, {}, false, false},
            {"lru", Cell::lru, {}, false, false},
            {"ind_rnn_relu", Cell::ind_rnn_relu, {}, false, false},
        };
    }();
    return kinds;
}

// Plain cells, of which two differ in their activation alone, and the one of the others whose turn it is.
constexpr int kTried = 4;
std::vector<Kind> kinds_of_turn(size_t turn) {
    const std::vector<Kind>& others = kinds_with_options();
    return {turn % 2 ? Cell::rnn_relu : Cell::rnn_tanh, Cell::lstm, Cell::gru, others[turn % others.size()]};
}

struct Case {
    Kind kind;
    Shape shape;
    Lengths lengths;
    bool batch_first, reverse;
    bool optional;           // biases, initial states and all cotangents are given
    int64_t table_rows = 0;  // x is made of tokens and a table of so many rows; 0: it is a series
    bool resets = false;     // states start anew inside sequences

    std::string name() const {
        static const char* const kinds[] = {"full", "ragged", "zero"};
        char text[160];
        std::snprintf(text, sizeof text, "%s T=%d N=%d I=%d H=%d V=%d %s%s%s%s%s", kind.name, static_cast<int>(shape.T),
                      static_cast<int>(shape.N), static_cast<int>(shape.I), static_cast<int>(shape.H),
                      static_cast<int>(table_rows), kinds[static_cast<int>(lengths)], batch_first ? "" : " time-major",
                      reverse ? " reverse" : "", optional ? "" : " nothing optional", resets ? " resets" : "");
        return text;
    }
};

Values<int64_t> random_lengths(std::mt19937_64& random, int64_t N, int64_t most) {
    Values<int64_t> lengths(N);
    for (int64_t n = 0; n < N; ++n) {
        lengths[n] = n % 5 == 3 ? 0 : std::uniform_int_distribution<int64_t>(0, most)(random);
    }
    return lengths;
}

// States of any kind: n, the third of sLSTM, is positive.
template <class T>
Values<T> uniform_states(std::mt19937_64& random, int64_t n, int state) {
    Values<T> values = uniform<T>(random, n, 1);
    for (int64_t i = 0; i < n && state == 2; ++i) values[i] = std::abs(values[i]) + T(0.5);
    return values;
}

template <class T>
Values<T> zeros_and_ones(std::mt19937_64& random, int64_t n) {
    Values<T> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = static_cast<T>(random() % 3 > 0);
    return values;
}

const char* const kFinal[kMaxStates] = {"h_n", "c_n", "n_n", "m_n"};

// What a call reads.
template <class T>
struct Inputs {
    Case call;
    int states;
    int64_t P;
    Needs needs;
    Values<T> x, w_ih, w_hh, b_ih, b_hh, w_inner, b_inner, vectors, first[kMaxStates], dy, dlast[kMaxStates];
    Values<T> take[2], recurrent_mask;
    Values<int64_t> lengths, tokens;
    Values<uint8_t> resets;
    Values<T> start[kMaxStates];
    const T* starts[kMaxStates] = {};
    Weights<T> weights{};
    Input<T> input{};
    Layout layout{};
    Output<const T> cotangents{};

    explicit Inputs(const Case& c, uint64_t seed = 42)
        : call(c),
          states(states_of(c.kind.spec.cell)),
          P(c.kind.P(c.shape.H)),
          needs(needs_of<T>(c.kind.spec, c.shape.H, P)) {
        std::mt19937_64 random(seed);
        const auto [steps, N, I, H] = c.shape;
        const int64_t GH = gates_of(c.kind.spec.cell) * H;
        const double bound = 1 / std::sqrt(static_cast<double>(H));
        x = uniform<T>(random, (c.table_rows ? c.table_rows : N * steps) * I, 1);
        w_ih = uniform<T>(random, GH * I, bound);
        w_hh = uniform<T>(random, GH * P, bound);
        weights = {c.kind.spec, I, H, P, w_ih, w_hh, nullptr, nullptr, nullptr, nullptr, nullptr};
        if (const int64_t rows = inner_rows(needs)) weights.w_inner = w_inner = uniform<T>(random, rows * H, bound);
        if (needs.vectors) weights.vectors = vectors = uniform<T>(random, needs.vectors, c.kind.multiplies() ? 1 : 0.6);
        if (!c.kind.multiplies()) weights.w_hh = nullptr;
        input.x = x;
        if (c.optional) {
            b_ih = uniform<T>(random, GH, bound);
            b_hh = uniform<T>(random, GH, bound);
            weights.b_ih = b_ih;
            if (c.kind.multiplies()) weights.b_hh = b_hh;
            if (const int64_t rows = inner_biases(needs)) weights.b_inner = b_inner = uniform<T>(random, rows, bound);
            for (int s = 0; s < states; ++s) {
                input.first[s] = first[s] = uniform_states<T>(random, N * needs.state[s], s);
                cotangents.last[s] = dlast[s] = uniform<T>(random, N * needs.state[s], 1);
            }
        }
        dy = uniform<T>(random, N * steps * P, 1);
        cotangents.y = dy;
        layout = {N, steps, c.batch_first, c.reverse, nullptr};
        if (c.lengths != Lengths::full) {
            lengths = random_lengths(random, N, c.lengths == Lengths::zero ? 0 : steps);
            layout.lengths = lengths;
        }
        if (c.resets) {
            resets = Values<uint8_t>(N * steps);
            for (int64_t i = 0; i < N * steps; ++i) resets[i] = random() % 4 == 0;
            for (int s = 0; s < states && c.optional; ++s) {
                starts[s] = start[s] = uniform_states<T>(random, N * needs.state[s], s);
            }
        }
        if (c.kind.masks) {
            for (int s = 0; s < std::min(states, 2); ++s) {
                input.take[s] = take[s] = zeros_and_ones<T>(random, N * steps * needs.state[s]);
            }
            input.recurrent_mask = recurrent_mask = zeros_and_ones<T>(random, N * P);
        }
        if (c.table_rows) {
            tokens = Values<int64_t>(N * steps);
            std::fill_n(static_cast<int64_t*>(tokens), N * steps, std::numeric_limits<int64_t>::min());
            const Plan plan(layout);
            const Batch batch = plan.batch();
            for (int64_t r = 0; r < batch.R; ++r) {
                tokens[batch.caller_row[r]] = std::uniform_int_distribution<int64_t>(0, c.table_rows - 1)(random);
            }
            input.tokens = tokens;
            input.V = c.table_rows;
        }
    }
};

// The input of a call with tokens as a series.
template <class T>
Values<T> gathered(const Inputs<T>& in) {
    const auto [steps, N, I, H] = in.call.shape;
    Values<T> series(N * steps * I);
    for (int64_t row = 0; row < N * steps; ++row) {
        const int64_t token = in.tokens[row];
        copy_row(series + row * I, token < 0 ? nullptr : in.x + token * I, I);
    }
    return series;
}

// What a call writes.
template <class T>
struct Outputs {
    std::vector<std::pair<const char*, Values<T>>> arrays;

    T* add(const char* name, int64_t size) {
        arrays.emplace_back(name, unwritten<T>(size));
        return arrays.back().second;
    }
};

template <class T>
void check_finite(const Outputs<T>& outputs, const std::string& what) {
    for (const auto& [name, values] : outputs.arrays) {
        for (int64_t i = 0; i < values.size(); ++i) {
            if (std::isfinite(values[i])) continue;
            fail(what + ": " + name + "[" + std::to_string(i) + "] is unwritten or not finite");
            break;
        }
    }
}

template <class T>
void check_same(const Outputs<T>& got, const Outputs<T>& expected, const std::string& what) {
    for (size_t a = 0; a < expected.arrays.size(); ++a) {
        const auto& [name, values] = expected.arrays[a];
        if (std::memcmp(got.arrays[a].second, values, values.bytes()) != 0)
            fail(what + ": bits of " + name + " differ");
    }
}

template <class T>
Output<T> new_output(const Inputs<T>& in, Outputs<T>& outputs) {
    const auto [steps, N, I, H] = in.call.shape;
    Output<T> output{outputs.add("y", N * steps * in.P), {}};
    for (int s = 0; s < in.states; ++s) output.last[s] = outputs.add(kFinal[s], N * in.needs.state[s]);
    return output;
}

// `once`: with a stack for this call alone, which does not always pack its weights.
template <class T>
Outputs<T> infer(const Inputs<T>& in, bool once = true) {
    Outputs<T> outputs;
    Input<T> input = in.input;
    std::fill_n(input.take, 2, nullptr);  // masks are of training
    input.recurrent_mask = nullptr;
    const int64_t rows_of_single_step = once && in.layout.T == 1 ? in.layout.N : 0;
    const Stack<T> stack({in.weights}, 1, rows_of_single_step);
    if (in.call.resets) {
        forward(stack, Pieces(in.layout, in.resets), input, in.starts, new_output(in, outputs));
    } else {
        forward(stack, in.layout, input, new_output(in, outputs));
    }
    return outputs;
}

template <class T>
Tape<T> record(const Inputs<T>& in, Outputs<T>& outputs, int64_t checkpoint_every = 0) {
    const Output<T> output = new_output(in, outputs);
    if (!in.call.resets) return forward_for_training(in.weights, in.layout, in.input, output, checkpoint_every);
    return forward_for_training(in.weights, Pieces(in.layout, in.resets), in.input, in.starts, output,
                                checkpoint_every);
}

template <class T>
Outputs<T> pull_back(const Inputs<T>& in, const Tape<T>& tape) {
    const auto [steps, N, I, H] = in.call.shape;
    const int64_t GH = gates_of(in.call.kind.spec.cell) * H;
    Outputs<T> outputs;
    Gradients<T> gradients{};
    gradients.x = outputs.add("dx", in.x.size());
    if (in.tokens) std::fill_n(gradients.x, in.x.size(), T{1});  // what it is added to
    gradients.w_ih = outputs.add("dw_ih", GH * I);
    gradients.b_ih = outputs.add("db_ih", GH);
    if (in.weights.w_hh) {
        gradients.w_hh = outputs.add("dw_hh", GH * in.P);
        gradients.b_hh = outputs.add("db_hh", GH);
    }
    if (in.weights.w_inner) gradients.w_inner = outputs.add("dw_inner", in.w_inner.size());
    if (const int64_t rows = inner_biases(in.needs)) gradients.b_inner = outputs.add("db_inner", rows);
    if (in.weights.vectors) gradients.vectors = outputs.add("dvectors", in.needs.vectors);
    for (int s = 0; s < in.states; ++s) gradients.first[s] = outputs.add("dstate_0", N * in.needs.state[s]);
    if (in.call.resets) {
        T* dstart[kMaxStates] = {};
        for (int s = 0; s < in.states && in.call.optional; ++s) {
            dstart[s] = outputs.add("dstate_reset", N * in.needs.state[s]);
        }
        backward(in.weights, Pieces(in.layout, in.resets), in.input, tape, in.cotangents, gradients, dstart);
    } else {
        backward(in.weights, in.input, tape, in.cotangents, gradients);
    }
    return outputs;
}

template <class T>
struct Results {
    Outputs<T> inferred, recorded, gradients;
};

template <class T>
Results<T> run(const Inputs<T>& in) {
    Results<T> results;
    results.inferred = infer(in);
    const Tape<T> tape = record(in, results.recorded);
    results.gradients = pull_back(in, tape);
    return results;
}

template <class T>
void check_same(const Results<T>& got, const Results<T>& expected, const std::string& what) {
    check_same(got.inferred, expected.inferred, what + ", inference");
    check_same(got.recorded, expected.recorded, what + ", recorded");
    check_same(got.gradients, expected.gradients, what + ", backward");
}

// --- stacks of layers ---------------------------------------------------------------------------------------------

struct StackCase {
    Case layer;  // not reversed
    int layers, directions;

    std::string name() const {
        return std::to_string(layers) + " layers, " + std::to_string(directions) + " directions, " + layer.name();
    }
};

// What a call of a stack reads: each pass has the weights of a layer of its size.
template <class T>
struct StackInputs {
    StackCase call;
    int states;
    std::vector<Inputs<T>> passes;
    Values<T> first[kMaxStates];
    std::vector<Weights<T>> weights;
    Input<T> input{};
    Layout layout{};

    int64_t P() const { return passes[0].P; }
    int64_t state(int s) const { return passes[0].needs.state[s]; }

    explicit StackInputs(const StackCase& c) : call(c), states(states_of(c.layer.kind.spec.cell)) {
        const auto [steps, N, I, H] = c.layer.shape;
        for (int pass = 0; pass < c.layers * c.directions; ++pass) {
            Case one = c.layer;
            if (pass >= c.directions) one.shape.I = c.directions * c.layer.kind.P(H), one.table_rows = 0;
            one.optional = one.optional && pass % 3 != 2;
            passes.emplace_back(one, 42 + pass);
            weights.push_back(passes.back().weights);
        }
        input = {passes[0].input.x, {}, passes[0].input.tokens, passes[0].input.V};
        layout = passes[0].layout;
        std::mt19937_64 random(7);
        for (int s = 0; s < states; ++s) {
            const int64_t size = static_cast<int64_t>(passes.size()) * N * state(s);
            if (c.layer.optional) first[s] = uniform_states<T>(random, size, s);
            input.first[s] = first[s];
        }
    }
};

template <class T>
Output<T> new_output(const StackInputs<T>& in, Outputs<T>& outputs) {
    const auto [steps, N, I, H] = in.call.layer.shape;
    Output<T> output{outputs.add("y", N * steps * in.call.directions * in.P()), {}};
    for (int s = 0; s < in.states; ++s) {
        output.last[s] = outputs.add(kFinal[s], static_cast<int64_t>(in.passes.size()) * N * in.state(s));
    }
    return output;
}

template <class T>
Outputs<T> infer(const Stack<T>& stack, const StackInputs<T>& in) {
    Outputs<T> outputs;
    forward(stack, in.layout, in.input, new_output(in, outputs));
    return outputs;
}

// With resets to the initial states at every third step.
template <class T>
Outputs<T> infer_with_resets(const Stack<T>& stack, const StackInputs<T>& in) {
    const auto [N, steps] = std::pair{in.layout.N, in.layout.T};
    Values<uint8_t> resets(N * steps);
    for (int64_t i = 0; i < N * steps; ++i) resets[i] = i % 3 == 1;
    Outputs<T> outputs;
    forward(stack, Pieces(in.layout, resets), in.input, in.input.first, new_output(in, outputs));
    return outputs;
}

// The same, with a stack of its own for every pass.
template <class T>
Outputs<T> infer_by_passes(const StackInputs<T>& in) {
    const auto [steps, N, I, H] = in.call.layer.shape;
    const int64_t D = in.call.directions, P = in.P(), rows = N * steps;
    Outputs<T> outputs;
    const Output<T> output = new_output(in, outputs);
    std::vector<Values<T>> series;  // between the layers
    for (int64_t pass = 0; pass < static_cast<int64_t>(in.passes.size()); ++pass) {
        const int64_t layer = pass / D, direction = pass % D;
        if (direction == 0 && layer + 1 < in.call.layers) series.emplace_back(rows * D * P);
        Input<T> input = in.input;
        if (layer) input = {series[static_cast<size_t>(layer - 1)], {}};
        Outputs<T> one;
        Output<T> of_pass{one.add("y", rows * P), {}};
        for (int s = 0; s < in.states; ++s) {
            input.first[s] = in.input.first[s] ? in.input.first[s] + pass * N * in.state(s) : nullptr;
            of_pass.last[s] = output.last[s] + pass * N * in.state(s);
        }
        Layout layout = in.layout;
        layout.reverse = direction == 1;
        forward(Stack<T>({in.weights[static_cast<size_t>(pass)]}, 1), layout, input, of_pass);
        T* to = layer + 1 < in.call.layers ? static_cast<T*>(series[static_cast<size_t>(layer)]) : output.y;
        for (int64_t row = 0; row < rows; ++row) std::copy_n(of_pass.y + row * P, P, to + (row * D + direction) * P);
        if (layer == 0 || direction + 1 < D || !in.call.layer.kind.spec.skip) continue;
        for (int64_t i = 0; i < rows * D * P; ++i) to[i] += input.x[i];
    }
    return outputs;
}

// --- affine layers ------------------------------------------------------------------------------------------------

struct LinearCase {
    int64_t N, T, I, O;
    Activation activation;
    Lengths lengths;
    bool bias;

    std::string name() const {
        static const char* const activations[kPlainActivations] = {"none", "tanh", "sigmoid", "relu"};
        static const char* const kinds[] = {"full", "ragged", "zero"};
        char text[160];
        std::snprintf(text, sizeof text, "linear N=%d T=%d I=%d O=%d %s %s%s", static_cast<int>(N), static_cast<int>(T),
                      static_cast<int>(I), static_cast<int>(O), activations[static_cast<int>(activation)],
                      kinds[static_cast<int>(lengths)], bias ? "" : " no bias");
        return text;
    }
};

// Forward and backward.
template <class T>
Outputs<T> run(const LinearCase& c) {
    std::mt19937_64 random(42);
    const int64_t all = c.N * c.T;
    const double bound = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(c.I, 1)));
    const Values<T> x = uniform<T>(random, all * c.I, 1), weight = uniform<T>(random, c.O * c.I, bound),
                    bias = uniform<T>(random, c.O, bound), dy = uniform<T>(random, all * c.O, 1);
    Values<int64_t> lengths;
    if (c.lengths != Lengths::full) lengths = random_lengths(random, c.N, c.lengths == Lengths::zero ? 0 : c.T);
    const Rows rows = c.lengths == Lengths::full ? Rows(all) : Rows(c.N, c.T, lengths);
    Outputs<T> outputs;
    const Linear<T> layer{c.I,
                          c.O,
                          c.activation,
                          nullptr,
                          x,
                          false,
                          weight,
                          c.bias ? static_cast<const T*>(bias) : nullptr,
                          outputs.add("y", all * c.O),
                          c.O};
    linear_forward(kernels(), rows, layer);
    LinearGradients<T> gradients{};
    gradients.x = outputs.add("dx", all * c.I);
    gradients.weight = outputs.add("dweight", c.O * c.I);
    gradients.bias = outputs.add("dbias", c.O);
    linear_backward(kernels(), rows, layer, static_cast<const T*>(dy), gradients);
    return outputs;
}

// --- decoders with attention --------------------------------------------------------------------------------------

struct DecoderCase {
    Spec spec;
    Score score;
    Feed feed;
    int64_t layers, N, T, S, I, E, H;
    Lengths lengths;

    std::string name() const {
        static const char* const scores[] = {"dot", "additive", "location"};
        static const char* const feeds[] = {"nothing", "output", "context"};
        char text[200];
        std::snprintf(text, sizeof text, "decoder cell=%d layers=%d N=%d T=%d S=%d I=%d E=%d H=%d %s, feeds %s",
                      static_cast<int>(spec.cell), static_cast<int>(layers), static_cast<int>(N), static_cast<int>(T),
                      static_cast<int>(S), static_cast<int>(I), static_cast<int>(E), static_cast<int>(H),
                      scores[static_cast<int>(score)], feeds[static_cast<int>(feed)]);
        return text;
    }
};

// Forward, forward with a tape, whose outputs must be the same bits, and backward.
template <class T>
Outputs<T> run(const DecoderCase& c) {
    std::mt19937_64 random(42);
    const int64_t N = c.N, steps = c.T, S = c.S, H = c.H, GH = gates_of(c.spec.cell) * H;
    const Needs needs = needs_of<T>(c.spec, H, H);
    const int states = states_of(c.spec.cell);
    const bool own_keys = c.score == Score::additive;
    DecoderWeights<T> weights;
    weights.score = c.score, weights.feed = c.feed;
    weights.I = c.I, weights.C = H, weights.E = c.score == Score::dot ? H : c.E;
    weights.A = c.score == Score::location ? S + 2 : H;
    const int64_t E = weights.E, A = weights.A, C = weights.C;
    const int64_t fed = c.feed == Feed::nothing ? 0 : c.feed == Feed::output ? C : E;
    std::vector<Values<T>> kept;
    const auto draw = [&](int64_t n) -> T* {
        kept.push_back(uniform<T>(random, n, 0.5));
        return kept.back();
    };
    for (int64_t l = 0; l < c.layers; ++l) {
        const int64_t I = l ? H : c.I + fed;
        weights.layers.push_back(
            {c.spec, I, H, H, draw(GH * I), draw(GH * H), draw(GH), l ? draw(GH) : nullptr, nullptr, nullptr, nullptr});
        if (needs.vectors) weights.layers.back().vectors = draw(needs.vectors);
    }
    if (c.score != Score::dot) weights.w_q = draw(A * H);
    if (c.score == Score::additive) weights.v = draw(A);
    weights.w_c = draw(C * (E + H)), weights.b_c = draw(C);

    DecoderInput<T> input{};
    input.x = draw(N * steps * c.I);
    for (int s = 0; s < states; ++s) input.first[s] = draw(c.layers * N * H);
    if (c.feed == Feed::output) input.first_fed = draw(N * C);
    input.S = S;
    input.memory = draw(N * S * E);
    input.keys = own_keys ? draw(N * S * A) : c.score == Score::dot ? input.memory : nullptr;
    const Values<int64_t> lengths = random_lengths(random, N, c.lengths == Lengths::zero ? 0 : steps),
                          source_lengths = random_lengths(random, N, S);
    input.source_length = source_lengths;
    Layout layout{N, steps, true, false, nullptr};
    if (c.lengths != Lengths::full) layout.lengths = lengths;

    const Decoder<T> decoder(weights);
    const auto new_output = [&](Outputs<T>& outputs) {
        DecoderOutput<T> output{};
        output.y = outputs.add("y", N * steps * C);
        output.weights = outputs.add("weights", N * steps * S);
        for (int s = 0; s < states; ++s) output.last[s] = outputs.add(kFinal[s], c.layers * N * H);
        if (c.feed == Feed::output) output.last_fed = outputs.add("fed", N * C);
        return output;
    };
    Outputs<T> outputs, inferred;
    const DecoderOutput<T> output = new_output(outputs);
    const DecoderTape<T> tape = decode_for_training(decoder, layout, input, output);
    decode(decoder, layout, input, new_output(inferred));
    check_same(inferred, outputs, "inference");

    DecoderOutput<const T> cotangents{};
    cotangents.y = draw(N * steps * C);
    cotangents.weights = output.weights;
    for (int s = 0; s < states; ++s) cotangents.last[s] = draw(c.layers * N * H);
    if (c.feed == Feed::output) cotangents.last_fed = draw(N * C);
    DecoderGradients<T> gradients{};
    gradients.x = outputs.add("dx", N * steps * c.I);
    gradients.memory = outputs.add("dmemory", N * S * E);
    if (own_keys) gradients.keys = outputs.add("dkeys", N * S * A);
    if (c.feed == Feed::output) gradients.first_fed = outputs.add("dfed", N * C);
    if (weights.w_q) gradients.w_q = outputs.add("dw_q", A * H);
    if (weights.v) gradients.v = outputs.add("dv", A);
    gradients.w_c = outputs.add("dw_c", C * (E + H)), gradients.b_c = outputs.add("db_c", C);
    T* first[kMaxStates];
    for (int s = 0; s < states; ++s) first[s] = outputs.add("dfirst", c.layers * N * H);
    for (int64_t l = 0; l < c.layers; ++l) {
        Gradients<T>& to = gradients.layers.emplace_back();
        to.w_ih = outputs.add("dw_ih", GH * weights.layers[static_cast<size_t>(l)].I);
        to.w_hh = outputs.add("dw_hh", GH * H);
        to.b_ih = outputs.add("db_ih", GH), to.b_hh = outputs.add("db_hh", GH);
        if (needs.vectors) to.vectors = outputs.add("dvectors", needs.vectors);
        for (int s = 0; s < states; ++s) to.first[s] = first[s] + l * N * H;
    }
    decode_backward(weights, input, tape, cotangents, gradients);
    return outputs;
}

// --- linear scans -------------------------------------------------------------------------------------------------

struct ScanCase {
    int64_t N, T, C;
    bool is_complex, constant, reverse;
    Lengths lengths;
    int64_t chunk;

    std::string name() const {
        static const char* const kinds[] = {"full", "ragged", "zero"};
        char text[160];
        std::snprintf(text, sizeof text, "scan N=%d T=%d C=%d chunk=%d %s%s%s%s", static_cast<int>(N),
                      static_cast<int>(T), static_cast<int>(C), static_cast<int>(chunk),
                      kinds[static_cast<int>(lengths)], is_complex ? " complex" : "", constant ? " constant" : "",
                      reverse ? " reverse" : "");
        return text;
    }
};

// Forward and backward.
template <class T>
Outputs<T> run(const ScanCase& c) {
    std::mt19937_64 random(42);
    const int64_t all = c.N * c.T * c.C, factors = c.constant ? c.C : all;
    const Values<T> a = uniform<T>(random, factors, 0.7), b = uniform<T>(random, all, 1),
                    first = uniform<T>(random, c.N * c.C, 1), dy = uniform<T>(random, all, 1);
    Values<int64_t> lengths;
    if (c.lengths != Lengths::full) lengths = random_lengths(random, c.N, c.lengths == Lengths::zero ? 0 : c.T);
    const LinearScan<T> call{c.N,        c.T,
                             c.C,        c.is_complex,
                             c.constant, c.reverse,
                             lengths,    c.chunk,
                             a,          c.chunk % 2 ? nullptr : static_cast<const T*>(first)};
    Outputs<T> outputs;
    T* y = outputs.add("y", all);
    linear_scan<T>(kernels(), call, b, y, outputs.add("h_n", c.N * c.C));
    LinearScanGradients<T> gradients{};
    gradients.a = outputs.add("da", factors);
    gradients.b = outputs.add("db", all);
    gradients.first = outputs.add("dh_0", c.N * c.C);
    linear_scan_backward<T>(kernels(), call, y, dy, c.reverse ? nullptr : static_cast<const T*>(first), gradients);
    return outputs;
}

// --- trees --------------------------------------------------------------------------------------------------------

struct TreeCase {
    TreeCell cell;
    int64_t trees, nodes, I, H;  // nodes of a tree, at most
    bool chains;

    std::string name() const {
        static const char* const cells[] = {"tanh", "relu", "child-sum", "binary"};
        char text[160];
        std::snprintf(text, sizeof text, "%d %s of %d nodes I=%d H=%d %s", static_cast<int>(trees),
                      chains ? "chains" : "trees", static_cast<int>(nodes), static_cast<int>(I), static_cast<int>(H),
                      cells[static_cast<int>(cell)]);
        return text;
    }
};

// A random forest; some nodes of binary trees have a right child alone.
Forest forest_of(std::mt19937_64& random, const TreeCase& c) {
    std::vector<int64_t> first(1, 0), parents, sides;
    for (int64_t n = 0; n < c.trees; ++n) {
        const auto size = std::uniform_int_distribution<int64_t>(1, c.nodes)(random);
        std::vector<int64_t> taken(static_cast<size_t>(size), 0);
        for (int64_t j = 0; j < size; ++j) {
            int64_t parent = j - 1, side = 0;
            if (j && !c.chains) {
                do {
                    parent = std::uniform_int_distribution<int64_t>(0, j - 1)(random);
                    side = std::uniform_int_distribution<int64_t>(0, 1)(random);
                } while (c.cell == TreeCell::binary && (taken[static_cast<size_t>(parent)] >> side & 1));
                taken[static_cast<size_t>(parent)] |= int64_t{1} << side;
            }
            parents.push_back(parent);
            sides.push_back(side);
        }
        first.push_back(static_cast<int64_t>(parents.size()));
    }
    return {first, parents.data(), c.cell == TreeCell::binary ? sides.data() : nullptr};
}

// Forward, which is the same whether something is kept or not, and backward.
template <class T>
Outputs<T> run(const TreeCase& c) {
    std::mt19937_64 random(42);
    const Forest forest = forest_of(random, c);
    const TreeSizes sizes = tree_sizes(c.cell, c.H);
    const int64_t R = forest.rows(), N = forest.trees(), H = c.H;
    const bool child_sum = c.cell == TreeCell::child_sum, lstm = child_sum || c.cell == TreeCell::binary;
    const int64_t forget = child_sum ? H : 0, of_c = lstm ? N * H : 0;
    const Values<T> x = uniform<T>(random, R * c.I, 1), weight = uniform<T>(random, sizes.pre * c.I, 0.5),
                    bias = uniform<T>(random, sizes.pre, 0.5),
                    u = uniform<T>(random, sizes.product * sizes.operand, 0.2),
                    b = uniform<T>(random, sizes.product, 0.5), u_forget = uniform<T>(random, forget * H, 0.2),
                    b_forget = uniform<T>(random, forget, 0.5), dy = uniform<T>(random, R * H, 1),
                    dh = uniform<T>(random, N * H, 1), dc = uniform<T>(random, N * H, 1);
    const TreeCall<T> call{&forest,
                           c.cell,
                           c.I,
                           H,
                           x,
                           weight,
                           c.I % 2 ? nullptr : static_cast<const T*>(bias),
                           u,
                           b,
                           child_sum ? static_cast<const T*>(u_forget) : nullptr,
                           child_sum ? static_cast<const T*>(b_forget) : nullptr};
    Outputs<T> outputs;
    T* y = outputs.add("y", R * H);
    T* const last[2] = {outputs.add("h", N * H), outputs.add("c", of_c)};
    TreeTape<T> tape{};
    tree_forward<T>(kernels(), call, y, last, &tape);
    Values<T> again = unwritten<T>(R * H), h = unwritten<T>(N * H), c_again = unwritten<T>(of_c);
    T* const last_again[2] = {h, c_again};
    tree_forward<T>(kernels(), call, again, last_again, nullptr);
    if (std::memcmp(again, y, again.bytes()) != 0) fail(c.name() + ": other bits where nothing is kept");

    const T* const dlast[2] = {c.nodes % 2 ? nullptr : static_cast<const T*>(dh), dc};
    TreeGradients<T> gradients{};
    gradients.x = outputs.add("dx", R * c.I);
    gradients.weight = outputs.add("dweight", sizes.pre * c.I);
    gradients.bias = outputs.add("dbias", sizes.pre);
    gradients.u = outputs.add("du", sizes.product * sizes.operand);
    gradients.b = outputs.add("db", sizes.product);
    gradients.u_forget = outputs.add("du_forget", forget * H);
    gradients.b_forget = outputs.add("db_forget", forget);
    tree_backward<T>(kernels(), call, tape, c.H % 3 ? static_cast<const T*>(dy) : nullptr, dlast, gradients);
    return outputs;
}

// --- streams ------------------------------------------------------------------------------------------------------

struct StreamCase {
    Kind kind;
    Shape shape;
    int64_t table_rows = 0;  // of an embedding in front; 0: there is none
};

// A program of two layers of a cell, an affine layer with tanh and a sigmoid, and what its streams take.
template <class T>
struct StreamInputs {
    static constexpr int64_t O = 19;
    StackInputs<T> layers;
    Values<T> weight, bias;
    std::shared_ptr<const Program<T>> program;

    explicit StreamInputs(const StreamCase& c)
        : layers({{c.kind, c.shape, Lengths::full, true, false, true, c.table_rows}, 2, 1}) {
        std::mt19937_64 random(11);
        weight = uniform<T>(random, O * layers.P(), 0.5);
        bias = uniform<T>(random, O, 0.5);
        auto stages = std::make_shared<Program<T>>();
        if (c.table_rows) stages->add_embedding(layers.input.x, c.table_rows, c.shape.I);
        const T* const zeros[kMaxStates] = {};
        stages->add_recurrent(layers.weights, zeros);
        stages->add_linear(weight, bias, layers.P(), O, Activation::tanh);
        stages->add_activation(Activation::sigmoid, O);
        program = std::move(stages);
    }
    // One in the initial states of a call.
    Stream<T> stream() const {
        Stream<T> stream(program, layers.layout.N);
        for (int s = 0; s < layers.states; ++s) stream.write_state(0, s, {0, stream.rows()}, layers.first[s]);
        return stream;
    }
};

// Calls of whole series, stage by stage.
template <class T>
Outputs<T> run_whole(const StreamInputs<T>& in) {
    constexpr int64_t O = StreamInputs<T>::O;
    Outputs<T> outputs = infer(Stack<T>(in.layers.weights, 1), in.layers);
    const Shape& shape = in.layers.call.layer.shape;
    const int64_t rows = shape.N * shape.T;
    Values<T> affine(rows * O), y = unwritten<T>(rows * O);
    const T* x = outputs.arrays[0].second;
    linear_forward(kernels(), Rows(rows),
                   Linear<T>{in.layers.P(), O, Activation::tanh, nullptr, x, false, in.weight, in.bias, affine, O});
    precision<T>(kernels()).activate(Activation::sigmoid, affine, y, rows * O);
    outputs.arrays[0].second = std::move(y);
    return outputs;
}

// The steps [begin, end) of some rows of the inputs, those of the stream, and their results into y (N, T, O).
template <class T>
void run_steps(Stream<T>& stream, const StreamInputs<T>& in, const std::vector<int64_t>& rows, Span time, T* y) {
    constexpr int64_t O = StreamInputs<T>::O;
    const auto [T_, N, I, H] = in.layers.call.layer.shape;
    const int64_t m = stream.rows(), steps = time.end - time.begin;
    const int64_t* from_tokens = in.layers.input.tokens;
    Values<T> x(from_tokens ? 0 : m * steps * I), out = unwritten<T>(m * steps * O);
    Values<int64_t> tokens(from_tokens ? m * steps : 0);
    for (int64_t row = 0; row < m; ++row) {
        const int64_t from = rows[static_cast<size_t>(row)] * T_ + time.begin;
        if (from_tokens) {
            std::copy_n(from_tokens + from, steps, tokens + row * steps);
        } else {
            std::copy_n(in.layers.input.x + from * I, steps * I, x + row * steps * I);
        }
    }
    if (from_tokens) {
        stream.run(nullptr, tokens, steps, out);
    } else {
        stream.run(x, nullptr, steps, out);
    }
    for (int64_t row = 0; row < m; ++row) {
        const int64_t to = rows[static_cast<size_t>(row)] * T_ + time.begin;
        std::copy_n(out + row * steps * O, steps * O, y + to * O);
    }
}

// A whole series in blocks of these numbers of steps in turn, and the states after it. With `moves`, rows come and go
// between blocks, and lie in another order afterwards.
template <class T>
Outputs<T> run_blocks(Stream<T> stream, const StreamInputs<T>& in, const std::vector<int64_t>& blocks, bool moves) {
    const auto [steps, N, I, H] = in.layers.call.layer.shape;
    Outputs<T> outputs;
    T* y = outputs.add("y", N * steps * StreamInputs<T>::O);
    std::vector<int64_t> rows(static_cast<size_t>(N));
    for (int64_t n = 0; n < N; ++n) rows[static_cast<size_t>(n)] = n;
    int64_t turn = 0;
    for (int64_t t = 0; t < steps; ++turn) {
        const int64_t end = std::min(steps, t + blocks[static_cast<size_t>(turn) % blocks.size()]);
        run_steps(stream, in, rows, {t, end}, y);
        t = end;
        if (!moves || N == 0) continue;
        // twins of two rows come, one after the other
        const int64_t first = turn % stream.rows(), second = (turn + 1) % stream.rows();
        for (const int64_t row : {first, second}) {
            const int64_t last = stream.rows();
            stream.attach();
            for (int s = 0; s < in.layers.states; ++s) {
                Values<T> state(in.layers.call.layers * in.layers.state(s));
                stream.read_state(0, s, {row, row + 1}, state);
                stream.write_state(0, s, {last, last + 1}, state);
            }
            rows.push_back(rows[static_cast<size_t>(row)]);
        }
        if (turn % 3 == 2) continue;  // there are more and more of them
        // and take each other's places, that of the second the first's
        for (const int64_t row : {first, second}) {
            stream.detach(row);
            rows[static_cast<size_t>(row)] = rows.back();
            rows.pop_back();
        }
    }
    for (int s = 0; s < in.layers.states; ++s) {
        const int64_t size = in.layers.state(s);
        T* last = outputs.add(kFinal[s], in.layers.call.layers * N * size);
        for (int64_t row = 0; row < stream.rows(); ++row) {
            Values<T> state(in.layers.call.layers * size);
            stream.read_state(0, s, {row, row + 1}, state);
            for (int64_t layer = 0; layer < in.layers.call.layers; ++layer) {
                std::copy_n(state + layer * size, size, last + (layer * N + rows[static_cast<size_t>(row)]) * size);
            }
        }
    }
    return outputs;
}

// --- what is tried ------------------------------------------------------------------------------------------------

// The engine takes a thread more for each 2 million multiply-adds: these are enough for five to seven, in LSTM and GRU.
// One sequence is cut along the hidden units, and has several chunks in backward too.
constexpr Shape kManySequences = {20, 37, 33, 70}, kOneSequence = {520, 1, 9, 70};
// For several threads, each with its share of the hidden units, whose panels do not divide evenly.
constexpr Shape kFewInputs = {110, 1, 2, 136}, kTwoSequences = {50, 2, 5, 201}, kSingleStep = {1, 4, 3, 500};
// Two and three layers of this run side by side on as many threads.
constexpr Shape kLayers = {48, 1, 3, 128};

std::vector<Case> cases() {
    std::vector<Case> all;
    const auto add = [&](Shape shape, Lengths lengths) {
        const size_t turn = all.size() / kTried;  // so that what is optional takes turns over the shapes
        for (const Kind& kind : kinds_of_turn(turn)) {
            all.push_back({kind, shape, lengths, turn % 2 == 0, turn % 3 == 1, turn % 4 != 3});
        }
    };
    constexpr int64_t kInputs[] = {1, 3, 16, 19};
    int64_t turn = 0;
    for (const int64_t H : {1, 7, 16, 17, 33, 70}) {
        for (const int64_t N : {1, 2, 13}) {
            const int64_t I = kInputs[turn++ % 4];
            add({9, N, I, H}, Lengths::full);
            add({9, N, I, H}, Lengths::ragged);
            add({1, N == 13 ? 4 : N, I, H}, Lengths::full);  // weights are not packed
        }
    }
    for (const Shape shape : {Shape{5, 0, 3, 17}, {0, 4, 3, 17}, {0, 0, 3, 17}, {5, 4, 0, 17}, {1, 1, 1, 1}}) {
        add(shape, Lengths::full);
        add(shape, Lengths::ragged);
    }
    add({5, 6, 3, 17}, Lengths::zero);
    for (const Lengths lengths : {Lengths::full, Lengths::ragged}) {
        add(kManySequences, lengths);
        add({2, 3, 1100, 20}, lengths);  // the kernels cut sums over k at 1024
        add({2, 3, 5, 270}, lengths);    // and so is the sum over gates in backward
        add({1, 600, 4, 9}, lengths);    // one step of more rows than a chunk of backward has
        add({4, 600, 5, 17}, lengths);   // more rows than a slice has
        add({300, 7, 4, 9}, lengths);    // several chunks
    }
    add(kOneSequence, Lengths::full);
    return all;
}

std::vector<Case> cases_of_tokens() {
    std::vector<Case> all;
    const auto add = [&](Shape shape, Lengths lengths) {
        for (const int64_t table_rows : {int64_t{1}, int64_t{7}, shape.N * shape.T / 5, int64_t{5000}}) {
            for (const Kind& kind : kinds_of_turn(all.size() / kTried)) {
                const size_t turn = all.size();
                all.push_back({kind, shape, lengths, turn % 2 == 0, turn / 2 % 2 == 0, turn % 5 != 3,
                               std::max<int64_t>(table_rows, 1)});
            }
        }
    };
    add({9, 13, 3, 17}, Lengths::ragged);
    add({1, 4, 19, 33}, Lengths::full);  // weights are not packed
    add({5, 0, 3, 17}, Lengths::full);
    add({3, 600, 70, 9}, Lengths::ragged);  // two groups of rows; the columns of the table in more than one part
    add(kManySequences, Lengths::ragged);
    add(kOneSequence, Lengths::full);
    return all;
}

std::vector<Case> cases_of_resets() {
    std::vector<Case> all;
    const auto add = [&](Shape shape, Lengths lengths, int64_t table_rows = 0) {
        for (const Kind& kind : kinds_of_turn(all.size() / kTried)) {
            const size_t turn = all.size();
            all.push_back({kind, shape, lengths, turn % 2 == 0, turn / 2 % 2 == 0, turn % 7 != 3, table_rows, true});
        }
    };
    for (const Lengths lengths : {Lengths::full, Lengths::ragged, Lengths::zero}) add({9, 13, 3, 17}, lengths);
    add({1, 4, 19, 33}, Lengths::full);  // weights are not packed
    add({5, 0, 3, 17}, Lengths::full);
    add({0, 4, 3, 17}, Lengths::full);
    add({40, 60, 5, 9}, Lengths::ragged);  // two groups of pieces
    add({9, 13, 3, 17}, Lengths::ragged, 7);
    add(kManySequences, Lengths::ragged, 900);
    add(kOneSequence, Lengths::full);
    return all;
}

std::vector<Case> cases_of_slices() {
    return {{Cell::lstm, kFewInputs, Lengths::full, true, false, true},
            {Cell::gru, kTwoSequences, Lengths::ragged, false, true, true},
            {Cell::lstm, kSingleStep, Lengths::full, true, false, true},
            {Cell::gru, kTwoSequences, Lengths::full, true, false, true, 9},
            {Cell::lstm, kTwoSequences, Lengths::full, true, false, true, 900}};
}

// Of several segments, or of several groups of rows: with rows in slices, and with hidden units.
std::vector<Case> cases_of_checkpoints() {
    std::vector<Case> all;
    for (const Cell c : kPlainCells) {
        all.push_back({c, {300, 7, 4, 9}, Lengths::ragged, true, false, true});
        all.push_back({c, {4, 600, 5, 17}, Lengths::ragged, false, true, true});
        all.push_back({c, {70, 37, 9, 70}, Lengths::full, false, false, false});
        all.push_back({c, {1, 3, 5, 17}, Lengths::full, true, false, true});  // weights are not packed
    }
    for (const Kind& kind : kinds_with_options()) {
        all.push_back({kind, {300, 7, 4, 9}, Lengths::ragged, true, false, true});
        all.push_back({kind, {4, 600, 5, 9}, Lengths::ragged, false, true, true, 0, true});
    }
    for (const Cell c : {Cell::lstm, Cell::gru}) all.push_back({c, {1100, 1, 2, 136}, Lengths::full, true, true, true});
    for (const int64_t table_rows : {7, 5000}) {
        all.push_back({Cell::lstm, {70, 37, 9, 70}, Lengths::ragged, true, false, true, table_rows});
        all.push_back({Cell::gru, {4, 600, 5, 17}, Lengths::full, true, true, true, table_rows});
    }
    all.push_back({Cell::lstm, {0, 4, 3, 17}, Lengths::full, true, false, true});
    all.push_back({Cell::lstm, {5, 6, 3, 17}, Lengths::zero, true, false, true});
    all.push_back({Cell::lstm, {300, 37, 4, 9}, Lengths::ragged, true, false, true, 0, true});
    all.push_back({Cell::gru, {300, 37, 4, 9}, Lengths::ragged, false, true, true, 7, true});
    return all;
}

std::vector<StackCase> cases_of_stacks() {
    std::vector<StackCase> all;
    const auto add = [&](const Kind& kind, Shape shape, Lengths lengths, int layers, int directions) {
        const size_t turn = all.size();
        all.push_back({{kind, shape, lengths, turn % 2 == 0, false, turn % 5 != 3}, layers, directions});
    };
    for (const Cell cell : kPlainCells) {
        for (const int directions : {1, 2}) {
            for (const int layers : {1, 2, 3}) {
                add(cell, {7, 5, 3, 17}, Lengths::ragged, layers, directions);
                add(cell, {0, 2, 3, 9}, Lengths::full, layers, directions);
                add(cell, {3, 0, 5, 9}, Lengths::full, layers, directions);
            }
        }
    }
    for (Kind kind : kinds_with_options()) {
        add(kind, {7, 5, 3, 17}, Lengths::ragged, 2, 2);
        kind.spec.skip = true;
        add(kind, {7, 5, 3, 17}, Lengths::ragged, 3, 1);
    }
    for (Kind kind : {Kind(Cell::lstm), Kind(Cell::gru), kinds_with_options()[0]}) {
        kind.spec.skip = true;
        add(kind, {7, 5, 3, 17}, Lengths::ragged, 2, 2);
        add(kind, kLayers, Lengths::full, 3, 1);
    }
    for (const Cell cell : {Cell::rnn_tanh, Cell::lstm, Cell::gru}) add(cell, kLayers, Lengths::full, 2, 1);
    add(Cell::lstm, kLayers, Lengths::full, 3, 1);
    add(Cell::gru, kTwoSequences, Lengths::ragged, 2, 1);
    add(Cell::gru, kLayers, Lengths::full, 2, 2);
    add(Cell::gru, {20, 9, 5, 70}, Lengths::ragged, 3, 2);
    for (const int64_t table_rows : {11, 900}) {
        for (const auto& [layers, directions] : {std::pair{2, 1}, {3, 1}, {1, 2}, {2, 2}}) {
            add(Cell::gru, kLayers, Lengths::full, layers, directions);
            all.back().layer.table_rows = table_rows;
        }
    }
    return all;
}

std::vector<ScanCase> cases_of_scans() {
    std::vector<ScanCase> all;
    const auto add = [&](int64_t N, int64_t T, int64_t C) {
        for (const Lengths lengths : {Lengths::full, Lengths::ragged}) {
            for (const int64_t chunk : {0, 3, 8}) {
                const size_t turn = all.size();
                all.push_back({N, T, C, C % 2 == 0 && turn % 2 == 0, turn / 2 % 2 == 0, turn % 3 == 0, lengths, chunk});
            }
        }
    };
    for (const int64_t C : {1, 2, 7, 16, 17, 33, 70, 150}) {
        add(1, 11, C);
        add(6, 11, C);
    }
    add(0, 3, 5);
    add(3, 0, 5);
    add(3, 1, 6);
    add(1, 3000, 300);  // for several threads: many channels,
    add(37, 900, 20);   // many sequences,
    add(1, 200000, 4);  // many chunks
    return all;
}

std::vector<DecoderCase> cases_of_decoders() {
    std::vector<DecoderCase> all;
    Options normalised;
    normalised.layer_norm = true;
    const Spec specs[] = {{Cell::lstm}, {Cell::gru}, {Cell::rnn_tanh}, {Cell::lstm_rows, normalised}, {Cell::mgu}};
    size_t turn = 0;
    const auto add = [&](int64_t N, int64_t T, int64_t S, int64_t H, Lengths lengths) {
        for (const Score score : {Score::dot, Score::additive, Score::location}) {
            for (const Feed feed : {Feed::nothing, Feed::output, Feed::context}) {
                const int64_t layers = 1 + static_cast<int64_t>(turn % 2);
                all.push_back({specs[turn++ % 5], score, feed, layers, N, T, S, 3, H + 2, H, lengths});
            }
        }
    };
    add(3, 5, 4, 7, Lengths::ragged);
    add(1, 1, 1, 1, Lengths::full);
    add(7, 6, 19, 33, Lengths::ragged);
    add(2, 3, 0, 16, Lengths::full);
    add(0, 3, 2, 5, Lengths::full);
    add(3, 4, 2, 5, Lengths::zero);
    add(24, 30, 12, 40, Lengths::ragged);  // for several threads
    return all;
}

std::vector<TreeCase> cases_of_trees() {
    std::vector<TreeCase> all;
    for (const TreeCell cell : {TreeCell::rnn_tanh, TreeCell::rnn_relu, TreeCell::child_sum, TreeCell::binary}) {
        for (const int64_t H : {1, 7, 16, 17, 33}) {
            all.push_back({cell, 1, 1, 3, H, false});
            all.push_back({cell, 1, 4, 3, H, false});
            all.push_back({cell, 5, 30, 4, H, false});
            all.push_back({cell, 3, 9, 1, H, true});
        }
        all.push_back({cell, 0, 5, 2, 5, false});
        all.push_back({cell, 60, 50, 20, 70, false});  // for several threads
        all.push_back({cell, 150, 40, 20, 64, true});
    }
    return all;
}

std::vector<LinearCase> cases_of_linear() {
    std::vector<LinearCase> all;
    const auto add = [&](int64_t N, int64_t T, int64_t I, int64_t O) {
        for (const Lengths lengths : {Lengths::full, Lengths::ragged}) {
            const size_t turn = all.size();
            all.push_back({N, T, I, O, static_cast<Activation>(turn / 2 % 4), lengths, turn % 3 != 0});
        }
    };
    constexpr int64_t kInputs[] = {1, 5, 16, 33};
    int64_t turn = 0;
    for (const int64_t O : {1, 7, 16, 17, 33, 70}) {
        for (const int64_t T : {1, 2, 9}) {
            add(1, T, kInputs[turn++ % 4], O);
            add(4, T, kInputs[turn % 4], O);
        }
    }
    add(0, 3, 5, 7);
    add(3, 0, 5, 7);
    add(3, 4, 0, 7);
    add(2, 5, 1100, 20);  // the kernels cut sums over k at 1024
    add(2, 5, 20, 1100);
    add(37, 40, 65, 70);   // for several threads: many rows,
    add(1, 3, 600, 700);   // few rows of many outputs that are not packed,
    add(2, 10, 600, 700);  // or are,
    add(2, 4500, 9, 40);   // and several chunks
    all.push_back({3, 5, 9, 17, Activation::tanh, Lengths::zero, true});
    return all;
}

std::vector<StreamCase> cases_of_streams() {
    std::vector<StreamCase> all;
    for (const Cell c : kPlainCells) {
        for (const Shape shape : {Shape{9, 1, 3, 17}, {9, 5, 19, 33}, {9, 0, 3, 17}, {0, 4, 3, 17}}) {
            all.push_back({c, shape});
            all.push_back({c, shape, 11});
        }
        all.push_back({c, {150, 2, 4, 9}});     // more steps than a chunk has
        all.push_back({c, {3, 600, 5, 17}});    // more rows than a slice has
        all.push_back({c, kManySequences, 7});  // for several threads
    }
    for (Kind kind : kinds_with_options()) {
        all.push_back({kind, {9, 5, 19, 33}});
        kind.spec.skip = true;
        all.push_back({kind, {9, 2, 3, 17}, 11});
    }
    all.push_back({kinds_with_options()[0], kManySequences});
    all.push_back({kinds_with_options()[1], {3, 600, 5, 17}});
    all.push_back({Cell::lstm, {3, 600, 33, 40}});  // in a step too
    return all;
}

template <class T>
std::string name_of(const std::string& isa, const std::string& call) {
    return isa + (sizeof(T) == 4 ? " float32 " : " float64 ") + call;
}

template <class T>
void try_threads(const Case& c, const std::string& isa, std::initializer_list<int> thread_counts) {
    const Inputs<T> in(c);
    const std::string what = name_of<T>(isa, c.name());
    set_num_threads(1);
    const Results<T> expected = run(in);
    check_finite(expected.inferred, what);
    check_finite(expected.gradients, what);
    if (!c.kind.masks) check_same(expected.recorded, expected.inferred, what + ", recorded against inferred");
    check_finite(expected.recorded, what + ", recorded");
    if (c.shape.T == 1) check_same(infer(in, false), expected.inferred, what + ", packed weights");
    if (c.table_rows) {
        Inputs<T> series(c);
        const Values<T> x = gathered(in);
        series.input.x = x;
        series.input.tokens = nullptr;
        check_same(infer(series), expected.inferred, what + ", as a series");
    }
    for (const int threads : thread_counts) {
        set_num_threads(threads);
        check_same(run(in), expected, what + ", " + std::to_string(threads) + " threads");
    }
}

template <class T>
void try_checkpoints(const Case& c, const std::string& isa) {
    const Inputs<T> in(c);
    const std::string what = name_of<T>(isa, c.name());
    set_num_threads(1);
    const Results<T> expected = run(in);
    for (const int threads : {1, 2, 3, 4}) {
        set_num_threads(threads);
        for (const int64_t every : {int64_t{1}, int64_t{100}, std::numeric_limits<int64_t>::max()}) {
            Outputs<T> recorded;
            const Tape<T> tape = record(in, recorded, every);
            const std::string how = what + ", checkpoints every " + std::to_string(every) + " steps, " +
                                    std::to_string(threads) + " threads";
            check_same(recorded, expected.recorded, how);
            check_same(pull_back(in, tape), expected.gradients, how);
            check_same(pull_back(in, tape), expected.gradients, how + ", once more");
        }
    }
}

template <class T>
void try_stack(const StackCase& c, const std::string& isa) {
    const StackInputs<T> in(c);
    const std::string what = name_of<T>(isa, c.name());
    set_num_threads(1);
    const Outputs<T> expected = infer_by_passes(in);
    check_finite(expected, what);
    const Stack<T> stack(in.weights, c.directions);
    const Outputs<T> with_resets = infer_with_resets(stack, in);
    check_finite(with_resets, what + ", with resets");
    for (const int threads : {1, 2, 3, 4}) {
        set_num_threads(threads);
        check_same(infer(stack, in), expected, what + ", " + std::to_string(threads) + " threads");
        check_same(infer_with_resets(stack, in), with_resets,
                   what + ", with resets, " + std::to_string(threads) + " threads");
    }
}

// A call that is forward and backward in one.
template <class T, class Case>
void try_call(const Case& c, const std::string& isa) {
    const std::string what = name_of<T>(isa, c.name());
    set_num_threads(1);
    const Outputs<T> expected = run<T>(c);
    check_finite(expected, what);
    for (const int threads : {2, 7}) {
        set_num_threads(threads);
        check_same(run<T>(c), expected, what + ", " + std::to_string(threads) + " threads");
    }
}

template <class T>
void try_stream(const StreamCase& c, const std::string& isa) {
    set_num_threads(1);
    const StreamInputs<T> in(c);
    const std::string what = name_of<T>(isa, "stream of " + in.layers.call.name());
    const Outputs<T> expected = run_whole(in);
    check_finite(expected, what);
    for (const int threads : {1, 2, 3}) {
        set_num_threads(threads);
        for (const std::vector<int64_t>& blocks : {std::vector<int64_t>{1}, {1000}, {1, 4, 2}}) {
            const std::string how = what + ", " + std::to_string(threads) + " threads, blocks of " +
                                    std::to_string(blocks[0]) + " and so on";
            check_same(run_blocks(in.stream(), in, blocks, false), expected, how);
            check_same(run_blocks(in.stream(), in, blocks, true), expected, how + ", rows come and go");
        }
    }
}

// That those cases are cut as they are meant to be. What else the model of schedule.hpp decides is its own affair.
template <class T>
void check_cut(const Case& c, const std::string& isa) {
    const CellKernels<T>& cell = precision<T>(kernels()).cells[static_cast<int>(c.kind.spec.cell)];
    const auto [steps, N, I, H] = c.shape;
    const double u_bytes = static_cast<double>(cell.gates * H * H) * sizeof(T);
    const Inputs<T> in(c);
    const int64_t rows = Plan(in.layout).batch().R;
    set_num_threads(4);
    bool fine = threads_for(static_cast<double>(rows * cell.gates * H * (I + H))) > 1;
    for (const int threads : {3, 4}) {
        for (const int64_t panels : {cell.forward_panels(H), cell.backward_panels(H)}) {
            fine = fine && cut_pass(threads, N, u_bytes, panels).units > 1;
        }
    }
    if (!fine) fail(name_of<T>(isa, c.name()) + ": is not cut along its hidden units");
}

// Lanes by themselves. Nothing but their order protects the memory that the items write; every so often an item takes
// long, so that others fall asleep.
void try_lanes() {
    constexpr int64_t kItems = 40;
    const auto work = [](std::vector<int64_t>& values, int64_t lanes, bool in_step, int64_t lane, int64_t item) {
        int64_t sum = lane + item + ++values[static_cast<size_t>((item + 1) * lanes + lane)];  // twice would show
        for (int64_t other = 0; other < lanes; ++other) {
            if (in_step) sum += values[static_cast<size_t>(item * lanes + other)];
        }
        if (!in_step && lane > 0) sum += values[static_cast<size_t>((item + 1) * lanes + lane - 1)];
        values[static_cast<size_t>((item + 1) * lanes + lane)] = sum % 1000003;
    };
    for (int round = 0; round < 300; ++round) {
        const int threads = 2 + round % 4, count = 2 + round / 4 % 4;
        const bool in_step = round / 16 % 2;
        std::vector<int64_t> expected(static_cast<size_t>((kItems + 1) * count)), got = expected;
        for (int64_t item = 0; item < kItems; ++item) {
            for (int64_t lane = 0; lane < count; ++lane) work(expected, count, in_step, lane, item);
        }
        Lanes lanes(count);
        run_team(threads, [&](Member& team) {
            const auto ready = [&](int64_t lane, int64_t item) {
                return in_step ? lanes.all_done(item) : lane == 0 || lanes.done(lane - 1) > item;
            };
            for (const int64_t end : {kItems / 3, kItems}) {
                team.follow(lanes, end, ready, [&](int64_t lane, int64_t item) {
                    if ((item * count + lane + round) % 29 == 0) {
                        std::this_thread::sleep_for(std::chrono::microseconds(100));
                    }
                    work(got, count, in_step, lane, item);
                });
                team.each(2, [](int64_t) {});
            }
        });
        if (got != expected) fail("lanes: " + std::to_string(count) + " on " + std::to_string(threads) + " threads");
    }
}

template <class T>
void try_maps(const std::string& isa, const Kernels<T>& kernels) {
    for (int64_t n = 0; n <= 70; ++n) {
        std::mt19937_64 random(42);
        const Values<T> x = uniform<T>(random, n, 100);
        Outputs<T> outputs;
        kernels.sigmoid(x, outputs.add("sigmoid", n), n);
        kernels.tanh(x, outputs.add("tanh", n), n);
        check_finite(outputs, isa + " maps of " + std::to_string(n));
    }
}

// A step by each rule with all its moments, then the norm of what became of the gradients, clipped.
template <class T>
Outputs<T> update_once(const Values<T>& start, const Values<T>& gradients) {
    const int64_t n = start.size();
    Outputs<T> outputs;
    const auto copy = [&](const char* name, const Values<T>& from) {
        T* to = outputs.add(name, n);
        std::copy_n(static_cast<T*>(from), n, to);
        return to;
    };
    const auto moments = [&](int count) {
        Update<T> update{copy("parameters", start), gradients, {}};
        for (int i = 0; i < count; ++i) {
            update.moments[i] = outputs.add("moment", n);
            std::fill_n(update.moments[i], n, T{1});
        }
        return update;
    };
    step(Sgd{0.1, 0.9, 0.1, true}, moments(1), n);
    step(Rmsprop{0.1, 0.9, 1e-8, 0.9, 0.1}, moments(3), n);
    step(adam_rule(0.1, 0.9, 0.999, 1e-8, 0.1, true, 1), moments(2), n);
    T* clipped = copy("clipped", gradients);
    const double norm = clip_norm(clipped, n, 0.5);
    *outputs.add("norm", 1) = static_cast<T>(norm);
    return outputs;
}

template <class T>
void try_updates(const std::string& isa) {
    std::vector<int64_t> sizes = {300001};
    for (int64_t n = 0; n <= 70; ++n) sizes.push_back(n);
    for (const int64_t n : sizes) {
        std::mt19937_64 random(42);
        const Values<T> start = uniform<T>(random, n, 1), gradients = uniform<T>(random, n, 1);
        const std::string what = name_of<T>(isa, "updates of " + std::to_string(n));
        set_num_threads(1);
        const Outputs<T> expected = update_once(start, gradients);
        check_finite(expected, what);
        for (const int threads : {2, 7}) {
            set_num_threads(threads);
            check_same(update_once(start, gradients), expected, what + ", " + std::to_string(threads) + " threads");
        }
    }
}

// Calls that are large enough for threads, and what they give on one.
template <class T>
struct Expected {
    std::vector<Inputs<T>> inputs;
    std::vector<Results<T>> results;
    std::vector<StackInputs<T>> stack_inputs;
    std::vector<Stack<T>> stacks;
    std::vector<Outputs<T>> stack_outputs;

    Expected() {
        set_num_threads(1);
        for (const Shape shape : {kManySequences, kOneSequence}) {
            for (const Cell cell : {Cell::lstm, Cell::gru}) {
                inputs.emplace_back(Case{cell, shape, Lengths::ragged, true, false, true});
                results.push_back(run(inputs.back()));
            }
        }
        for (const auto& [shape, layers, directions] :
             {std::tuple{kTwoSequences, 1, 1}, {kLayers, 3, 1}, {kLayers, 2, 2}}) {
            const Case layer{Cell::lstm, shape, Lengths::full, true, false, true};
            stack_inputs.emplace_back(StackCase{layer, layers, directions});
            stacks.emplace_back(stack_inputs.back().weights, directions);
            stack_outputs.push_back(infer(stacks.back(), stack_inputs.back()));
        }
    }
    void check(const std::string& what) const {
        for (size_t i = 0; i < inputs.size(); ++i) {
            check_same(run(inputs[i]), results[i], what + ", " + inputs[i].call.name());
        }
        for (size_t i = 0; i < stacks.size(); ++i) {
            const std::string name = what + ", " + stack_inputs[i].call.name();
            check_same(infer(stacks[i], stack_inputs[i]), stack_outputs[i], name);
        }
    }
};

template <class F>
void at_once(int callers, const F& f) {
    std::vector<std::thread> threads;
    for (int i = 0; i < callers; ++i) threads.emplace_back(f, i);
    for (std::thread& thread : threads) thread.join();
}

template <class T>
void try_callers_at_once(const Expected<T>& expected) {
    at_once(4, [&](int caller) {
        for (int i = 0; i < 2; ++i) {
            set_num_threads(1 + (caller + 3 * i) % 7);  // another caller's number may be in force: bits are the same
            expected.check("callers at once");
        }
    });
    // one tape, read by many
    const Inputs<T>& in = expected.inputs[0];
    for (const int64_t checkpoint_every : {0, 1}) {
        Outputs<T> outputs;
        const Tape<T> tape = record(in, outputs, checkpoint_every);
        at_once(4,
                [&](int) { check_same(pull_back(in, tape), expected.results[0].gradients, "one tape, many callers"); });
    }
}

// Streams of one program, each in a thread of its own: small ones, and such that want threads themselves.
template <class T>
void try_streams_at_once() {
    set_num_threads(2);
    for (const Shape shape : {Shape{100, 2, 5, 33}, kManySequences}) {
        const StreamInputs<T> in({Cell::lstm, shape});
        const Outputs<T> expected = run_whole(in);
        const Stream<T> source = in.stream();
        at_once(4, [&](int caller) {
            check_same(run_blocks(source, in, {1 + caller, 3}, caller % 2 == 0), expected, "streams at once");
        });
    }
}

void try_fork(const Expected<float>& expected, const std::string& what) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(120);  // a child that waits for a lock of its parent's is ended by this
        const int before = failures;
        expected.check(what + ", child");
        _exit(failures == before ? 0 : 1);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fail(what + ": child ended with status " + std::to_string(status));
    }
    expected.check(what + ", parent");
}

void try_forks(const Expected<float>& expected) {
    set_num_threads(7);
    expected.check("before fork");
    try_fork(expected, "fork between calls");
#if !defined(DRIVE_SANITIZED)  // whose own locks do not all survive a fork while other threads hold them
    std::atomic<bool> stop{false};
    std::thread busy([&] {
        while (!stop) expected.check("call during fork");
    });
    for (int i = 0; i < 5; ++i) try_fork(expected, "fork during a call");
    stop = true;
    busy.join();
#endif
}

}  // namespace

// Reservoirs of both forms of W, with whole vectors and tails, over series of which some have no steps.
Outputs<double> run_reservoir(const PackedReservoir& reservoir, const double* x, const Values<int64_t>& lengths,
                              int64_t R, const double* first) {
    Outputs<double> outputs;
    const int64_t N = lengths.size(), H = reservoir.units();
    double* states = outputs.add("states", R * H);
    double* last = outputs.add("last", N * H);
    reservoir.run({N, lengths, x, first, states, last});
    return outputs;
}

void try_reservoirs(const std::string& isa) {
    for (const int64_t H : {1, 7, 17, 33, 64, 130}) {
        for (const bool diagonals : {false, true}) {
            std::mt19937_64 random(static_cast<uint64_t>(H));
            const int64_t N = 11, I = 3, in_row = (H + 4) / 5;
            Values<int64_t> indices(H * in_row), indptr(H + 1), lengths = random_lengths(random, N, 70);
            for (int64_t i = 0; i <= H; ++i) indptr[i] = i * in_row;
            for (int64_t i = 0; i < H; ++i) {
                const int64_t begin = diagonals ? i : static_cast<int64_t>(random() % static_cast<uint64_t>(H));
                for (int64_t k = 0; k < in_row; ++k) indices[i * in_row + k] = (begin + 5 * k) % H;
                std::sort(indices + i * in_row, indices + (i + 1) * in_row);
            }
            int64_t R = 0;
            for (int64_t n = 0; n < N; ++n) R += lengths[n];
            const Values<double> w_in = uniform<double>(random, H * I, 1), bias = uniform<double>(random, H, 1),
                                 data = uniform<double>(random, H * in_row, 1), x = uniform<double>(random, R * I, 1),
                                 first = uniform<double>(random, N * H, 1);
            const PackedReservoir reservoir({I, H, 0.3, w_in, bias, data, indices, indptr});
            const std::string what = isa + " reservoir H=" + std::to_string(H) + (diagonals ? " diagonals" : "");
            if (diagonals && reservoir.diagonals() != in_row) fail(what + ": not recognised");
            set_num_threads(1);
            const Outputs<double> expected = run_reservoir(reservoir, x, lengths, R, first);
            check_finite(expected, what);
            set_num_threads(3);
            check_same(run_reservoir(reservoir, x, lengths, R, first), expected, what);
            run_reservoir(PackedReservoir({I, H, 1.0, w_in, nullptr, data, indices, indptr}), x, lengths, R, nullptr);
        }
    }
}

// Every third, where all would take too long: that is every cell, since their number is no multiple of three. The
// numbers of kinds with options and of those of a shape are none either.
template <class AnyCase>
std::vector<AnyCase> some(const std::vector<AnyCase>& all, bool thinned) {
    std::vector<AnyCase> some;
    for (size_t index = 0; index < all.size(); ++index) {
        if (!thinned || index % 3 == 0) some.push_back(all[index]);
    }
    return some;
}

// `drive no-fork` leaves fork out: emulators cannot start a thread in the child of a process that has threads.
// `drive thinned` takes a third of the cases, on the best instruction set alone.
int main(int argc, char** argv) {
    const std::set<std::string> options(argv + 1, argv + argc);
    const bool forks = options.count("no-fork") == 0, thinned = options.count("thinned") > 0;
    std::vector<Case> all = cases();
    for (const Case& c : cases_of_tokens()) all.push_back(c);
    for (const Case& c : cases_of_resets()) all.push_back(c);
    all = some(all, thinned);
    const std::vector<Case> slices = some(cases_of_slices(), thinned),
                            checkpoints = some(cases_of_checkpoints(), thinned);
    const std::vector<StackCase> stacks = some(cases_of_stacks(), thinned);
    const std::vector<LinearCase> affine = some(cases_of_linear(), thinned);
    const std::vector<ScanCase> scans = some(cases_of_scans(), thinned);
    const std::vector<TreeCase> trees = some(cases_of_trees(), thinned);
    const std::vector<DecoderCase> decoders = some(cases_of_decoders(), thinned);
    const std::vector<StreamCase> streams = some(cases_of_streams(), thinned);
    std::vector<std::string> isas = available_isas();
    if (thinned) isas.resize(1);
    try_lanes();
    std::puts("lanes");
    std::fflush(stdout);
    for (const std::string& isa : isas) {
        use_isa(isa);
        try_maps(isa, kernels().f32);
        try_maps(isa, kernels().f64);
        try_updates<float>(isa);
        try_updates<double>(isa);
        for (const Case& c : all) {
            try_threads<float>(c, isa, {2, 7});
            try_threads<double>(c, isa, {2, 7});
        }
        for (const Case& c : slices) {
            check_cut<float>(c, isa);
            check_cut<double>(c, isa);
            try_threads<float>(c, isa, {3, 4});
            try_threads<double>(c, isa, {3, 4});
        }
        for (const Case& c : checkpoints) {
            try_checkpoints<float>(c, isa);
            try_checkpoints<double>(c, isa);
        }
        for (const StackCase& c : stacks) {
            try_stack<float>(c, isa);
            try_stack<double>(c, isa);
        }
        for (const LinearCase& c : affine) {
            try_call<float>(c, isa);
            try_call<double>(c, isa);
        }
        for (const ScanCase& c : scans) {
            try_call<float>(c, isa);
            try_call<double>(c, isa);
        }
        for (const TreeCase& c : trees) {
            try_call<float>(c, isa);
            try_call<double>(c, isa);
        }
        for (const DecoderCase& c : decoders) {
            try_call<float>(c, isa);
            try_call<double>(c, isa);
        }
        for (const StreamCase& c : streams) {
            try_stream<float>(c, isa);
            try_stream<double>(c, isa);
        }
        try_reservoirs(isa);
        std::printf(
            "%s: %d calls of a layer on 1, 2 and 7 threads, %d on 1, 3 and 4, %d with checkpoints, %d of a stack, "
            "%d of an affine layer, %d linear scans, %d of trees, %d decoders, %d streams\n",
            isa.c_str(), static_cast<int>(2 * all.size()), static_cast<int>(2 * slices.size()),
            static_cast<int>(2 * checkpoints.size()), static_cast<int>(2 * stacks.size()),
            static_cast<int>(2 * affine.size()), static_cast<int>(2 * scans.size()), static_cast<int>(2 * trees.size()),
            static_cast<int>(2 * decoders.size()), static_cast<int>(2 * streams.size()));
        std::fflush(stdout);
    }
    use_isa(available_isas()[0]);
    const Expected<float> expected;
    try_callers_at_once(expected);
    try_callers_at_once(Expected<double>());
    try_streams_at_once<float>();
    try_streams_at_once<double>();
    std::puts("several callers at once");
    std::fflush(stdout);
    if (forks) {
        try_forks(expected);
        std::puts("fork");
    }
    std::printf("%d failures\n", failures.load());
    return failures == 0 ? 0 : 1;
}
