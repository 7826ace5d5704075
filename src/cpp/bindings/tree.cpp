// Forests, and networks over them: forward, and forward with what its backward needs, which may be called many times.
#include "tree.hpp"

#include <variant>
#include <vector>

#include "../dispatch.hpp"
#include "../tree.hpp"
#include "arrays.hpp"
#include "call.hpp"

namespace rnncore {
namespace {

Forest forest_of(const py::object& sizes, const py::object& parents, const py::object& sides) {
    const py::array counts = checked_array("sizes", sizes, kInt64, {{"N"}});
    std::vector<int64_t> first(1, 0);
    const py::array parent = checked_array("parents", parents, kInt64, {{"R"}});
    const int64_t R = parent.shape(0);
    for (int64_t n = 0; n < counts.shape(0); ++n) {
        const int64_t size = data<int64_t>(counts)[n];
        if (size < 0 || size > R - first.back()) {
            throw py::value_error("sizes: expected numbers of nodes that there are, got " + std::to_string(size));
        }
        first.push_back(first.back() + size);
    }
    if (first.back() != R) {
        throw py::value_error("sizes: expected " + std::to_string(R) + " nodes in all, got " +
                              std::to_string(first.back()));
    }
    return {first, data<int64_t>(parent), read_optional<int64_t>("sides", sides, {{"R", R}})};
}

// The objects keep the arrays of a call alive.
struct Arguments {
    TreeCell cell;
    py::object forest, x, weight, bias, u, b, u_forget, b_forget;
};

template <class T>
TreeCall<T> checked(const Arguments& a) {
    const auto& forest = a.forest.cast<const Forest&>();
    if (a.cell == TreeCell::binary) forest.check_binary();
    const bool child_sum = a.cell == TreeCell::child_sum;
    const py::array weight = checked_array("weight", a.weight, kNumbers<T>, {{"G*H"}, {"I"}});
    const int64_t I = weight.shape(1), H = weight.shape(0) / tree_sizes(a.cell, 1).pre;
    if (H < 1) throw py::value_error("weight: expected at least one hidden unit, got " + describe(weight));
    const TreeSizes sizes = tree_sizes(a.cell, H);
    const Dim units{"G*H", sizes.pre}, inputs{"I", I}, product{"P*H", sizes.product}, hidden{"H", H};
    const py::array x = checked_array("x", a.x, kNumbers<T>, {{"R", forest.rows()}, inputs});
    check_size(x, {forest.rows(), 1, true, false, nullptr}, sizes.product, I);
    return {&forest,
            a.cell,
            I,
            H,
            static_cast<const T*>(x.data()),
            read<T>("weight", a.weight, {units, inputs}),
            read_optional<T>("bias", a.bias, {units}),
            read<T>("u", a.u, {product, {"K*H", sizes.operand}}),
            read<T>("b", a.b, {product}),
            child_sum ? read<T>("u_forget", a.u_forget, {hidden, hidden}) : nullptr,
            child_sum ? read<T>("b_forget", a.b_forget, {hidden}) : nullptr};
}

bool has_c(TreeCell cell) {
    return cell == TreeCell::child_sum || cell == TreeCell::binary;
}

// y, h and c of the roots; c is None where the cell has none.
template <class T>
py::tuple run(const TreeCall<T>& call, TreeTape<T>* tape) {
    const int64_t N = call.forest->trees();
    py::array y = new_array<T>({call.forest->rows(), call.H}), h = new_array<T>({N, call.H});
    py::object c = py::none();
    T* last[2] = {data<T>(h), nullptr};
    if (has_c(call.cell)) {
        py::array array = new_array<T>({N, call.H});
        last[1] = data<T>(array);
        c = std::move(array);
    }
    {
        const py::gil_scoped_release nogil;
        tree_forward<T>(kernels(), call, data<T>(y), last, tape);
    }
    return py::make_tuple(std::move(y), std::move(h), std::move(c));
}

template <class T>
struct TreeRecording {
    Arguments arguments;
    const KernelTable* kernels;
    TreeCall<T> call;
    TreeTape<T> tape;

    py::tuple backward(const py::object& dy, const py::object& dh, const py::object& dc) const {
        const int64_t R = call.forest->rows(), I = call.I, H = call.H;
        const TreeSizes sizes = tree_sizes(call.cell, H);
        const Dim N{"N", call.forest->trees()}, hidden{"H", H};
        const T* dy_data = read_optional<T>("dy", dy, {{"R", R}, hidden});
        const T* dlast[2] = {read_optional<T>("dh", dh, {N, hidden}), read_optional<T>("dc", dc, {N, hidden})};
        const int64_t forget = call.u_forget ? H : 0;
        py::array dx = new_array<T>({R, I}), dweight = new_array<T>({sizes.pre, I}), dbias = new_array<T>({sizes.pre}),
                  du = new_array<T>({sizes.product, sizes.operand}), db = new_array<T>({sizes.product}),
                  du_forget = new_array<T>({forget, forget}), db_forget = new_array<T>({forget});
        {
            const py::gil_scoped_release nogil;
            tree_backward<T>(*kernels, call, tape, dy_data, dlast,
                             {data<T>(dx), data<T>(dweight), data<T>(dbias), data<T>(du), data<T>(db),
                              data<T>(du_forget), data<T>(db_forget)});
        }
        return py::make_tuple(std::move(dx), std::move(dweight), std::move(dbias), std::move(du), std::move(db),
                              std::move(du_forget), std::move(db_forget));
    }
};

using AnyRecording = std::variant<TreeRecording<float>, TreeRecording<double>>;

template <class T>
py::tuple call_as(bool keep, Arguments& arguments) {
    TreeRecording<T> recording{{}, &kernels(), checked<T>(arguments), {}};
    const py::tuple output = run<T>(recording.call, keep ? &recording.tape : nullptr);
    if (!keep) return output + py::make_tuple(py::none());
    recording.arguments = std::move(arguments);
    return output + py::make_tuple(AnyRecording(std::move(recording)));
}

TreeCell cell_of(const std::string& name) {
    constexpr const char* kNames[] = {"rnn_tanh", "rnn_relu", "child_sum", "binary"};
    for (int cell = 0; cell < 4; ++cell) {
        if (name == kNames[cell]) return static_cast<TreeCell>(cell);
    }
    throw py::value_error("cell: there is none of the name " + name);
}

}  // namespace

void register_tree(py::module_& m) {
    py::class_<Forest>(m, "Forest").def(py::init(&forest_of)).def_property_readonly("levels", &Forest::levels);

    m.def("tree", [](bool keep, const std::string& cell, py::object forest, py::object x, py::object weight,
                     py::object bias, py::object u, py::object b, py::object u_forget, py::object b_forget) {
        Arguments a{cell_of(cell), forest, x, weight, bias, u, b, u_forget, b_forget};
        const py::array like = checked_array("weight", weight, kFloat32 | kFloat64, {{"G*H"}, {"I"}});
        return like.itemsize() == sizeof(float) ? call_as<float>(keep, a) : call_as<double>(keep, a);
    });
    py::class_<AnyRecording>(m, "TreeRecording")
        .def("backward",
             [](const AnyRecording& recording, const py::object& dy, const py::object& dh, const py::object& dc) {
                 return std::visit([&](const auto& r) { return r.backward(dy, dh, dc); }, recording);
             });
}

}  // namespace rnncore
