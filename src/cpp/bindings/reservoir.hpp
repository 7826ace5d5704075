#pragma once

#include <pybind11/pybind11.h>

namespace rnncore {

void register_reservoir(pybind11::module_& m);

}  // namespace rnncore
