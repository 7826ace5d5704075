// Decoders with attention.
#pragma once

#include <pybind11/pybind11.h>

namespace rnncore {

void register_decoder(pybind11::module_& m);

}  // namespace rnncore
