// Between forward and backward: running a segment of a tape with checkpoints again, inside the backward pass.
#pragma once

#include <functional>

#include "engine.hpp"
#include "threads.hpp"

namespace rnncore {

// A function to be called by all members of a team of so many threads, for one segment after the other, the last first.
// It runs the steps of the segment from their checkpoint and keeps what they leave in `kept`, which the segments share.
// The other arguments must outlive it.
template <class T>
std::function<void(Member& team, int64_t segment)> recomputation(const Stack<T>& stack, const Input<T>& input,
                                                                 const typename Tape<T>::Group& group,
                                                                 const Kept<T>& kept, int threads);

}  // namespace rnncore
