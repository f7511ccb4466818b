"""The rows of tables: one metric of models that can be compared; and how many blocks may be removed."""

from __future__ import annotations

from layerimp.report.results.contenders import OfContender
from layerimp.report.results.measures import Difference, Interval, Measured
from layerimp.report.results.models import Amount
from layerimp.report.results.part import Number, Part

RETAINED = "retained"
"""The name in place of a task in rows for what is retained on average."""


class Entry(OfContender):
    """The models of one scorer in one row, unhealed or healed by one healer."""

    values: list[Number]
    """The values of the metric, by repeat."""
    value: Interval
    """The mean of the values; for a perplexity the interval is that of the loss."""
    ends: tuple[Number, Number] | None
    """The mean minus and plus one standard error over the documents, which the repeats share; null if not known."""
    retained: Interval | None
    """What is retained of the task; null if the task does not count by this metric."""
    to_random: Difference | None
    """The difference to the scorer `random`, healed by the same healer if any; null without `random`, and for `random`
    itself."""
    to_baseline: Difference | None
    """The difference to the best baseline, healed by the same healer if any; null without baselines, and for that
    baseline itself."""
    to_unhealed: Difference | None
    """The difference to the same models before healing; null for unhealed models, and if as many blocks are not removed
    from these."""
    best: bool
    """Whether no other entry of the row is significantly better, over all pairs and corrected for their number (Holm).
    False if an error is not known, or if there is nothing to compare."""


class Row(Part):
    """One metric of one task, for the models from which one pruner removed equally many blocks for one amount.

    Only the entries of a row are compared. Models with other numbers of blocks are in other rows.
    """

    pruner: str
    """The label of the pruner."""
    amount: Amount
    """What was asked for, as in a `Removal`."""
    counts: list[int]
    """How many blocks are removed: one number; all numbers in ascending order, if the repeats differ."""
    task: str
    """The task; `retained` for what is retained on average."""
    metric: str
    """The metric; for averages `worst`, `likelihood` or `accuracy`."""
    original: Measured | None
    """The metric of the intact model; null for averages."""
    higher_is_better: bool
    """Whether a higher value is better."""
    factors: bool
    """Whether differences are logarithms of factors, as for a perplexity."""
    entries: dict[str, Entry]
    """The entries by label; SCORER+HEALER for healed models."""
    baselines: dict[str, str]
    """For each healer, the label of the best baseline, to which the others are compared; under the empty name for
    unhealed models."""
    removed_blocks: float
    """The share of the blocks that is removed."""
    removed_parameters: tuple[float, float]
    """The least and the greatest share of the parameters that is removed."""

    @property
    def best(self) -> list[str]:
        """The labels that no other label beats; a single one is a winner."""
        return [label for label, entry in self.entries.items() if entry.best]


class Level(Part):
    """How many blocks may be removed while a share is retained."""

    counts: list[int]
    """By repeat, the largest measured number of blocks such that it and all smaller measured numbers retain the share;
    0 if the smallest does not."""
    mean: Interval
    """The mean of the counts."""
    at_least: bool
    """Whether in some repeat all measured numbers retain the share: the mean may be too low."""


class Removable(Part):
    """How many blocks may be removed by one pruner and one scorer, unhealed or healed, of the measured numbers."""

    pruner: str
    """The label of the pruner."""
    label: str
    """The label of the scorer; SCORER+HEALER for healed models."""
    measured: list[int]
    """The numbers of removed blocks that were measured, in ascending order."""
    levels: dict[float, Level]
    """The results, by the share to retain: 0.9, 0.95 and 0.99."""
