"""The healer `rescale`: one factor for each gap (Prune&Comp, arXiv:2507.18212)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from layerimp import Healer
from layerimp.component import Options
from layerimp.errors import ModelError
from layerimp.healer import Case, Effort, Gap, Repair, Scope
from layerimp.healing import State, replace, scale_stream, states, stream_scaled, trying
from layerimp_closedform.fits import lengths

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.healer import Loss

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


class GapByGap(Healer):
    """The base class of healers that repair one gap after the other, on the stream as healed at the earlier gaps."""

    def heal(self, case: Case) -> list[Repair]:
        """Repair each gap."""
        total, repairs = 1.0, []
        with case.progress.stage(self.name, len(case.gaps), unit="gaps") as advance:
            for gap in case.gaps:
                repairs.append(self.repair(case, gap, total))
                total *= repairs[-1].numbers.get("factor", 1.0)
                advance(1)
        return repairs

    @abstractmethod
    def repair(self, case: Case, gap: Gap, total: float) -> Repair:
        """Repair a gap.

        Args:
            case: The models and the text.
            gap: The gap.
            total: The factor by which the stream was scaled at earlier gaps.
        """


class Rescale(GapByGap):
    """Scales the residual stream at each gap by the jump in its magnitude, if that lowers the held-out loss."""

    name = "rescale"
    reference = "Prune&Comp, arXiv:2507.18212; here the factor goes into what is written later"
    Config = RescaleConfig

    def effort(self, scope: Scope) -> Effort:
        """Return the work: at each gap, half of both models on the text, and the loss for each factor."""
        tried = scope.held_out * (2 + len(self.config.shares))
        tokens = scope.gaps * (scope.rows + tried) * scope.length
        return Effort(tokens, scope.gaps * tried * scope.length)

    def repair(self, case: Case, gap: Gap, total: float) -> Repair:
        """Find the gap's factor."""
        return rescaled(case, gap, total, self.config.shares)


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


def rescaled(
    case: Case, gap: Gap, total: float, shares: Sequence[float], *, jump: Jump | None = None, why: str = ""
) -> Repair:
    """Scale the stream at a gap, if that clearly lowers the held-out loss.

    Args:
        case: The models and the text.
        gap: The gap.
        total: The factor by which the stream was scaled at earlier gaps.
        shares: Powers of the jump in magnitude to try.
        jump: The jump in magnitude, if it is known already; None measures the jump.
        why: The reason for scaling instead of another repair; reported with the repair.

    Returns:
        The repair: `rescale`, or `nothing` if the stream cannot be scaled or no factor clearly lowers the loss.
    """
    if obstacle := why_not_scaled(case, gap):
        return Repair(gap, "nothing", "; ".join(filter(None, (why, obstacle))))
    before = case.loss()
    tried = {1.0: before}
    for factor in (jump or Jump(states(case, gap, case.batches))).factors(total, shares):
        with stream_scaled(case.pruned, gap, factor):
            tried[factor] = case.loss()
    best = min(tried, key=lambda factor: tried[factor].mean)
    after = None if best == 1 else applied(case, gap, best, {}, before)
    if after is None:
        return Repair(gap, "nothing", "; ".join(filter(None, (why, "no factor clearly lowers the held-out loss"))))
    return Repair(gap, "rescale", why, {"factor": best, "loss_before": before.mean, "loss_after": after.mean})


def applied(case: Case, gap: Gap, factor: float, values: Mapping[str, Tensor], before: Loss) -> Loss | None:
    """Write a factor and new parameters into the stored weights, and keep them if the loss is clearly lower.

    Args:
        case: The models and the text.
        gap: The gap.
        factor: The factor on the stream at the gap; 1 leaves the stream as it is.
        values: The new parameters, by path.
        before: The held-out loss before the change.

    Returns:
        The held-out loss after the change; None if it is not clearly below `before` and the change was undone.
    """
    with trying(case.pruned.model) as keep:
        if factor != 1:
            scale_stream(case.pruned, gap, factor)
        for path, value in values.items():
            replace(case.pruned.model, path, value)
        after = case.loss()
        if not after.is_clearly_below(before):
            return None
        keep()
    return after


def why_not_scaled(case: Case, gap: Gap) -> str:
    """Return why the stream cannot be scaled at a gap; an empty string if it can."""
    if gap.after is None:
        return "the final norm comes next, and cancels any factor"
    try:
        with trying(case.pruned.model):
            scale_stream(case.pruned, gap, 2.0)
    except ModelError as error:
        return str(error)
    return ""
