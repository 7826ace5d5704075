// What calls of one layer and of a stack of layers have in common: checks of sizes and lengths.
#pragma once

#include "../plan.hpp"
#include "arrays.hpp"

namespace rnncore {

// Every size the engine computes stays far inside 64 bits; ValueError otherwise. `units` is the largest number of
// values a step makes for one row.
void check_size(const py::array& x, const Layout& layout, int64_t units, int64_t inputs);

// The lengths of the rows, each in [0, T], or null for None.
const int64_t* checked_lengths(py::handle lengths, const Layout& layout);

}  // namespace rnncore
