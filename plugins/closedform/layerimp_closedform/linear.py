"""The healer `linear`: a least-squares fit at each gap, folded into the last linear map before the gap (ReplaceMe)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from layerimp.healer import Repair
from layerimp.healing import states
from layerimp_closedform.fits import Fit, NormFit, fit_of
from layerimp_closedform.rescale import AtGap, Change, GapByGap, Jump, RescaleConfig

if TYPE_CHECKING:
    from layerimp.fidelity import Loss


class LinearConfig(RescaleConfig):
    """The options of `linear`: the factors and the ridges to try."""

    ridges: tuple[float, ...] = Field(
        (0.0003, 0.003, 0.03, 0.3),
        min_length=1,
        description="The ridges to try, in ascending order, in units of the mean square of the map's input. Factors "
        "are tried with the middle ridge. Then smaller ridges are tried for as long as the loss falls, and larger ones "
        "if no smaller ridge helps.",
    )


class Linear(GapByGap):
    """Fits the last linear map before each gap to make up for the removed blocks, if that lowers the held-out loss."""

    name = "linear"
    reference = "ReplaceMe, arXiv:2505.02819; here weighted, together with a factor and through a norm"
    Config = LinearConfig

    def repair(self, at: AtGap) -> tuple[Repair, Loss]:
        """Fit at the gap, and scale the stream there if that does not help."""
        case, gap, shares = at.case, at.gap, self.config.shares
        if gap.writer is None:
            return at.rescaled(shares, why=gap.obstacle)
        fit, jump = fit_of(gap.writer)(case.pruned.model, gap.writer, at.total), Jump()
        for state in states(case, gap, case.batches):
            fit.add(state)
            jump.add(state)
        if jump.tokens < fit.features:
            few = f"{jump.tokens:,} tokens for {fit.features:,} unknowns of each output"
            case.progress.note(f"{self.name}: {gap}: {few}; more text helps (--samples)")
        factors = [] if at.obstacle else jump.factors(at.total, shares)
        self._search(at, fit, [1.0, *factors])
        if at.keep():
            return at.report("diagonal" if at.best.ridge is None else self.name)
        return at.rescaled(shares, jump, "least squares does not clearly lower the held-out loss")

    def _search(self, at: AtGap, fit: Fit, factors: Sequence[float]) -> None:
        """Try the factors with the middle ridge; then, with the best factor, other ridges and the norm alone."""

        def attempt(factor: float, ridge: float) -> None:
            at.attempt(lambda: Change(factor, fit.values(factor, ridge), ridge))

        ridges = self.config.ridges
        middle = len(ridges) // 2
        for factor in factors:
            attempt(factor, ridges[middle])
        # On little text the middle ridge may be too small to help at all.
        for onwards, go_on in ((ridges[:middle][::-1], set[float | None]()), (ridges[middle + 1 :], {None})):
            last = ridges[middle]
            for ridge in onwards:
                if at.best.ridge not in {last, *go_on}:  # this one fails to improve on the best
                    break
                attempt(at.best.factor, last := ridge)
        if isinstance(fit, NormFit):
            factor = at.best.factor
            at.attempt(lambda: Change(factor, fit.norm_values(factor)))
