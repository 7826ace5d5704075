#pragma once

#include <pybind11/pybind11.h>

namespace rnncore {

void register_stream(pybind11::module_& m);

}  // namespace rnncore
