#pragma once

#include <pybind11/pybind11.h>

namespace rnncore {

void register_tree(pybind11::module_& m);

}  // namespace rnncore
