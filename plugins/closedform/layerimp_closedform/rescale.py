"""The healer `rescale`: one factor for each gap (Prune&Comp, arXiv:2507.18212)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from pydantic import Field

from layerimp import Healer
from layerimp.component import Options
from layerimp.errors import ModelError, NonFiniteError
from layerimp.fidelity import Distance, Loss
from layerimp.healer import Case, Gap, Repair, Scope
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


@dataclass
class AtGap:
    """The repair of a gap, with the earlier gaps repaired.

    Attributes:
        case: The models and the text.
        gap: The gap.
        total: The factor by which the stream was scaled at earlier gaps.
        before: The held-out loss.
        best: The change with the lowest held-out loss so far; at first no change.
        after: That loss.
    """

    case: Case
    gap: Gap
    total: float
    before: Loss
    best: Change = field(default_factory=Change)

    def __post_init__(self) -> None:
        self.after = self.before

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

    def attempt(self, change: Callable[[], Change]) -> None:
        """Measure the held-out loss after a change, which is undone. A change without finite values is passed over."""
        model = self.case.pruned.model
        with trying(model), ExitStack() as undo, suppress(NonFiniteError):
            made = change()
            if made.factor != 1:
                undo.enter_context(stream_scaled(self.case.pruned, self.gap, made.factor))
            made.write(self.case)
            loss = self.case.loss()
            if loss.mean < self.after.mean:
                self.best, self.after = made, loss

    def keep(self) -> bool:
        """Make the best change, if it clearly lowers the held-out loss, and return whether it was made."""
        with trying(self.case.pruned.model) as keep:
            self.best.write(self.case)
            if self.best.factor != 1:
                scale_stream(self.case.pruned, self.gap, self.best.factor)
                self.after = self.case.loss()
            if kept := self.after.is_clearly_below(self.before):
                keep()
            else:
                self.best, self.after = Change(), self.before
        return kept

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
            for factor in jump.factors(self.total, shares):
                self.attempt(partial(Change, factor))
            if self.keep():
                return self.report("rescale", why)
            lacking = "no factor clearly lowers the held-out loss"
        return Repair(self.gap, "nothing", "; ".join(filter(None, (why, lacking)))), self.before

    def report(self, done: str, why: str = "") -> tuple[Repair, Loss]:
        """Return the report of the best change, which was kept, and the loss after it."""
        numbers = {"factor": self.best.factor, "loss_before": self.before.mean, "loss_after": self.after.mean}
        ridge = {} if self.best.ridge is None else {"ridge": self.best.ridge}
        return Repair(self.gap, done, why, numbers | ridge), self.after


class GapByGap(Healer):
    """The base class of healers that repair one gap after the other, on the stream as healed at the earlier gaps.

    If several repairs together do not bring the model nearer to the intact one, each has to do so by itself.
    """

    def heal(self, case: Case) -> list[Repair]:
        """Repair each gap."""
        if len(case.gaps) == 1:
            return self._repaired(case)
        start = case.distance()
        with trying(case.pruned.model) as keep:
            repairs = self._repaired(case)
            single = sum(repair.done != "nothing" for repair in repairs) < 2
            if single or case.distance().is_better_than(start):
                keep()
                return repairs
        return self._repaired(case, start)

    def _repaired(self, case: Case, start: Distance | None = None) -> list[Repair]:
        """Repair each gap; with the distance at the start, a repair is kept only if it clearly makes that less."""
        total, loss, before, repairs = 1.0, case.loss(), start, []
        with case.progress.stage(self.name, len(case.gaps), unit="gaps") as advance:
            for gap in case.gaps:
                with trying(case.pruned.model) as keep:
                    repair, after = self.repair(AtGap(case, gap, total, loss))
                    if start and before and repair.done != "nothing":
                        distance = case.distance()
                        if distance.is_better_than(before) and not distance.is_worse_than(start):
                            before = distance
                        else:
                            why = f"{repair.done} was taken back: {distance.words(before)}"
                            repair, after = Repair(gap, "nothing", why), loss
                    if repair.done != "nothing":
                        keep()
                loss = after
                repairs.append(repair)
                total *= repair.numbers.get("factor", 1.0)
                advance(1)
        return repairs

    def tokens(self, scope: Scope, rows: int) -> float:
        """Both models read the text, and at each gap each value is tried on an eighth of it, from there on."""
        tried = 1 + len(self.config.shares) + len(getattr(self.config, "ridges", ()))
        return (2 + scope.gaps * tried / 16) * rows * scope.length

    @abstractmethod
    def repair(self, at: AtGap) -> tuple[Repair, Loss]:
        """Repair a gap, and return the report and the held-out loss after it."""


class Rescale(GapByGap):
    """Scales the residual stream at each gap by the jump in its magnitude, if that lowers the held-out loss."""

    name = "rescale"
    reference = "Prune&Comp, arXiv:2507.18212; here the factor goes into what is written later"
    Config = RescaleConfig

    def repair(self, at: AtGap) -> tuple[Repair, Loss]:
        """Find the gap's factor."""
        return at.rescaled(self.config.shares)
