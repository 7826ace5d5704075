"""Trees of nested tuples as parents, for `Forest.from_nested`."""

from __future__ import annotations

from typing import Any

__all__: list[str] = []  # for forests


def parents_of(name: str, tree: Any, values: list[Any]) -> tuple[list[int], list[int], bool]:
    """Return parents and sides of a nested tree, and whether children are missing; append the values of its leaves.

    Without recursion: trees may be deeper than Python's stack.
    """
    if tree is None:
        raise ValueError(f"{name}: expected a tree, got None")
    parents: list[int] = []
    sides: list[int] = []
    gaps = False
    # what is to be visited, its side, its siblings' numbers, and its children's, once they have been
    stack: list[tuple[Any, int, list[int], list[int] | None]] = [(tree, 0, [], None)]
    while stack:
        item, side, siblings, children = stack.pop()
        if children is None and isinstance(item, tuple):
            below = [(child, i) for i, child in enumerate(item) if child is not None]
            if not below:
                raise ValueError(f"{name}: expected tuples of at least one child, got {item!r}")
            gaps |= len(below) < len(item)
            children = []
            stack.append((item, side, siblings, children))
            stack.extend((child, i, children, None) for child, i in reversed(below))
            continue
        siblings.append(len(parents))
        for child in children or ():
            parents[child] = len(parents)
        if children is None:
            values.append(item)
        parents.append(-1)
        sides.append(side)
    return parents, sides, gaps
