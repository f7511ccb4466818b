"""Rows with a common beginning as one tree of tokens, so that each token is computed once, in a single forward.

A token attends to its ancestors alone, and its position is its depth. So the logits of each branch are those of the row
by itself (tree attention, as in Miao et al. 2024, arXiv:2305.09781).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from layerimp_harness.rows import Row

_PAIRS = 1024
"""Attention between so many tokens of a tree and a new one, in both directions, takes as long as one token in the rest
of a small model. Pairs in different branches are computed as well, and count for nothing."""


@dataclass(frozen=True)
class Tree:
    """Rows with a common beginning.

    Attributes:
        rows: The rows.
        paths: For each row, the places of its tokens in the tree: those of an earlier row, then its own, without gaps.
        tokens: The tokens of the tree; each comes after those that it follows.
    """

    rows: list[Row]
    paths: list[list[int]]
    tokens: list[int]

    @property
    def depth(self) -> int:
        """The length of the longest row."""
        return max(map(len, self.paths))

    def depths(self) -> Tensor:
        """Return the number of tokens before each token in its rows [place]."""
        depths = torch.zeros(len(self.tokens), dtype=torch.long)
        for path in self.paths:
            depths[path] = torch.arange(len(path))
        return depths

    def attends(self) -> Tensor:
        """Return whether a token attends to another: to itself, and those before it in its rows [place, place]."""
        attends = torch.zeros(len(self.tokens), len(self.tokens), dtype=torch.bool)
        first = 0
        for path in self.paths:
            common = bisect_left(path, first)  # what an earlier row holds already
            own = slice(first, first + len(path) - common)
            if common:
                attends[own] = attends[path[common - 1]]
            attends[own, own] = torch.ones(len(path) - common, len(path) - common, dtype=torch.bool).tril()
            first = own.stop
        return attends

    def takes(self, row: Row, common: int, limit: int) -> bool:
        """Whether it is worth while to add a row.

        Args:
            row: The row.
            common: How many tokens it has in common with the last row of the tree.
            limit: The maximum number of tokens in a tree.
        """
        size, more = len(self.tokens), len(row.tokens) - common
        return size + more <= limit and common * _PAIRS > more * size

    def add(self, row: Row, common: int) -> None:
        """Add a row that has some tokens in common with the last one."""
        size, more = len(self.tokens), row.tokens[common:]
        beginning = self.paths[-1][:common] if self.paths else []
        self.rows.append(row)
        self.paths.append([*beginning, *range(size, size + len(more))])
        self.tokens.extend(more)


def trees_of(rows: Sequence[Row], limit: int) -> list[Tree]:
    """Return trees of the rows, those with the most tokens first. A row without a common beginning is a tree by itself.

    Args:
        rows: The rows, none of which begins another one.
        limit: The maximum number of tokens in a tree of several rows.
    """
    trees: list[Tree] = []
    ordered = sorted(rows, key=lambda row: row.tokens)
    for last, row in pairwise([None, *ordered]):
        assert row is not None
        common = 0 if last is None else _common(last.tokens, row.tokens)
        if not trees or not trees[-1].takes(row, common, limit):
            trees.append(Tree([], [], []))
            common = 0
        trees[-1].add(row, common)
    return sorted(trees, key=lambda tree: -len(tree.tokens))


def _common(row: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two rows have in common from the first one on."""
    return next(
        (place for place, (a, b) in enumerate(zip(row, other, strict=False)) if a != b), min(map(len, (row, other)))
    )
