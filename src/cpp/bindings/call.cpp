#include "call.hpp"

#include <algorithm>

namespace rnncore {

void check_size(const py::array& x, const Layout& layout, int64_t units, int64_t inputs) {
    const double most = static_cast<double>(layout.N + 1) * static_cast<double>(layout.T + 1) *
                        (8.0 * static_cast<double>(units) + static_cast<double>(inputs));
    if (most > 1e17) throw py::value_error("x: " + describe(x) + " is too large for these weights");
}

const int64_t* checked_lengths(py::handle object, const Layout& layout) {
    const int64_t* lengths = read_optional<int64_t>("lengths", object, {{"N", layout.N}});
    for (int64_t n = 0; lengths && n < layout.N; ++n) {
        if (lengths[n] >= 0 && lengths[n] <= layout.T) continue;
        throw py::value_error("lengths: expected values from 0 to T = " + std::to_string(layout.T) + ", got " +
                              std::to_string(lengths[n]) + " at row " + std::to_string(n));
    }
    return lengths;
}

const uint8_t* checked_resets(py::handle mask, const Layout& layout) {
    if (layout.ragged) {
        const Dim rows{"R", layout.ragged->R};
        return static_cast<const uint8_t*>(checked_array("reset_mask", mask, kBool, {rows}).data());
    }
    const Dim batch{"N", layout.N}, steps{"T", layout.T};
    const Dim outer = layout.batch_first ? batch : steps, inner = layout.batch_first ? steps : batch;
    return static_cast<const uint8_t*>(checked_array("reset_mask", mask, kBool, {outer, inner}).data());
}

void set_sizes(Layout& layout, const py::array& series, const Ragged* ragged) {
    if (ragged) {
        if (series.shape(0) != ragged->R) {
            throw py::value_error("x: expected " + std::to_string(ragged->R) + " rows, got " + describe(series));
        }
        layout.N = static_cast<int64_t>(ragged->lengths.size());
        layout.T = static_cast<int64_t>(ragged->step.size());
        layout.lengths = ragged->lengths.data();
        layout.ragged = ragged;
    } else {
        if (series.ndim() < 2) throw py::value_error("x: expected tokens (N, T), got " + describe(series));
        layout.N = series.shape(layout.batch_first ? 0 : 1);
        layout.T = series.shape(layout.batch_first ? 1 : 0);
    }
}

const Lookup* as_lookup(py::handle x) {
    if (py::isinstance<py::array>(x) || !py::isinstance<Lookup>(x)) return nullptr;
    return &x.cast<const Lookup&>();
}

const int64_t* checked_tokens(const Lookup& lookup, const Layout& layout) {
    const auto* tokens = static_cast<const int64_t*>(lookup.tokens.data());
    const int64_t V = lookup.table.shape(0);
    if ((lookup.tokens.ndim() == 1) != (layout.ragged != nullptr)) {
        throw py::value_error("x: expected tokens (N, T), or (R,) where there is no padding, got " +
                              describe(lookup.tokens));
    }
    for (int64_t r = 0; layout.ragged && r < layout.ragged->R; ++r) {
        if (tokens[r] >= 0 && tokens[r] < V) continue;
        throw py::value_error("x: expected tokens from 0 to " + std::to_string(V - 1) + ", got " +
                              std::to_string(tokens[r]) + " at row " + std::to_string(r));
    }
    if (layout.ragged) return tokens;
    for (int64_t n = 0; n < layout.N; ++n) {
        const int64_t steps = layout.lengths ? layout.lengths[n] : layout.T;
        for (int64_t t = 0; t < steps; ++t) {
            const int64_t outer = layout.batch_first ? n : t, inner = layout.batch_first ? t : n;
            const int64_t token = tokens[outer * lookup.tokens.shape(1) + inner];
            if (token >= 0 && token < V) continue;
            throw py::value_error("x: expected tokens from 0 to " + std::to_string(V - 1) + ", got " +
                                  std::to_string(token) + " at (" + std::to_string(outer) + ", " +
                                  std::to_string(inner) + ")");
        }
    }
    return tokens;
}

WeightArrays weight_arrays(py::handle item) {
    if (!py::isinstance<py::tuple>(item) || (py::len(item) != 4 && py::len(item) != kWeights)) {
        throw py::type_error("weights: expected tuples (w_ih, w_hh, b_ih, b_hh) or (..., w_inner, b_inner, vectors)");
    }
    WeightArrays arrays;
    arrays.fill(py::none());
    const auto tuple = py::reinterpret_borrow<py::tuple>(item);
    for (size_t i = 0; i < tuple.size(); ++i) arrays[i] = tuple[i];
    return arrays;
}

bool is_single(const py::list& weights) {
    for (const py::handle item : weights) weight_arrays(item);
    return py::len(weights) > 0 && is_ready(weights[0].cast<py::tuple>()[0], kFloat32);
}

template <class T>
Weights<T> read_weights(const Spec& spec, const WeightArrays& arrays, Sizes& sizes) {
    const auto& [w_ih, w_hh, b_ih, b_hh, w_inner, b_inner, vectors] = arrays;
    const int64_t G = gates_of(spec.cell);
    // H by the matrix that has it as its columns
    const bool projects = !w_inner.is_none() && spec.options.depth == 1, has_products = multiplies(spec.cell);
    int64_t H = -1;
    if (projects) {
        H = checked_array("w_inner", w_inner, kNumbers<T>, {{"P"}, {"H"}}).shape(1);
    } else if (has_products) {
        const py::array array = checked_array("w_hh", w_hh, kNumbers<T>, {{"G*H"}, {"H"}});
        H = array.shape(1);
        if (H < 1) throw py::value_error("w_hh: expected at least one hidden unit, got " + describe(array));
        read<T>("w_hh", array, {{"G*H", G * H}, {"H", H}});
    } else {
        const py::array array = checked_array("w_ih", w_ih, kNumbers<T>, {{"G*H"}, {"I"}});
        H = array.shape(0) / G;
        if (array.shape(0) % G != 0 || H < 1) {
            throw py::value_error("w_ih: expected " + std::to_string(G) + " gates, got " + describe(array));
        }
    }
    if (H < 1) throw py::value_error("w_inner: expected at least one hidden unit");
    const Dim gates{"G*H", G * H}, hidden{"H", H};
    const py::array w = checked_array("w_ih", w_ih, kNumbers<T>, {gates, {"I"}});
    Weights<T> weights{spec,    w.shape(1), H,       H,      static_cast<const T*>(w.data()), nullptr, nullptr,
                       nullptr, nullptr,    nullptr, nullptr};
    if (projects) weights.P = py::reinterpret_borrow<py::array>(w_inner).shape(0);
    if (weights.P < 1) throw py::value_error("w_inner: expected at least one output");
    const Needs needs = needs_of<T>(spec, H, weights.P);
    std::copy_n(needs.state, kMaxStates, sizes.state);
    sizes.vectors = needs.vectors, sizes.inner_rows = inner_rows(needs), sizes.inner_biases = inner_biases(needs);
    if (sizes.inner_rows > 0) {
        weights.w_inner = read<T>("w_inner", w_inner, {{"rows", sizes.inner_rows}, hidden});
    } else if (!w_inner.is_none()) {
        throw py::type_error("w_inner: expected None, since this cell has neither a projection nor a deep transition");
    }
    if (sizes.inner_biases > 0) {
        weights.b_inner = read_optional<T>("b_inner", b_inner, {{"rows", sizes.inner_biases}});
    } else if (!b_inner.is_none()) {
        throw py::type_error("b_inner: expected None, since this cell has no deep transition");
    }
    weights.P = needs.state[0];
    if (has_products) {
        weights.w_hh = read<T>("w_hh", w_hh, {gates, {"P", weights.P}});
        weights.b_hh = read_optional<T>("b_hh", b_hh, {gates});
    } else if (!w_hh.is_none() || !b_hh.is_none()) {
        throw py::type_error("w_hh: expected None, and so b_hh, since this cell multiplies no state");
    }
    weights.b_ih = read_optional<T>("b_ih", b_ih, {gates});
    if (needs.vectors > 0) {
        weights.vectors = read<T>("vectors", vectors, {{"V", needs.vectors}});
    } else if (!vectors.is_none()) {
        throw py::type_error("vectors: expected None, since this cell has none");
    }
    return weights;
}
template Weights<float> read_weights(const Spec&, const WeightArrays&, Sizes&);
template Weights<double> read_weights(const Spec&, const WeightArrays&, Sizes&);

template <class T>
std::vector<Weights<T>> checked_weights(const Spec& spec, const py::list& weights, int directions) {
    const size_t count = weights.size();
    if (count == 0 || directions < 1 || directions > 2 || count % static_cast<size_t>(directions) != 0) {
        throw py::value_error("weights: expected those of one or two directions of every layer");
    }
    std::vector<Weights<T>> passes;
    for (const py::handle item : weights) {
        Sizes sizes;
        const Weights<T> pass = read_weights<T>(spec, weight_arrays(item), sizes);
        const size_t index = passes.size();
        const bool fits_below = index < static_cast<size_t>(directions) ? index == 0 || pass.I == passes[0].I
                                                                        : pass.I == directions * passes[0].P;
        if (!fits_below || (index > 0 && (pass.H != passes[0].H || pass.P != passes[0].P))) {
            throw py::value_error("weights: the passes do not fit each other");
        }
        passes.push_back(pass);
    }
    return passes;
}

template std::vector<Weights<float>> checked_weights(const Spec&, const py::list&, int);
template std::vector<Weights<double>> checked_weights(const Spec&, const py::list&, int);

namespace {

Curve curve_of(const py::tuple& tuple) {
    if (tuple.size() != 3) throw py::value_error("activation: expected (kind, alpha, beta)");
    const Curve curve{tuple[0].cast<Activation>(), tuple[1].cast<double>(), tuple[2].cast<double>()};
    const int kind = static_cast<int>(curve.kind);
    if (kind < 0 || kind >= kActivations) throw py::value_error("activation: there is no such activation");
    return curve;
}

// A deep transition is one of a cell that works row by row, of as many products as there is room for.
void check_depth(Cell cell, int depth, bool shortcut) {
    if (depth == 1 && !shortcut) return;
    const int products = needs_of<float>({cell}, 1, 1).products;
    if (depth < 1 + shortcut || depth > kMaxProducts || depth * products + shortcut > kMaxProducts) {
        throw py::value_error("transition_depth: expected another number of this cell, got " + std::to_string(depth));
    }
    Spec spec{cell};
    spec.options.depth = depth, spec.options.shortcut = shortcut;
    if (products == 0 || needs_of<float>(spec, 1, 1).products != depth * products + shortcut) {
        throw py::value_error("transition_depth: expected 1 of this cell, got " + std::to_string(depth));
    }
}

}  // namespace

void register_spec(py::module_& m) {
    py::class_<Spec>(m, "Spec")
        .def(py::init([](Cell cell) { return Spec{cell}; }))  // who reads weights refuses a cell that is none, by name
        .def(py::init([](Cell cell, const py::tuple& activation, const py::tuple& recurrent_activation, bool peephole,
                         bool layer_norm, double gate_clip, double cell_clip, double take_h, double take_c, bool skip,
                         int depth, bool shortcut) {
            gates_of(cell);
            check_depth(cell, depth, shortcut);
            return Spec{cell,
                        {curve_of(activation),
                         curve_of(recurrent_activation),
                         peephole,
                         layer_norm,
                         gate_clip,
                         cell_clip,
                         {take_h, take_c},
                         depth,
                         shortcut},
                        skip};
        }));
    py::implicitly_convertible<Cell, Spec>();
}

void register_lookup(py::module_& m) {
    py::class_<Lookup>(m, "Lookup")
        .def(py::init([](const py::object& table, const py::object& tokens, const py::object& gradient) {
            constexpr int kReal = kFloat32 | kFloat64;
            const py::array rows = checked_array("table", table, kReal, {{"V"}, {"I"}});
            const py::array to =
                writable_array("gradient", gradient, kReal, {{"V", rows.shape(0)}, {"I", rows.shape(1)}});
            if (to.itemsize() != rows.itemsize()) {
                throw py::type_error("gradient: expected the dtype of the table, got " + describe(to));
            }
            const bool flat =
                py::isinstance<py::array>(tokens) && py::reinterpret_borrow<py::array>(tokens).ndim() == 1;
            return Lookup{rows,
                          flat ? checked_array("tokens", tokens, kInt64, {{"R"}})
                               : checked_array("tokens", tokens, kInt64, {{"N"}, {"T"}}),
                          to};
        }))
        .def_property_readonly("shape", [](const Lookup& lookup) {
            const int64_t size = lookup.table.shape(1);
            if (lookup.tokens.ndim() == 1) return py::tuple(py::make_tuple(lookup.tokens.shape(0), size));
            return py::tuple(py::make_tuple(lookup.tokens.shape(0), lookup.tokens.shape(1), size));
        });
}

}  // namespace rnncore
