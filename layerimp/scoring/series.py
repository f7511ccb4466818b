"""The series of units that are scored, such as blocks and seams, and how the scores of two series are joined."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from layerimp.errors import ModelError, OptionError
from layerimp.registry.attribution import attributing
from layerimp.scorer import Importance, Kind, Scorer
from layerimp.steps import Cuts, Step, candidates, sublayer_units, sublayers_of

Units = Cuts | Literal["sublayers"]
"""What is scored: whole blocks, blocks and seams (`all`), or attention and MLP apart."""


@dataclass(frozen=True)
class ScoredSeries:
    """Units that are scored side by side.

    Attributes:
        what: The plural name of the units, such as `seams`.
        steps: The units, as steps.
        kind: The kind of unit, which the scorers have to support; None for blocks.
    """

    what: str
    steps: Sequence[Step]
    kind: Kind | None = None

    def take(self, label: str, scorer: Scorer) -> None:
        """Tell a scorer which units it scores.

        Raises:
            ModelError: the scorer cannot score units of this kind.
            OptionError: the scorer was made for another number of units.
        """
        with attributing("scorer", label, type(scorer)):
            reason = scorer.refusal(self.kind) if self.kind else None
        if reason:
            whom = "seams" if self.kind == "seam" else "attention and MLP apart"
            raise ModelError(f"scorer {label!r} cannot score {whom}: {reason}")
        if scorer.num_blocks != len(self.steps):
            expected = f"there are {len(self.steps)} ({self.what})"
            raise OptionError(f"scorer {label!r} was made for {scorer.num_blocks} blocks; {expected}")
        scorer.steps = self.steps


def series_of(
    units: Units, removed: Iterable[Step], num_blocks: int, among: Collection[Step] | None = None
) -> tuple[ScoredSeries, ScoredSeries]:
    """Return the two series of what is scored without the steps `removed`; the second may be empty.

    Args:
        units: What is scored.
        removed: The removed steps.
        num_blocks: The number of blocks of the intact model.
        among: The blocks and seams to choose from; None for all.
    """
    if units == "sublayers":
        attention, mlp = sublayer_units(removed, num_blocks)
        return ScoredSeries("attention", attention, "sublayer"), ScoredSeries("MLP", mlp, "sublayer")
    blocks, seams = (
        [step for step in steps if among is None or step in among] for steps in candidates(removed, num_blocks, units)
    )
    return ScoredSeries("blocks", blocks), ScoredSeries("seams", seams, "seam")


def joined(first: Importance, second: Importance, what: str) -> Importance:
    """Join the importance of two series into one, in depth order."""
    steps = [*first.blocks, *second.blocks]
    order = sorted(range(len(steps)), key=lambda at: sublayers_of(steps[at]))

    def merged(first: Sequence[float], second: Sequence[float]) -> list[float]:
        values = [*first, *second]
        return [values[at] for at in order]

    windows = {n: (first.spans[n], second.spans[n]) for n in first.spans.keys() & second.spans.keys()}
    return Importance(
        scores=merged(first.scores, second.scores),
        blocks=[steps[at] for at in order],
        columns={
            name: merged(first.columns[name], second.columns[name]) for name in first.columns if name in second.columns
        },
        spans={n: _in_turns(*pair) for n, pair in sorted(windows.items()) if len(pair[0]) == len(pair[1]) + 1},
        notes=(*first.notes, *(f"{what}: {note}" for note in second.notes if note not in first.notes)),
    )


def _in_turns(even: Sequence[float], odd: Sequence[float]) -> list[float]:
    """Interleave the values of two lists, beginning with `even`, which has one value more than `odd`."""
    return [value for pair in zip(even, [*odd, math.nan], strict=True) for value in pair][:-1]
