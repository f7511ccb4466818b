"""A series of units, such as the blocks or the seams: its scorers, and how the scores of two series are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerimp.errors import ModelError, OptionError
from layerimp.registry.attribution import attributing
from layerimp.scorer import Importance, Kind, Scorer
from layerimp.steps import sublayers_of

if TYPE_CHECKING:
    from layerimp.steps import Step


@dataclass(frozen=True)
class ScoredSeries:
    """A series of units and its scorers.

    Attributes:
        what: The plural name of the units, such as `seams`.
        steps: The units, as steps.
        scorers: The scorers, by label.
        kind: The kind of unit, which the scorers have to support; None for blocks.
    """

    what: str
    steps: Sequence[Step]
    scorers: Mapping[str, Scorer]
    kind: Kind | None = None

    def check(self) -> None:
        """Check that the scorers can score the units.

        Raises:
            ModelError: a scorer cannot score units of this kind.
            OptionError: a scorer was made for another number of units.
        """
        for label, scorer in self.scorers.items():
            with attributing("scorer", label, type(scorer)):
                reason = scorer.refusal(self.kind) if self.kind else None
            if reason:
                whom = "seams" if self.kind == "seam" else "attention and MLP apart"
                raise ModelError(f"scorer {label!r} cannot score {whom}: {reason}")
            if scorer.num_blocks != len(self.steps):
                expected = f"there are {len(self.steps)} ({self.what})"
                raise OptionError(f"scorer {label!r} was made for {scorer.num_blocks} blocks; {expected}")
            scorer.steps = self.steps


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
