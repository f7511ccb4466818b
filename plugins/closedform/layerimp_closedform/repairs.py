"""The repairs of gaps, each fitted on the intact model's states at both ends of its gap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from layerimp.errors import NonFiniteError
from layerimp.healing import intact_states, replace
from layerimp.models import stored_dtype
from layerimp_closedform.fits import fit_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from layerimp.blocks import BlockStack
    from layerimp.healer import Gap
    from layerimp.sweep import Batch
    from layerimp_closedform.fits import Fit, Values

AT_ONCE = 1 << 31
"""The size of all sums and states that are collected in one pass, in bytes, unless a single gap needs more. The sums
for one gap of a model of 7 billion parameters have 1.7 GB; those for 30 gaps of SmolLM2-135M have 1 GB."""


class Repairs:
    """The repairs of the gaps of a model, by what was removed. They are fitted when they are needed.

    Args:
        stack: The blocks of the intact model.
        batches: The text to fit on.
        ridge: The ridge of every fit.
    """

    def __init__(self, stack: BlockStack, batches: Sequence[Batch], ridge: float) -> None:
        self._stack, self._batches, self._ridge = stack, batches, ridge
        self._tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        self._values: dict[tuple[object, ...], Values] = {}

    def fit(self, gaps: Sequence[Gap]) -> None:
        """Fit the repairs of gaps, unless they are known; the model has to be intact."""
        new = {gap.removed: gap for gap in gaps if gap.removed not in self._values}
        values: dict[tuple[object, ...], Values] = {removed: {} for removed in new}
        model = self._stack.model
        fits = ((gap, fit_of(gap.writer)(model, gap.writer)) for gap in new.values() if gap.writer is not None)
        for part in self._parts(fits):
            damaged = set()  # a block that adds nothing leaves nothing to repair
            for states in intact_states(self._stack, [gap for gap, _ in part], self._batches):
                for (gap, fit), state in zip(part, states, strict=True):
                    fit.add(state)
                    if not torch.equal(state.stream, state.target):
                        damaged.add(gap.removed)
            values |= {gap.removed: self._solved(fit) for gap, fit in part if gap.removed in damaged}
        self._values |= values

    def of(self, gap: Gap) -> Tensor:
        """Return whether there is a repair of a gap [], a truth value."""
        return torch.tensor(bool(self._values[gap.removed]))

    def put(self, gap: Gap) -> bool:
        """Write the repair of a gap into the model, and return whether there is one."""
        values = self._values[gap.removed]
        for path, value in values.items():
            replace(self._stack.model, path, value)
        return bool(values)

    def _solved(self, fit: Fit) -> Values:
        """Return the new parameters; none if the fit has no solution, or one that overflows."""
        dtype = stored_dtype(self._stack.model)  # as `replace` rounds; a model may compute in a dtype twice as wide
        try:
            values = fit.values(1.0, self._ridge)
        except NonFiniteError:
            return {}
        rounded = {path: value.to(dtype) for path, value in values.items()}
        return rounded if all(bool(value.isfinite().all()) for value in rounded.values()) else {}

    def _parts(self, fits: Iterable[tuple[Gap, Fit]]) -> Iterator[list[tuple[Gap, Fit]]]:
        """Divide fits into parts that need no more than `AT_ONCE` bytes, or hold a single fit."""
        part: list[tuple[Gap, Fit]] = []
        size = 0
        for gap, fit in fits:
            own = fit.nbytes(self._tokens)
            if part and size + own > AT_ONCE:
                yield part
                part, size = [], 0
            part.append((gap, fit))
            size += own
        if part:
            yield part
