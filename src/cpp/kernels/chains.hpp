// The loop that elementwise recurrences run on: chains side by side, whose states stay in registers while time goes on.
// A chain is a vector of channels of one line, which is a series of steps that follow from each other. A step of a
// chain waits for the step before it (a multiply-add takes about four cycles), so as many chains run at a time as hide
// that.
//
// Every element is computed alike wherever it stands, so bits depend on no cut of lines, channels or threads.
#pragma once

#include "../api.hpp"
#include "simd.hpp"

namespace rnncore::RNNCORE_ISA {
namespace {

// Lines of a tile of one vector of channels. (Four are 10 % faster forward, but backward, where a row is less than a
// vector and stores are masked, three times slower.)
inline constexpr int kTileLines = 2;

// Runs the chains of `Lines` lines times `Vectors` vectors of channels through `steps` steps. A walk says what they do:
//
//   State, Constants             what a chain carries from step to step, and what all lines share in all steps
//   constants(channel, part)     of the vector that begins at this channel
//   enter(line, channel, part)   the state before the first step
//   step(line, channel, part, constants, state)
//   advance()                    on to the next step
//   leave(line, channel, part, state)
//
// The last vector begins at `last`, so that it may overlap the one before it instead of being cut: its lanes are
// computed twice, to the same bits.
template <class T, int Lines, int Vectors, class Part, class Walk>
inline __attribute__((always_inline)) void run_chains(Walk walk, int64_t steps, int64_t channel, int64_t last,
                                                      Part last_part) {
    const auto each = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int line = 0; line < Lines; ++line) {
#pragma GCC unroll 8
            for (int v = 0; v + 1 < Vectors; ++v) f(line, v, channel + v * kLanes<T>, Full{});
            f(line, Vectors - 1, last, last_part);
        }
    };
    typename Walk::State state[Lines][Vectors];
    typename Walk::Constants constants[Vectors];
    each([&](int line, int v, int64_t at, auto part) __attribute__((always_inline)) {
        if (line == 0) constants[v] = walk.constants(at, part);
        state[line][v] = walk.enter(line, at, part);
    });
    for (int64_t s = 0; s < steps; ++s) {
        each([&](int line, int v, int64_t at, auto part)
                 __attribute__((always_inline)) { walk.step(line, at, part, constants[v], state[line][v]); });
        walk.advance();
    }
    each([&](int line, int v, int64_t at, auto part)
             __attribute__((always_inline)) { walk.leave(line, at, part, state[line][v]); });
}

// The chains of all these lines and channels, tile by tile. A task makes walks: task.walk<Lines>(line, done, steps)
// goes so many steps of the lines from `line` on, `done` steps after their beginning, where the states are those that
// another walk has left. task.steps(line) is the length of a line; what a line of a tile has more than the others it
// goes alone.
template <class T, int Vectors, class Task, class Part>
inline void run_lines(const Task& task, Span lines, int64_t channel, int64_t last, Part part) {
    int64_t line = lines.begin;
    if constexpr (Vectors == 1) {
        for (; line + kTileLines <= lines.end; line += kTileLines) {
            int64_t common = task.steps(line);
            for (int64_t i = line + 1; i < line + kTileLines; ++i) {
                const int64_t steps = task.steps(i);
                common = steps < common ? steps : common;
            }
            run_chains<T, kTileLines, Vectors>(task.template walk<kTileLines>(line, 0, common), common, channel, last,
                                               part);
            for (int64_t i = line; i < line + kTileLines; ++i) {
                if (const int64_t rest = task.steps(i) - common; rest > 0) {
                    run_chains<T, 1, Vectors>(task.template walk<1>(i, common, rest), rest, channel, last, part);
                }
            }
        }
    }
    for (; line < lines.end; ++line) {
        run_chains<T, 1, Vectors>(task.template walk<1>(line, 0, task.steps(line)), task.steps(line), channel, last,
                                  part);
    }
}

// The largest tile there is for so many vectors; returns its size. (Sizes are 8, 4, 2 and 1.)
template <class T, int Vectors, class Task>
inline int64_t run_tile(const Task& task, Span lines, int64_t channel, int64_t end, int64_t vectors) {
    if constexpr (Vectors > 1) {
        if (vectors < Vectors) return run_tile<T, Vectors / 2>(task, lines, channel, end, vectors);
    }
    const int64_t last = channel + (Vectors - 1) * kLanes<T>, last_whole = end - kLanes<T>;
    run_lines<T, Vectors>(task, lines, channel, last < last_whole ? last : last_whole, Full{});
    return Vectors;
}

// Tiles of up to `Most` vectors.
template <class T, int Most, class Task>
inline void run_tiles(const Task& task, Span lines, Span channels) {
    constexpr int64_t L = kLanes<T>;
    int64_t channel = channels.begin;
    if (const int64_t few = channels.end - channel; few < L) {
        if (few > 0) run_lines<T, 1>(task, lines, channel, channel, Tail{static_cast<int>(few)});
        return;
    }
    while (channel < channels.end) {
        const int64_t vectors = (channels.end - channel + L - 1) / L;
        channel += L * run_tile<T, Most>(task, lines, channel, channels.end, vectors);
    }
}

}  // namespace
}  // namespace rnncore::RNNCORE_ISA
