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
    const Dim batch{"N", layout.N}, steps{"T", layout.T};
    const Dim outer = layout.batch_first ? batch : steps, inner = layout.batch_first ? steps : batch;
    return static_cast<const uint8_t*>(checked_array("reset_mask", mask, kBool, {outer, inner}).data());
}

const Lookup* as_lookup(py::handle x) {
    if (py::isinstance<py::array>(x) || !py::isinstance<Lookup>(x)) return nullptr;
    return &x.cast<const Lookup&>();
}

const int64_t* checked_tokens(const Lookup& lookup, const Layout& layout) {
    const auto* tokens = static_cast<const int64_t*>(lookup.tokens.data());
    const int64_t V = lookup.table.shape(0);
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
            return Lookup{rows, checked_array("tokens", tokens, kInt64, {{"N"}, {"T"}}), to};
        }))
        .def_property_readonly("shape", [](const Lookup& lookup) {
            return py::make_tuple(lookup.tokens.shape(0), lookup.tokens.shape(1), lookup.table.shape(1));
        });
}

}  // namespace rnncore
