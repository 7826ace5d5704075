// Between forward calls of one network and of many: a call made ready once and run again and again.
#pragma once

#include <functional>

#include "engine.hpp"

namespace rnncore {

// Runs a stack on an input into an output, on the calling thread alone.
template <class T>
using Repetition = std::function<void(const Stack<T>&, const Input<T>&, const Output<T>&)>;

// One that takes, call after call, stacks of the shapes of this one, all packed or none, and inputs without tokens; its
// workspace stays in cache. The stack and the plan must outlive it, and only one call may run at a time.
template <class T>
Repetition<T> repetition(const Stack<T>& stack, const Layout& layout, const Plan& plan, const Input<T>& input,
                         const Output<T>& output);

}  // namespace rnncore
