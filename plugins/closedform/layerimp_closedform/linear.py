"""The healer `linear`: a least-squares fit at each gap, folded into the last linear map before the gap (ReplaceMe)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from pydantic import Field

from layerimp.errors import NonFiniteError
from layerimp.healer import Case, Effort, Gap, Repair, Scope
from layerimp.healing import replace, states, stream_scaled, trying
from layerimp_closedform.fits import NormFit, PlainFit, Values, fit_of
from layerimp_closedform.rescale import GapByGap, Jump, RescaleConfig, applied, rescaled, why_not_scaled


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

    def effort(self, scope: Scope) -> Effort:
        """Return the work: at each gap, half of both models on the text, and the loss for each factor and ridge."""
        tried = scope.held_out * (2 + len(self.config.shares) + len(self.config.ridges))
        tokens = scope.gaps * (scope.rows + tried) * scope.length
        return Effort(tokens, scope.gaps * tried * scope.length)

    def repair(self, case: Case, gap: Gap, total: float) -> Repair:
        """Fit at the gap, and scale the stream there if that does not help."""
        config = self.config
        if gap.writer is None:
            return rescaled(case, gap, total, config.shares, why=gap.obstacle)
        fit, jump = fit_of(gap.writer)(case.pruned.model, gap.writer, total), Jump()
        for state in states(case, gap, case.batches):
            fit.add(state)
            jump.add(state)
        few = ""
        if jump.tokens < fit.features:
            few = f"{jump.tokens:,} tokens for {fit.features:,} unknowns of each output"
            case.progress.note(f"{gap}: {few}; more text would help")
        factors = [] if why_not_scaled(case, gap) else jump.factors(total, config.shares)
        before = case.loss()
        search = _Search(case, gap, fit)
        search.over([1.0, *factors], config.ridges)
        after = None if search.loss >= before.mean else applied(case, gap, search.factor, search.values, before)
        if after is None:
            why = "; ".join(filter(None, ("least squares does not clearly lower the held-out loss", few)))
            return rescaled(case, gap, total, config.shares, jump=jump, why=why)
        numbers = {"factor": search.factor, "loss_before": before.mean, "loss_after": after.mean}
        if search.ridge is None:
            return Repair(gap, "diagonal", few, numbers)
        return Repair(gap, self.name, few, numbers | {"ridge": search.ridge})


class _Search:
    """A search for the fit with the lowest held-out loss at a gap.

    Attributes:
        loss: The lowest held-out loss so far.
        values: The new parameters of the best fit.
        factor: The factor on the stream of the best fit.
        ridge: The ridge of the best fit; None if only the norm was fitted.
    """

    def __init__(self, case: Case, gap: Gap, fit: PlainFit | NormFit) -> None:
        self._case, self._gap, self._fit = case, gap, fit
        self.loss, self.factor = float("inf"), 1.0
        self.ridge: float | None = None
        self.values: Values = {}

    def over(self, factors: Sequence[float], ridges: Sequence[float]) -> None:
        """Try the factors with the middle ridge; then, with the best factor, other ridges and the norm alone."""
        middle = len(ridges) // 2
        for factor in factors:
            self._try(partial(self._fit.values, factor, ridges[middle]), factor, ridges[middle])
        for onwards in (ridges[:middle][::-1], ridges[middle + 1 :]):
            if self.ridge == ridges[middle]:
                self._follow(onwards)
        if isinstance(self._fit, NormFit):
            self._try(partial(self._fit.norm_values, self.factor), self.factor, None)

    def _follow(self, ridges: Sequence[float]) -> None:
        """Try ridges in order until one fails to improve on the best fit."""
        for ridge in ridges:
            self._try(partial(self._fit.values, self.factor, ridge), self.factor, ridge)
            if self.ridge != ridge:
                return

    def _try(self, fitted: Callable[[], Values], factor: float, ridge: float | None) -> None:
        """Try a fit, and keep it if its loss is the lowest so far."""
        case = self._case
        with trying(case.pruned.model), ExitStack() as undo:
            if factor != 1:
                undo.enter_context(stream_scaled(case.pruned, self._gap, factor))
            try:
                values = fitted()
                for path, value in values.items():
                    replace(case.pruned.model, path, value)
                loss = case.loss().mean
            except NonFiniteError:  # the fit has no solution, or overflows the model's dtype
                return
        if loss < self.loss:
            self.loss, self.values, self.factor, self.ridge = loss, values, factor, ridge
