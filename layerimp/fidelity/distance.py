"""The loss of a model, and its distance from the intact one, on held-out text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from layerimp.metric import clustered_stderr


@dataclass(frozen=True)
class Loss:
    """The loss of a model on held-out text.

    Attributes:
        totals: The loss of each row, in nats, summed over its predictions.
        counts: How many predictions each row has.
        hits: For a classifier, how many rows it labels right; None for a language model.
    """

    totals: Sequence[float]
    counts: Sequence[int]
    hits: int | None = None

    @property
    def mean(self) -> float:
        """Nats per prediction."""
        return math.fsum(self.totals) / sum(self.counts)

    @property
    def accuracy(self) -> float | None:
        """The share of rows that a classifier labels right."""
        return None if self.hits is None else self.hits / len(self.totals)

    def gain_over(self, other: Loss) -> tuple[float, float]:
        """How much lower this loss is than another on the same rows, in nats per prediction, and the standard error.

        The rows are paired. The error is 0 for a single row, and a NaN if a loss is infinite.
        """
        gains = [theirs - ours for ours, theirs in zip(self.totals, other.totals, strict=True)]
        error = clustered_stderr(gains, self.counts) if len(gains) > 1 else 0.0
        return math.fsum(gains) / sum(self.counts), math.nan if error is None else error

    def is_clearly_below(self, other: Loss) -> bool:
        """Whether this loss is lower by more than one standard error of the difference.

        The rule of one standard error (Breiman et al. 1984, section 3.4.3) keeps a choice from following noise.
        """
        gain, error = self.gain_over(other)
        return gain > error


@dataclass(frozen=True)
class Distance:
    """How far a model's predictions are from those of the intact model, on rows that nothing was fitted to.

    Likelihood and copying fail apart from each other, so both decide, each relative to its value at a start.

    Attributes:
        plain: The divergence from the intact model's predictions, as the loss.
        repeated: The same in the second half of rows that hold the same tokens twice; None for a classifier, and if all
            rows are too short.
    """

    plain: Loss
    repeated: Loss | None = None

    def relative_to(self, start: Distance) -> float:
        """Return the mean of the divergences, each divided by its value at a start."""
        return fmean(_ratio(own.mean, other.mean) for own, other in self._beside(start))

    def is_worse_than(self, start: Distance) -> bool:
        """Whether a divergence is larger than at a start by more than one standard error, paired by row."""
        gains = (own.gain_over(other) for own, other in self._beside(start))
        return any(-gain > error for gain, error in gains)

    def is_better_than(self, start: Distance) -> bool:
        """Whether the mean relative to a start is below 1 by more than one standard error, and no divergence is worse.

        The errors of the divergences add up, as they do at most: they are of the same documents.
        """
        errors = [_ratio(own.gain_over(other)[1], other.mean) for own, other in self._beside(start)]
        return 1 - self.relative_to(start) > fmean(errors) and not self.is_worse_than(start)

    def numbers(self, when: str) -> dict[str, float]:
        """Return the mean divergences by name, for a repair; `when` ends the names."""
        parts = {"divergence": self.plain, "repeated": self.repeated}
        return {f"{name}_{when}": part.mean for name, part in parts.items() if part is not None}

    def words(self, start: Distance) -> str:
        """Describe a change, such as `the divergence went from 0.310 to 0.120 nats, on repeated rows from 1 to 0.4`."""
        plain, *again = (f"from {other.mean:.3g} to {own.mean:.3g}" for own, other in self._beside(start))
        return f"the divergence went {plain} nats" + "".join(f", on repeated rows {change}" for change in again)

    def _beside(self, other: Distance) -> list[tuple[Loss, Loss]]:
        pairs = [(self.plain, other.plain)]
        if self.repeated is not None and other.repeated is not None:
            pairs.append((self.repeated, other.repeated))
        return pairs


def _ratio(value: float, start: float) -> float:
    """Return a share of a value at the start, which may be 0."""
    return value / start if start else (math.inf if value else 1.0)
