"""The healer `rescale`: one factor for each gap (Prune&Comp, arXiv:2507.18212)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from layerimp import Healer
from layerimp.component import Options
from layerimp.errors import ModelError, NonFiniteError
from layerimp.healer import Case, Effort, Gap, Loss, Repair, Scope
from layerimp.healing import State, replace, scale_stream, states, stream_scaled, trying
from layerimp_closedform.fits import lengths

if TYPE_CHECKING:
    from torch import Tensor

ALMOST_ONE = 1e-3
"""A factor that differs from 1 by no more than this is not tried."""


class RescaleConfig(Options):
    """The options of `rescale`: the factors to try."""

    shares: tuple[float, ...] = Field(
        (1.0, 0.5),
        min_length=1,
        description="Powers of the jump in magnitude to try as the factor; the factor with the lowest held-out loss "
        "is kept, if it clearly lowers the loss.",
    )


class Jump:
    """The jump in magnitude at a gap: the geometric mean, over tokens, of the target's length over the stream's.

    Args:
        seen: The states of both models at the gap, one per batch; more can be added with `add`.

    Attributes:
        tokens: The number of tokens so far.
    """

    def __init__(self, seen: Iterable[State] = ()) -> None:
        self.tokens = 0
        self._logarithms = 0.0
        for state in seen:
            self.add(state)

    def add(self, state: State) -> None:
        """Add the states of both models at the gap in one batch."""
        self._logarithms += float((lengths(state.target) / lengths(state.stream)).log().sum())
        self.tokens += len(state.stream)

    def factors(self, total: float, shares: Sequence[float]) -> list[float]:
        """Return the factors to try, without those that are almost 1.

        Args:
            total: The factor by which the stream was scaled at earlier gaps; the weights hold the stream divided by it.
            shares: Powers of the jump.
        """
        jump = math.exp(self._logarithms / self.tokens) / total
        return [factor for share in shares if abs((factor := jump**share) - 1) > ALMOST_ONE]


@dataclass(frozen=True)
class Change:
    """A change at a gap.

    Attributes:
        factor: The factor on the stream at the gap; 1 leaves the stream as it is.
        values: New parameters, by path.
        ridge: The ridge of their fit; None if there is none.
    """

    factor: float = 1.0
    values: Mapping[str, Tensor] = field(default_factory=dict)
    ridge: float | None = None

    def write(self, case: Case) -> None:
        """Write the new parameters into the pruned model."""
        for path, value in self.values.items():
            replace(case.pruned.model, path, value)


@dataclass(frozen=True)
class AtGap:
    """The repair of a gap, with the earlier gaps repaired.

    Attributes:
        case: The models and the text.
        gap: The gap.
        total: The factor by which the stream was scaled at earlier gaps.
        before: The held-out loss.
    """

    case: Case
    gap: Gap
    total: float
    before: Loss

    @cached_property
    def obstacle(self) -> str:
        """Why the stream cannot be scaled at the gap; empty if it can."""
        if self.gap.after is None:
            return "the final norm comes next, and cancels any factor"
        try:
            with trying(self.case.pruned.model):
                scale_stream(self.case.pruned, self.gap, 2.0)
        except ModelError as error:
            return str(error)
        return ""

    def improved(self, changes: Iterable[Change]) -> tuple[Change, Loss] | None:
        """Make the change with the lowest held-out loss, and keep it if the loss is clearly lower.

        Returns:
            The change, and the loss after it; None if no change is kept.
        """
        case, best, least = self.case, Change(), self.before
        for change in changes:
            with trying(case.pruned.model), ExitStack() as undo, suppress(NonFiniteError):  # a value may overflow
                if change.factor != 1:
                    undo.enter_context(stream_scaled(case.pruned, self.gap, change.factor))
                change.write(case)
                loss = case.loss()
                if loss.mean < least.mean:
                    best, least = change, loss
        with trying(case.pruned.model) as keep:
            best.write(case)
            if best.factor != 1:
                scale_stream(case.pruned, self.gap, best.factor)
                least = case.loss()
            if not least.is_clearly_below(self.before):
                return None
            keep()
        return best, least

    def rescaled(self, shares: Sequence[float], jump: Jump | None = None, why: str = "") -> tuple[Repair, Loss]:
        """Scale the stream, if that clearly lowers the held-out loss.

        Args:
            shares: Powers of the jump in magnitude to try.
            jump: The jump in magnitude, if it is known already; None measures the jump.
            why: The reason for scaling instead of another repair; reported with the repair.

        Returns:
            The repair, `rescale` or `nothing`, and the loss after it.
        """
        lacking = self.obstacle
        if not lacking:
            jump = jump or Jump(states(self.case, self.gap, self.case.batches))
            if kept := self.improved(map(Change, jump.factors(self.total, shares))):
                return self.report("rescale", why, *kept)
            lacking = "no factor clearly lowers the held-out loss"
        return Repair(self.gap, "nothing", "; ".join(filter(None, (why, lacking)))), self.before

    def report(self, done: str, why: str, change: Change, after: Loss) -> tuple[Repair, Loss]:
        """Return the report of a change that is kept, and the loss after it."""
        numbers = {"factor": change.factor, "loss_before": self.before.mean, "loss_after": after.mean}
        return Repair(self.gap, done, why, numbers | ({} if change.ridge is None else {"ridge": change.ridge})), after


class GapByGap(Healer):
    """The base class of healers that repair one gap after the other, on the stream as healed at the earlier gaps."""

    def heal(self, case: Case) -> list[Repair]:
        """Repair each gap."""
        total, loss, repairs = 1.0, case.loss(), []
        with case.progress.stage(self.name, len(case.gaps), unit="gaps") as advance:
            for gap in case.gaps:
                repair, loss = self.repair(AtGap(case, gap, total, loss))
                repairs.append(repair)
                total *= repair.numbers.get("factor", 1.0)
                advance(1)
        return repairs

    @abstractmethod
    def repair(self, at: AtGap) -> tuple[Repair, Loss]:
        """Repair a gap, and return the report and the held-out loss after it."""


class Rescale(GapByGap):
    """Scales the residual stream at each gap by the jump in its magnitude, if that lowers the held-out loss."""

    name = "rescale"
    reference = "Prune&Comp, arXiv:2507.18212; here the factor goes into what is written later"
    Config = RescaleConfig

    def effort(self, scope: Scope) -> Effort:
        """Return the work: both models once on the text, and at each gap the loss for each factor from the gap on."""
        tried = scope.gaps * scope.held_out * (1 + len(self.config.shares)) * scope.length
        return Effort(2 * scope.rows * scope.length + tried / 2, tried)

    def repair(self, at: AtGap) -> tuple[Repair, Loss]:
        """Find the gap's factor."""
        return at.rescaled(self.config.shares)
