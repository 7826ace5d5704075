// Forests: trees that are given, checked, and their nodes as rows, level by level.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "api.hpp"

namespace rnncore {

// Trees of any shape, whose nodes lie tree after tree in the caller's arrays, in any order within each.
class Forest {
public:
    // parent: of each node, its index within the tree, -1 for the root. first (trees + 1): where the nodes of each tree
    // begin. side: 0 for a left child, 1 for a right one, or null, for the order of the children. Throws
    // std::invalid_argument, naming tree and node, unless each tree has one root from which all its nodes hang, and no
    // two children of a node the same side, if sides are given.
    Forest(const std::vector<int64_t>& first, const int64_t* parent, const int64_t* side);

    int64_t rows() const { return static_cast<int64_t>(caller_row_.size()); }
    int64_t trees() const { return static_cast<int64_t>(root_.size()); }
    int64_t levels() const { return levels_; }  // of the highest tree
    // Groups of whole trees, whose nodes stay in cache from level to level; of each, the rows of its levels, leaves
    // first. The leaves of all groups come before all other rows.
    int64_t groups() const { return static_cast<int64_t>(groups_.size()); }
    const std::vector<Span>& group(int64_t g) const { return groups_[static_cast<size_t>(g)]; }
    const std::vector<int64_t>& roots() const { return root_; }  // (trees) rows
    TreeNodes nodes() const;

    // Throws std::invalid_argument, naming the first node that has more than two children.
    void check_binary() const;

private:
    std::vector<int64_t> first_, caller_row_, parent_, side_, first_child_, child_, root_;
    std::vector<std::vector<Span>> groups_;
    int64_t levels_ = 0, leaves_ = 0;
};

}  // namespace rnncore
