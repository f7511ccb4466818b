"""Short trainings from the same start, which find the learning rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerimp.errors import NonFiniteError
from layerimp_distill.course import Limits, advances
from layerimp_distill.descent import schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from layerimp.fidelity import Distance
    from layerimp_distill.descent import Descent
    from layerimp_distill.text import Text

RATES = (3e-5, 1e-4, 3e-4)
"""The learning rates that are tried."""
MIDDLE = RATES[len(RATES) // 2]
"""The rate where trials do not decide."""
FEWEST = 5
"""A trial of fewer steps says nothing."""
SHARE = 0.1
"""The largest share of the training that trials may take."""


@dataclass(frozen=True)
class Trials:
    """The distances from the intact model at the ends of trials.

    Attributes:
        limits: The limits of each trial.
        start: The distance at the start.
        ends: By rate, the distance at the end; None if it is not finite.
    """

    limits: Limits
    start: Distance
    ends: Mapping[float, Distance | None]

    @classmethod
    def run(cls, descent: Descent, text: Text, start: Distance, limits: Limits) -> Trials:
        """Train at each rate, and go back."""
        return cls(limits, start, {rate: _end(descent, text, rate, limits) for rate in RATES})

    @property
    def rate(self) -> float:
        """The rate that came nearest to the intact model; one whose end could be kept comes first.

        It is the middle one if none comes nearer than the start: a few steps at any rate may cost what a long training
        brings back.
        """
        nearer = self._nearer
        return min(
            nearer,
            key=lambda rate: (not advances(nearer[rate], self.start), nearer[rate].relative_to(self.start)),
            default=MIDDLE,
        )

    @property
    def words(self) -> str:
        """What the trials found."""
        shares = {
            rate: f"{end.relative_to(self.start):.1%}"
            + ("" if advances(end, self.start) else " (one divergence is worse)")
            for rate, end in self._nearer.items()
        }
        left = ", ".join(f"{rate:.0e} {shares.get(rate, 'worse')}" for rate in RATES)
        return (
            f"of the distance from the intact model, at most {self.limits.steps} steps at each rate leave: {left}; the "
            f"rate is {self.rate:.0e}"
        )

    @property
    def _nearer(self) -> dict[float, Distance]:
        return {rate: end for rate, end in self.ends.items() if end is not None and end.relative_to(self.start) < 1}


def limits_of_trials(limits: Limits, tokens: int, seconds: float, judging: float) -> Limits | None:
    """Return the limits of each trial, in a tenth of the training; None if that has no room for them.

    Args:
        limits: The limits of the training.
        tokens: The tokens of a step.
        seconds: The time of a step.
        judging: How long a measurement of the distance takes, in seconds.
    """
    share, minutes = SHARE / len(RATES), limits.minutes
    if minutes is not None:
        share -= judging / (60 * minutes)
    steps = int(share / limits.spent(1, tokens, seconds))
    if steps < FEWEST:
        return None
    return Limits(steps, None, None if minutes is None else share * minutes)


def _end(descent: Descent, text: Text, rate: float, limits: Limits) -> Distance | None:
    """Return the distance at the end of a training from the kept values; None if it is not finite."""
    descent.go_back()
    began = time.monotonic()
    try:
        for number, rows in enumerate(text.steps()):
            if (spent := limits.spent(number, 0, time.monotonic() - began)) >= 1:
                break
            descent.step(rows, rate * schedule(spent))
        return descent.distance()
    except NonFiniteError:
        return None
    finally:
        descent.go_back()
