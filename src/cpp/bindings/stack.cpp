// Layers on top of each other with weights packed once, called many times.
#include "stack.hpp"

#include <variant>
#include <vector>

#include "../engine.hpp"
#include "../pieces.hpp"
#include "arrays.hpp"
#include "call.hpp"
#include "ragged.hpp"

namespace rnncore {
namespace {

template <class T>
class PackedStack {
public:
    PackedStack(std::vector<Weights<T>> weights, int directions, bool batch_first)
        : stack_(weights, directions), batch_first_(batch_first) {}

    // (y, state) as a layer returns them, or None if an argument would have to be converted or does not fit.
    // With resets, there are a mask and the states after them: None, or like `state`.
    py::object forward(const py::object& x, const py::object& state, const py::object& lengths,
                       const py::object* mask = nullptr, const py::object* reset_state = nullptr) const {
        const Lookup* lookup = as_lookup(x);
        const Ragged* ragged = as_ragged(lengths);
        if (!lookup && !is_ready(x, kNumbers<T>)) return py::none();
        if (!ragged && !is_ready_or_none(lengths, kInt64)) return py::none();
        const auto series = lookup ? lookup->tokens : py::reinterpret_borrow<py::array>(x);
        const int64_t I = stack_.passes[0].I, D = stack_.directions;
        const int axes = ragged ? 2 : 3;
        if (!lookup && (series.ndim() != axes || series.shape(axes - 1) != I)) return py::none();
        Layout layout{0, 0, batch_first_, false, nullptr};
        set_sizes(layout, series, ragged);
        if (!ragged && !lengths.is_none() && !fits(py::reinterpret_borrow<py::array>(lengths), {{"N", layout.N}})) {
            return py::none();
        }
        const int64_t passes = static_cast<int64_t>(stack_.passes.size());
        Input<T> input{};
        if (!read_state(state, layout.N, input.first)) return py::none();
        const T* start[kMaxStates] = {};
        if (mask && (!is_ready(*mask, kBool) || !read_state(*reset_state, layout.N, start))) return py::none();
        check_size(series, layout, passes * stack_.cell_kernels().gates * stack_.H, I);
        if (!ragged) layout.lengths = checked_lengths(lengths, layout);
        const uint8_t* resets = mask ? checked_resets(*mask, layout) : nullptr;
        if (lookup) {
            input.x = read<T>("table", lookup->table, {{"V"}, {"I", I}});
            input.tokens = checked_tokens(*lookup, layout);
            input.V = lookup->table.shape(0);
        } else {
            input.x = static_cast<const T*>(series.data());
        }

        Output<T> output{};
        py::array y = new_series<T>(layout, D * stack_.P);
        output.y = data<T>(y);
        const int states = stack_.cell_kernels().states;
        py::object last[kMaxStates];
        for (int s = 0; s < states; ++s) {
            py::array array = new_array<T>({passes, layout.N, stack_.needs.state[s]});
            output.last[s] = data<T>(array);
            last[s] = std::move(array);
        }
        {
            const py::gil_scoped_release nogil;
            if (resets) {
                rnncore::forward(stack_, Pieces(layout, resets), input, start, output);
            } else {
                rnncore::forward(stack_, layout, input, output);
            }
        }
        if (states == 1) return py::make_tuple(std::move(y), std::move(last[0]));
        py::tuple all(static_cast<size_t>(states));
        for (int s = 0; s < states; ++s) all[static_cast<size_t>(s)] = std::move(last[s]);
        return py::make_tuple(std::move(y), std::move(all));
    }

private:
    // False if it does not fit: None, an array, or a tuple of several states of which each may be None.
    bool read_state(const py::object& state, int64_t N, const T** parts) const {
        const auto passes = static_cast<int64_t>(stack_.passes.size());
        const int states = stack_.cell_kernels().states;
        if (state.is_none()) return true;
        if (states > 1 && (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != states)) return false;
        for (int s = 0; s < states; ++s) {
            const py::handle part = states == 1 ? py::handle(state) : py::handle(PyTuple_GET_ITEM(state.ptr(), s));
            if (part.is_none()) continue;
            if (!is_ready(part, kNumbers<T>)) return false;
            const auto array = py::reinterpret_borrow<py::array>(part);
            if (!fits(array, {{"D*L", passes}, {"N", N}, {"H", stack_.needs.state[s]}})) return false;
            parts[s] = static_cast<const T*>(array.data());
        }
        return true;
    }

    Stack<T> stack_;
    bool batch_first_;
};

using AnyStack = std::variant<PackedStack<float>, PackedStack<double>>;

template <class T>
AnyStack pack(const Spec& spec, const py::list& weights, int directions, bool batch_first) {
    const std::vector<Weights<T>> passes = checked_weights<T>(spec, weights, directions);
    const py::gil_scoped_release nogil;
    return PackedStack<T>(passes, directions, batch_first);
}

}  // namespace

void register_stack(py::module_& m) {
    py::class_<AnyStack>(m, "Stack")
        .def(py::init([](const Spec& spec, const py::list& weights, int directions, bool batch_first) {
            const bool single = is_single(weights);
            return single ? pack<float>(spec, weights, directions, batch_first)
                          : pack<double>(spec, weights, directions, batch_first);
        }))
        .def("forward",
             [](const AnyStack& stack, const py::object& x, const py::object& state,
                const py::object& lengths) -> py::object {
                 return std::visit([&](const auto& s) { return s.forward(x, state, lengths); }, stack);
             })
        .def("forward_with_resets",
             [](const AnyStack& stack, const py::object& x, const py::object& state, const py::object& lengths,
                const py::object& mask, const py::object& reset_state) -> py::object {
                 const auto run = [&](const auto& s) { return s.forward(x, state, lengths, &mask, &reset_state); };
                 return std::visit(run, stack);
             });
}

}  // namespace rnncore
