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
        const int64_t I = stack_.passes[0].I, H = stack_.H, D = stack_.directions;
        const int axes = ragged ? 2 : 3;
        if (!lookup && (series.ndim() != axes || series.shape(axes - 1) != I)) return py::none();
        Layout layout{0, 0, batch_first_, false, nullptr};
        set_sizes(layout, series, ragged);
        if (!ragged && !lengths.is_none() && !fits(py::reinterpret_borrow<py::array>(lengths), {{"N", layout.N}})) {
            return py::none();
        }
        const int64_t passes = static_cast<int64_t>(stack_.passes.size());
        Input<T> input{};
        const Shape shape = {{"D*L", passes}, {"N", layout.N}, {"H", H}};
        if (!read_state(state, shape, input.first)) return py::none();
        const T* start[kMaxStates] = {};
        if (mask && (!is_ready(*mask, kBool) || !read_state(*reset_state, shape, start))) return py::none();
        check_size(series, layout, passes * stack_.cell_kernels().gates * H, I);
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
        py::array y = new_series<T>(layout, D * H);
        output.y = data<T>(y);
        const int states = stack_.cell_kernels().states;
        py::object last[kMaxStates];
        for (int s = 0; s < states; ++s) {
            py::array array = new_array<T>({passes, layout.N, H});
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
        return py::make_tuple(
            std::move(y), states == 1 ? std::move(last[0]) : py::object(py::make_tuple(std::move(last[0]), last[1])));
    }

private:
    // False if it does not fit: None, an array, or a tuple (h, c) of which each may be None.
    bool read_state(const py::object& state, Shape shape, const T** parts) const {
        const int states = stack_.cell_kernels().states;
        if (state.is_none()) return true;
        if (states > 1 && (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != states)) return false;
        for (int s = 0; s < states; ++s) {
            const py::handle part = states == 1 ? py::handle(state) : py::handle(PyTuple_GET_ITEM(state.ptr(), s));
            if (part.is_none()) continue;
            if (!is_ready(part, kNumbers<T>)) return false;
            const auto array = py::reinterpret_borrow<py::array>(part);
            if (!fits(array, shape)) return false;
            parts[s] = static_cast<const T*>(array.data());
        }
        return true;
    }

    Stack<T> stack_;
    bool batch_first_;
};

using AnyStack = std::variant<PackedStack<float>, PackedStack<double>>;

template <class T>
AnyStack pack(Cell cell, const py::list& weights, int directions, bool batch_first) {
    const std::vector<Weights<T>> passes = checked_weights<T>(cell, weights, directions);
    const py::gil_scoped_release nogil;
    return PackedStack<T>(passes, directions, batch_first);
}

}  // namespace

void register_stack(py::module_& m) {
    py::class_<AnyStack>(m, "Stack")
        .def(py::init([](Cell cell, const py::list& weights, int directions, bool batch_first) {
            const bool single = is_single(weights);
            return single ? pack<float>(cell, weights, directions, batch_first)
                          : pack<double>(cell, weights, directions, batch_first);
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
