// Where the steps of sequences lie in arrays without padding: step by step, or one sequence after the other.
#pragma once

#include <pybind11/pybind11.h>

#include "../plan.hpp"

namespace rnncore {

namespace py = pybind11;

// What stands in place of lengths where x has no padding; null if it is none.
const Ragged* as_ragged(py::handle lengths);

void register_ragged(py::module_& m);

}  // namespace rnncore
