"""Units of scoring: a block, a seam or a single sublayer, and where in the residual stream it begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from layerimp.steps import Step, Sublayer, removed_by, sublayers_of

if TYPE_CHECKING:
    from torch import Tensor


class Point(NamedTuple):
    """A place in the residual stream, named by a block.

    Attributes:
        block: The block's index.
        side: The place: the block's input, its middle between attention and MLP, or its output.
    """

    block: int
    side: Literal["input", "middle", "output"]


Show = Callable[[Point, "Tensor"], None]
"""Takes a place in the residual stream, and the hidden states there [batch, seq, hidden]."""


@dataclass(frozen=True)
class Unit:
    """Sublayers that get one score together. They are neighbours in the model without the removed steps.

    Attributes:
        step: The unit as text or number: a block's index, a seam such as `17/18`, or a sublayer such as `7.attn`.
        begin: Where in the residual stream the unit begins.
        end: Where the unit ends.
    """

    step: Step
    begin: Point
    end: Point

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """The sublayers, in depth order."""
        return sublayers_of(self.step)

    @property
    def divided(self) -> set[int]:
        """The blocks of which only one half is in the unit."""
        return set() if isinstance(self.step, int) else {sublayer.block for sublayer in self.sublayers}


def units_of(steps: Iterable[Step], removed: Iterable[Step] = ()) -> list[Unit]:
    """Return steps, or single sublayers, as units of a model without the steps `removed`.

    If a block has lost one half, the other half ends where the block ends, so that nothing inside it has to be read.
    """
    bypassed, series = removed_by(removed), [(step, sublayers_of(step)) for step in steps]
    return [Unit(step, _begin(parts[0], bypassed), _end(parts[-1], bypassed)) for step, parts in series]


def _begin(first: Sublayer, bypassed: Collection[Sublayer]) -> Point:
    inside = first.part == "mlp" and Sublayer(first.block, "attn") not in bypassed
    return Point(first.block, "middle" if inside else "input")


def _end(last: Sublayer, bypassed: Collection[Sublayer]) -> Point:
    inside = last.part == "attn" and Sublayer(last.block, "mlp") not in bypassed
    return Point(last.block, "middle" if inside else "output")
