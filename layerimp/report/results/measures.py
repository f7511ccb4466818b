"""Measured numbers: means over repeats, differences, metrics of one model, and what is retained."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from layerimp.report.results.part import Known, Number, Part

LEVEL = 0.95
"""The confidence level of every interval."""


class Interval(Part):
    """A mean over the repeats, and its 95 % confidence interval."""

    mean: Number
    """The mean; for perplexities the geometric mean."""
    low: Known = None
    """The lower end; null if it is not known, as for a single value, or if a value is infinite."""
    high: Known = None
    """The upper end; null in the same cases."""
    count: int
    """The number of values in the mean."""

    def mapped(self, function: Callable[[float], float]) -> Interval:
        """Return the interval on another scale, given by a monotonically increasing function."""
        low, high = (None if end is None else function(end) for end in (self.low, self.high))
        return Interval(mean=function(self.mean), low=low, high=high, count=self.count)


class Difference(Part):
    """How much greater one figure is than another; for a perplexity in nats per unit, the logarithm of a factor."""

    mean: Number
    """The difference."""
    low: Known = None
    """The lower end of the 95 % interval; null if not known."""
    high: Known = None
    """The upper end; null if not known."""
    p: Known = None
    """The two-sided p-value: the probability of so large a difference between models that do not differ, corrected for
    the number of comparisons in the column (Holm); null if not known."""

    @property
    def tells(self) -> bool:
        """Whether the difference is significant."""
        return self.p is not None and self.p < 1 - LEVEL


class Flips(Part):
    """How many answers are others than those of the intact model, whose accuracy may be the same."""

    share: Known
    """The share of the documents whose answer is another, also from wrong to wrong; for an average of tasks the average
    of their shares. Null if answers are not known, but only whether they are right."""
    stderr: Known
    """The standard error of the share over the documents, which the repeats share; null if not known."""
    to_wrong: Number
    """How many documents went from right to wrong; the mean over the repeats."""
    to_right: Number
    """How many documents went from wrong to right; the mean over the repeats."""


class AveragedPart(Part):
    """A part of an average, such as a task."""

    value: Number
    """The value."""
    stderr: Known
    """The standard error over its documents; null if there is none."""
    floor: Known
    """The value of a model that knows nothing; null if not known."""
    at_floor: bool
    """Whether it is less than two standard errors better than a model that knows nothing, with Bonferroni's correction
    for the number of parts."""


class Measured(Part):
    """One metric of one model."""

    value: Number
    """The number."""
    stderr: Known
    """The standard error over the documents, to first order for a perplexity; null if there is none."""
    ends: tuple[Number, Number] | None
    """The value minus and plus one standard error, which for a perplexity is that of the log-likelihood; null if not
    known."""
    low: Known
    """The lower end of the 95 % confidence interval over the documents, which is computed for the log-likelihood in the
    case of a perplexity; null if not known."""
    high: Known
    """The upper end; null if not known or infinite."""
    documents: int | None
    """How many documents it was measured on; null if the evaluator does not say."""
    higher_is_better: bool
    """The direction."""
    floor: Known = None
    """The value of a model that knows nothing; null if not known."""
    at_floor: bool = False
    """Whether it is less than two standard errors better than a model that knows nothing; for an average whose parts
    are known apart, whether each part is at its floor."""
    parts: dict[str, AveragedPart] = Field(default={})
    """For an average whose parts are known apart, these by name. What is retained leaves out those at which the intact
    model is at its floor."""
    members: list[str] = Field(default=[])
    """For the average of several tasks that are also measured, the names of these."""
    flips: Flips | None = None
    """How many answers are others than the intact model's; null for the intact model, and if documents are not simply
    right or wrong."""


class Cost(Part):
    """What a model needs of time or space."""

    value: Number
    """The number."""
    stderr: Known
    """The standard error; null if there is none."""


class Share(Part):
    """What models retain: 1 is the intact model, 0 a model that knows nothing."""

    mean: Number
    """The share; the mean over the repeats, if there are several."""
    stderr: Known
    """The standard error over the documents; null if not known."""


class Retained(Part):
    """What models retain of the intact model, by task and on average."""

    tasks: dict[str, Share | None]
    """By task, what is retained; null if the intact model does not know enough of the task. Tasks on which some model
    was not measured are missing."""
    likelihood: Share | None
    """The mean over the tasks that measure a likelihood; null if there is none."""
    accuracy: Share | None
    """The mean over the other tasks; null if there is none."""
    worst: Share | None
    """The lower of the two means: the headline. Null if a task is missing."""
