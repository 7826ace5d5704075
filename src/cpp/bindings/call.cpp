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

}  // namespace rnncore
