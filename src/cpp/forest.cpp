#include "forest.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <numeric>
#include <stdexcept>

namespace rnncore {
namespace {

// Of a group, unless a tree has more: their states, inputs and gates stay in the caches nearer than memory, while its
// levels still have rows enough. (All of 25600 nodes level by level, H = 128, took 1.2 times as long forward.)
constexpr int64_t kGroupNodes = 1024;

[[noreturn, gnu::format(printf, 1, 2)]] void refuse(const char* format, ...) {
    char message[200];
    va_list numbers;
    va_start(numbers, format);
    std::vsnprintf(message, sizeof message, format, numbers);
    va_end(numbers);
    throw std::invalid_argument(message);
}

// As printf takes it.
long long number(int64_t n) {
    return n;
}

// Parents in range, and one root.
void check_parents(int64_t tree, int64_t n, const int64_t* parent) {
    int64_t root = -1;
    for (int64_t j = 0; j < n; ++j) {
        if (parent[j] < -1 || parent[j] >= n) {
            refuse("trees[%lld][%lld]: expected a parent from 0 to %lld, or -1 for the root, got %lld", number(tree),
                   number(j), number(n - 1), number(parent[j]));
        }
        if (parent[j] >= 0) continue;
        if (root >= 0) {
            refuse("trees[%lld]: expected one root, got nodes %lld and %lld", number(tree), number(root), number(j));
        }
        root = j;
    }
    if (root < 0) {
        refuse("trees[%lld]: expected one root, whose parent is -1, got none among %lld nodes", number(tree),
               number(n));
    }
}

}  // namespace

Forest::Forest(const std::vector<int64_t>& first, const int64_t* parent, const int64_t* side) : first_(first) {
    const auto N = static_cast<int64_t>(first.size()) - 1, R = first.back();
    // Children of all nodes, in the caller's order, then how many of each are not done.
    std::vector<int64_t> above(static_cast<size_t>(R)), tree_of(above), begin(static_cast<size_t>(R) + 1, 0);
    for (int64_t n = 0; n < N; ++n) {
        const int64_t from = first[n], count = first[n + 1] - from;
        check_parents(n, count, parent + from);
        for (int64_t j = from; j < from + count; ++j) {
            above[j] = parent[j] < 0 ? -1 : from + parent[j];
            tree_of[j] = n;
            if (above[j] >= 0) ++begin[above[j] + 1];
        }
    }
    std::vector<int64_t> pending(begin.begin() + 1, begin.end()), height(static_cast<size_t>(R), 0), done;
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    std::vector<int64_t> children(static_cast<size_t>(R - N)), next(begin), own_side(static_cast<size_t>(R), 0);
    for (int64_t j = 0; j < R; ++j) {
        if (above[j] < 0) continue;
        own_side[j] = next[above[j]] - begin[above[j]];
        children[next[above[j]]++] = j;
        if (!side) continue;
        own_side[j] = side[j];
        const long long tree = tree_of[j], within = j - first[tree_of[j]];
        if (side[j] != 0 && side[j] != 1) {
            refuse("sides[%lld][%lld]: expected 0 for left or 1 for right, got %lld", tree, within, number(side[j]));
        }
        for (int64_t e = begin[above[j]]; e + 1 < next[above[j]]; ++e) {
            if (side[children[e]] != side[j]) continue;
            refuse("sides[%lld][%lld]: expected another than of node %lld, which has the same parent, got %lld", tree,
                   within, number(children[e] - first[tree_of[j]]), number(side[j]));
        }
    }

    // From the leaves up; a node of a cycle, or above one, never comes.
    done.reserve(static_cast<size_t>(R));
    for (int64_t j = 0; j < R; ++j) {
        if (pending[j] == 0) done.push_back(j);
    }
    for (size_t i = 0; i < done.size(); ++i) {
        const int64_t p = above[done[i]];
        if (p < 0) continue;
        height[p] = std::max(height[p], height[done[i]] + 1);
        if (--pending[p] == 0) done.push_back(p);
    }
    if (static_cast<int64_t>(done.size()) < R) {
        int64_t j = 0;
        while (pending[j] == 0) ++j;
        for (int64_t step = 0; step < R; ++step) j = above[j];  // from above a cycle there is no way but into it
        int64_t least = j;
        for (int64_t k = above[j]; k != j; k = above[k]) least = std::min(least, k);
        refuse("trees[%lld]: expected a tree, got a cycle through node %lld", number(tree_of[j]),
               number(least - first[tree_of[j]]));
    }

    // Rows: leaves by groups, then the other nodes by groups and height; of each level roots last, otherwise in the
    // caller's order.
    std::vector<int64_t> group(static_cast<size_t>(N)), level(1, 0);  // level: the first of each group above leaves
    for (int64_t n = 0, in_group = 0, g = 0; n < N; ++n) {
        const int64_t size = first[n + 1] - first[n];
        if (in_group > 0 && in_group + size > kGroupNodes) ++g, in_group = 0;
        in_group += size;
        group[n] = g;
        level.resize(static_cast<size_t>(g) + 2, 0);
    }
    const auto G = static_cast<int64_t>(level.size()) - 1;
    for (int64_t j = 0; j < R; ++j) {
        int64_t& highest = level[group[tree_of[j]] + 1];
        highest = std::max(highest, height[j]);
    }
    for (const int64_t highest : level) levels_ = std::max(levels_, highest + (R > 0));
    std::partial_sum(level.begin(), level.end(), level.begin());
    const auto level_of = [&](int64_t g, int64_t height) { return height ? G + level[g] + height - 1 : g; };
    std::vector<int64_t> slot(static_cast<size_t>(2 * (G + level.back())) + 1, 0);
    const auto slot_of = [&](int64_t j) { return 2 * level_of(group[tree_of[j]], height[j]) + (above[j] < 0); };
    for (int64_t j = 0; j < R; ++j) ++slot[slot_of(j) + 1];
    std::partial_sum(slot.begin(), slot.end(), slot.begin());
    leaves_ = slot[2 * G];
    for (int64_t g = 0; g < G; ++g) {
        groups_.emplace_back();
        for (int64_t h = 0; h <= level[g + 1] - level[g]; ++h) {
            groups_.back().push_back({slot[2 * level_of(g, h)], slot[2 * level_of(g, h) + 2]});
        }
    }
    caller_row_.resize(static_cast<size_t>(R));
    std::vector<int64_t> row(static_cast<size_t>(R));
    for (int64_t j = 0; j < R; ++j) {
        row[j] = slot[slot_of(j)]++;
        caller_row_[row[j]] = j;
    }

    parent_.resize(static_cast<size_t>(R)), side_.resize(static_cast<size_t>(R));
    root_.resize(static_cast<size_t>(N));
    child_.reserve(static_cast<size_t>(R - N)), first_child_.assign(1, 0);
    for (int64_t r = 0; r < R; ++r) {
        const int64_t j = caller_row_[r];
        parent_[r] = above[j] < 0 ? -1 - tree_of[j] : row[above[j]];
        side_[r] = own_side[j];
        if (above[j] < 0) root_[tree_of[j]] = r;
        for (int64_t e = begin[j]; e < begin[j + 1]; ++e) child_.push_back(row[children[e]]);
        // (left before right, however the caller has them)
        if (side && begin[j + 1] - begin[j] == 2 && own_side[children[begin[j]]] == 1) {
            std::swap(child_[child_.size() - 2], child_.back());
        }
        first_child_.push_back(static_cast<int64_t>(child_.size()));
    }
}

TreeNodes Forest::nodes() const {
    return {caller_row_.data(), parent_.data(), side_.data(), first_child_.data(), child_.data(), leaves_};
}

void Forest::check_binary() const {
    for (int64_t r = 0; r < rows(); ++r) {
        const int64_t count = first_child_[r + 1] - first_child_[r];
        if (count <= 2) continue;
        const int64_t j = caller_row_[r];
        const auto tree = std::upper_bound(first_.begin(), first_.end(), j) - first_.begin() - 1;
        refuse("forest: expected at most two children of a node, got %lld of node %lld of tree %lld", number(count),
               number(j - first_[tree]), number(tree));
    }
}

}  // namespace rnncore
