#pragma once

#include <pybind11/pybind11.h>

namespace rnncore {

void register_scan(pybind11::module_& m);

}  // namespace rnncore
