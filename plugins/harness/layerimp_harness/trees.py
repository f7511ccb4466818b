"""Rows with a common beginning as one tree of tokens, so that each token is computed once, in a single forward.

A token attends to its ancestors alone, and its position is its depth. So the logits of each branch are those of the row
by itself (tree attention, as in Miao et al. 2024, arXiv:2305.09781).
"""

from __future__ import annotations

import inspect
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp_harness.rows import Row

_FREE = 4096
"""Between so many pairs of tokens in different branches, attention takes as long as one token in the rest of a small
model. These pairs are computed, and count for nothing."""
_WIDEST = 2
"""The most logits of a tree, as a multiple of its longest row: a tree takes about the memory of one row in lm-eval,
which makes the logits of all tokens and normalises a copy of them."""


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
    def start(self) -> int:
        """The first place whose logits are read."""
        return min(path[row.start] for row, path in zip(self.rows, self.paths, strict=True))

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
        logits = size + more - min(self.start, row.start)
        longest = max(self.depth, len(row.tokens))
        return size + more <= limit and logits <= _WIDEST * longest and common * _FREE > more * size

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


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two rows have in common from the first one on."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(map(len, (one, other)))
    )


class Forest:
    """Computes the logits of trees.

    Args:
        model: A decoder-only model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._accepted = inspect.signature(model.forward).parameters
        config = getattr(model, "config", None)
        self._kinds = frozenset(getattr(config, "layer_types", None) or ())
        self._window = getattr(config, "sliding_window", None)

    @property
    def possible(self) -> bool:
        """Whether the model accepts the necessary arguments; whether the results are right has to be tested."""
        return self._accepted.keys() >= {"attention_mask", "position_ids"}

    @property
    def slices(self) -> bool:
        """Whether the model makes the logits of some positions alone."""
        return "logits_to_keep" in self._accepted

    def logits(self, trees: Sequence[Tree]) -> Iterator[tuple[Row, Tensor, Tensor]]:
        """Yield each row with the logits of its tree [place, vocab] and the places of those from its start on."""
        longest = max(len(tree.tokens) for tree in trees)
        ids = torch.zeros(len(trees), longest, dtype=torch.long)  # padding on the left: what is read is on the right
        positions = torch.zeros_like(ids)
        sees = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)
        for number, tree in enumerate(trees):
            padding = longest - len(tree.tokens)
            ids[number, padding:] = torch.tensor(tree.tokens)
            positions[number, padding:] = tree.depths()
            sees[number, padding:, padding:] = tree.attends()
        kept = max(len(tree.tokens) - tree.start for tree in trees)
        output = self._forward(ids, positions, sees, kept)
        first = longest - output.shape[1]
        for number, tree in enumerate(trees):
            padding = longest - len(tree.tokens)
            for row, path in zip(tree.rows, tree.paths, strict=True):
                yield row, output[number], torch.tensor(path[row.start :], device=output.device) + padding - first

    def _forward(self, ids: Tensor, positions: Tensor, sees: Tensor, kept: int) -> Tensor:
        """Return the logits of at least the last `kept` places [tree, place, vocab].

        Args:
            ids: The tokens [tree, place].
            positions: The depth of each token [tree, place].
            sees: Whether a token attends to another one [tree, place, place].
            kept: The number of places.
        """
        device = self._model.device
        mask: Any = self._mask(sees).to(device)
        if self._window is not None and int(positions.max()) >= self._window:
            near = sees & (positions[:, :, None] - positions[:, None, :] < self._window)
            windowed = self._mask(near).to(device)
            kinds = {kind: windowed if kind == "sliding_attention" else mask for kind in self._kinds}
            mask = kinds or windowed
        given = {
            "attention_mask": mask,
            "position_ids": positions.to(device),
            "use_cache": False,
            "logits_to_keep": kept,
        }
        given = {name: value for name, value in given.items() if name in self._accepted}
        with torch.no_grad():
            logits: Tensor = self._model(ids.to(device), **given).logits
        return logits

    def _mask(self, sees: Tensor) -> Tensor:
        """Return what is added to the attention scores [tree, 1, place, place]."""
        dtype = self._model.dtype
        return torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[:, None]
