// Models for streams to run: stages with weights packed once, in either dtype.
#pragma once

#include <memory>
#include <variant>

#include "../stream.hpp"
#include "arrays.hpp"

namespace rnncore {

using AnyProgram = std::variant<std::shared_ptr<const Program<float>>, std::shared_ptr<const Program<double>>>;

void register_program(py::module_& m);

}  // namespace rnncore
