#include "call.hpp"

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

bool is_single(const py::list& weights) {
    for (const py::handle item : weights) {
        if (!py::isinstance<py::tuple>(item) || py::len(item) != 4) {
            throw py::type_error("weights: expected tuples (w_ih, w_hh, b_ih, b_hh)");
        }
    }
    return py::len(weights) > 0 && is_ready(weights[0].cast<py::tuple>()[0], kFloat32);
}

template <class T>
std::vector<Weights<T>> checked_weights(Cell cell, const py::list& weights, int directions) {
    const size_t count = weights.size();
    if (count == 0 || directions < 1 || directions > 2 || count % static_cast<size_t>(directions) != 0) {
        throw py::value_error("weights: expected those of one or two directions of every layer");
    }
    const int64_t G = gates_of(cell);
    std::vector<Weights<T>> passes;
    for (const py::handle item : weights) {
        const auto arrays = py::reinterpret_borrow<py::tuple>(item);
        const int64_t H = checked_array("w_hh", arrays[1], kNumbers<T>, {{"G*H"}, {"H"}}).shape(1);
        const int64_t I = checked_array("w_ih", arrays[0], kNumbers<T>, {{"G*H", G * H}, {"I"}}).shape(1);
        const size_t index = passes.size();
        const bool fits_below =
            index < static_cast<size_t>(directions) ? index == 0 || I == passes[0].I : I == directions * passes[0].H;
        if (H < 1 || !fits_below || (index > 0 && H != passes[0].H)) {
            throw py::value_error("weights: the passes do not fit each other");
        }
        const Dim gates{"G*H", G * H};
        passes.push_back({cell, I, H, read<T>("w_ih", arrays[0], {gates, {"I", I}}),
                          read<T>("w_hh", arrays[1], {gates, {"H", H}}), read_optional<T>("b_ih", arrays[2], {gates}),
                          read_optional<T>("b_hh", arrays[3], {gates})});
    }
    return passes;
}

template std::vector<Weights<float>> checked_weights(Cell, const py::list&, int);
template std::vector<Weights<double>> checked_weights(Cell, const py::list&, int);

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
