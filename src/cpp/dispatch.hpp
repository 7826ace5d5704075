// Which instruction sets this build has and this CPU can run, and the table in use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api.hpp"

namespace rnncore {

// Names of the instruction sets this CPU can run, best first.
std::vector<std::string> available_isas();

// The table in use: the best one, or the one that RNNCORE_ISA or use_isa names.
const KernelTable& kernels();
std::string active_isa();

// The kernels of one precision.
template <class T>
const Kernels<T>& precision(const KernelTable& table);

// Throws std::invalid_argument if the name is unknown or this CPU cannot run it.
void use_isa(std::string_view name);

}  // namespace rnncore
