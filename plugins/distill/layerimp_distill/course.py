"""The limits of a training, and what its checks measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from layerimp.fidelity import Distance
    from layerimp_distill.options import DistillConfig

CHECKING = 0.2
"""The largest share of a time limit that checks may take, about."""
AFTER = 2.5
"""The last check, the measurement after the training, and the losses, in measurements of the distance."""
MEASURING = 0.5
"""The largest share of a time limit that other work takes from a training that begins."""
LOST = 1.5
"""A distance that is so many times that of the start is not waited for to fall again."""


@dataclass(frozen=True)
class Limits:
    """The limits on a training; the first limit that is reached ends the training.

    Attributes:
        steps: The most training steps; None sets no limit.
        tokens: The most tokens read; None sets no limit.
        minutes: The longest training time, in minutes; None sets no limit.
    """

    steps: int | None
    tokens: int | None
    minutes: float | None

    @classmethod
    def of(cls, config: DistillConfig, seconds: float, lost: float, trained: float = 0.0) -> Limits:
        """Return the limits in force, of which the time is what remains for training: at first half of it or more.

        Args:
            config: The options.
            seconds: How long a measurement of the distance takes.
            lost: The time spent so far on anything else, such as the measurements before, in seconds.
            trained: The training time so far, in seconds; this much remains at least, so that the training ends.
        """
        minutes = config.minutes
        if minutes is not None:
            minutes = max(minutes - (lost + AFTER * seconds) / 60, trained / 60 or MEASURING * minutes)
        return cls(config.steps, config.tokens, minutes)

    def spent(self, steps: int, tokens: int, seconds: float) -> float:
        """Return the share of the training that is over."""
        pairs = ((steps, self.steps), (tokens, self.tokens), (seconds / 60, self.minutes))
        return max(used / limit for used, limit in pairs if limit is not None)


class Check(NamedTuple):
    """A measurement in the course of a training.

    Attributes:
        steps: The number of steps so far.
        tokens: The number of tokens read so far.
        seconds: The training time so far, in seconds.
        rate: The peak learning rate in force.
        distance: How far the model is from the intact one.
    """

    steps: int
    tokens: int
    seconds: float
    rate: float
    distance: Distance


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Attributes:
        start: How far the model was from the intact one before the training.
        given: The same before the healer that went first; nothing may become worse than it was then either.
        checks: The measurements, in their order.
    """

    start: Distance
    given: Distance
    checks: tuple[Check, ...] = ()

    @property
    def best(self) -> Check | None:
        """The check nearest to the intact model; None if none is nearer than the start and worse in nothing."""
        nearer = [check for check in self.checks if self._advances(check.distance)]
        return min(nearer, key=lambda check: check.distance.relative_to(self.start), default=None)

    def _advances(self, distance: Distance) -> bool:
        """Whether a step may be kept: it is nearer than the start, and worse in nothing."""
        return distance.relative_to(self.start) < 1 and not any(map(distance.is_worse_than, (self.start, self.given)))

    def is_lost(self, left: int) -> bool:
        """Whether the last check is worse than the start, and too slow to come back to it before the training ends.

        The first steps at a high rate often cost what the later ones bring back, as the rate falls. So in the first
        half of its checks a rate is lost only from `LOST` on. Then the pace decides, which is that since the check
        before.

        Args:
            left: How many checks are to come.
        """
        *before, last = self.checks
        now = last.distance.relative_to(self.start)
        same = [check.distance.relative_to(self.start) for check in before if check.rate == last.rate]
        lost = now >= LOST if len(same) < left else now - left * (same[-1] - now) >= 1
        return lost and last.distance.is_worse_than(self.start)

    @property
    def peak(self) -> float:
        """The largest distance at a check, relative to the start."""
        return max((check.distance.relative_to(self.start) for check in self.checks), default=1.0)
