"""The design of a comparison, and the results for each of its models."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from layerimp.calibration.sampling import Calibration
from layerimp.errors import InputError
from layerimp.pruner import PrunePlan
from layerimp.recipe import ComponentSpec, Recipe
from layerimp.report.results.contenders import Contender, contenders
from layerimp.report.results.measures import Cost, Measured
from layerimp.report.results.models import Amount, PrunedModel, Removal, Size, Target
from layerimp.report.results.part import Part
from layerimp.report.results.rows import RETAINED, Removable, Row
from layerimp.report.results.scores import Agreement, Scored, common_blocks
from layerimp.report.results.search import QualitySearch
from layerimp.scorer import Importance

Place = tuple[str, Amount]
"""A pruner and an amount."""
_DECIDING = (0.95, 0.9, 0.99)
"""The levels by which contenders are ordered, the most important first."""


class ModelResults(Part):
    """The results for one intact model and the models pruned from it."""

    label: str
    """The label of the model."""
    num_blocks: int
    """The number of blocks of the intact model."""
    loader: str | None
    """The stock `Auto` class that loads the checkpoints; null in a grid."""
    size: Size | None
    """The size of the intact model; null if nothing is evaluated yet."""
    calibration: Calibration | None
    """The text that drove the scoring; null in a grid, whose repeats have texts of their own."""
    metrics: dict[str, dict[str, Measured]]
    """The metrics of the intact model, or of the one that `evaluate` measures, by task and name."""
    footprint: dict[str, Cost]
    """The costs of this model in time and space, by name."""
    targets: dict[str, Target]
    """The sizes that were asked for, by quantity: parameters, bytes, kv-cache."""
    scored: dict[str, Scored]
    """The scores, by label of the scorer."""
    agreements: list[Agreement]
    """How much each two scorers agree, on the blocks that all scored."""
    removals: list[Removal]
    """What was removed, by pruner, amount, scorer and healer."""
    rows: list[Row]
    """The rows of the tables."""
    removables: list[Removable]
    """How many blocks may be removed, if several numbers were measured."""
    search: QualitySearch | None
    """The result of `--keep`; null without it."""
    notes: list[str]
    """Notes for a reader of the numbers, besides those on single removals."""

    @property
    def all_notes(self) -> list[str]:
        """The notes, and those on each removal."""
        return [*self.notes, *(note for removal in self.removals for note in removal.notes)]

    @property
    def agreement(self) -> dict[tuple[str, str], float | None]:
        """Kendall's tau between two scorers, by their labels."""
        return {agreement.scorers: agreement.tau for agreement in self.agreements}

    @property
    def importance(self) -> dict[str, Importance]:
        """The importance by label of the scorer: of a run, or in the first repeat of a grid."""
        return {label: scored.importance for label, scored in self.scored.items()}

    @property
    def pruned(self) -> dict[str, PrunedModel]:
        """The pruned models of a run by label, which is SCORER, or SCORER+HEALER for healed models.

        Raises:
            InputError: there are several models for a label, as in a grid; all models are in `removals`.
        """
        models = {removal.label: removal.models[0] for removal in self.removals}
        if len(models) < sum(len(removal.models) for removal in self.removals):
            raise InputError("several models were pruned by the same scorer; each of them is in `removals`")
        return models

    @property
    def plans(self) -> dict[str, PrunePlan]:
        """The plans of a run's pruned models, which `layerimp.prune` applies, by label of the scorer.

        Of a healed model that lacks something else than the unhealed one, the plan is under `SCORER-HEALER`.

        Raises:
            InputError: there are several models for a label, as in a grid; each has its plan in `removals`.
        """
        plans: dict[str, PrunePlan] = {}
        for removal in sorted(self.removals, key=lambda removal: bool(removal.healer)):
            plan, unhealed = self.pruned[removal.label].plan, plans.get(removal.scorer)
            if unhealed is None or unhealed.blocks != plan.blocks:
                plans[removal.label.replace("+", "-")] = plan
        return plans

    @property
    def removed(self) -> dict[tuple[str, Amount, str], Removal]:
        """What was removed, by pruner, amount and label of the contender."""
        return {(each.pruner, each.amount, each.label): each for each in self.removals}

    @property
    def removable(self) -> dict[tuple[str, str], Removable]:
        """How many blocks may be removed, by pruner and label of the contender."""
        return {(removable.pruner, removable.label): removable for removable in self.removables}

    @property
    def by_removable(self) -> dict[str, list[Removable]]:
        """How many blocks may be removed, by pruner: the contender by which the most may go comes first."""

        def rank(removable: Removable) -> list[float]:
            return [-removable.levels[level].mean.mean for level in _DECIDING]

        ranked = sorted(self.removables, key=rank)
        pruners = dict.fromkeys(removable.pruner for removable in self.removables)
        return {pruner: [each for each in ranked if each.pruner == pruner] for pruner in pruners}

    @property
    def order(self) -> list[str]:
        """The labels of the pruned models of a run: the most blocks first, and of as many what retains most."""

        def rank(removal: Removal) -> tuple[int, float]:
            worst = None if removal.retained is None else removal.retained.worst
            return -len(removal.models[0].blocks), math.inf if worst is None else -worst.mean

        return [removal.label for removal in sorted(self.removals, key=rank)]

    @property
    def inner(self) -> set[str]:
        """The tasks within a group that is itself averaged in another group, as those of BLiMP in a selection."""
        members = {task: {name for each in own.values() for name in each.members} for task, own in self.metrics.items()}
        averaged = set().union(*members.values())
        return set().union(*(names for task, names in members.items() if task in averaged))

    @property
    def documents(self) -> dict[str, int | None]:
        """The number of documents of each task; None if not known."""
        return {row.task: row.original.documents for row in self.rows if row.original is not None}

    @property
    def repeated(self) -> bool:
        """Whether any scorer scored more than once, so that repeats can be compared."""
        return any(len(scored.scores) > 1 for scored in self.scored.values())

    @property
    def drawn_again(self) -> list[str]:
        """The labels of the contenders that removed several times for one amount, as `random` does without repeats."""
        return list(dict.fromkeys(removal.label for removal in self.removals if len(removal.models) > 1))

    @property
    def blocks(self) -> list[int]:
        """The blocks that all scorers have scored, in depth order."""
        return common_blocks(scored.blocks for scored in self.scored.values())

    @property
    def headlines(self) -> list[Row]:
        """The rows for what is retained on average: the lower of two means, or the only one, by place and count."""
        first: dict[tuple[Place, tuple[int, ...]], Row] = {}
        for row in self.rows:
            if row.task == RETAINED and row.original is None:
                first.setdefault(((row.pruner, row.amount), tuple(row.counts)), row)
        return list(first.values())

    @property
    def answer(self) -> str:
        """Say how many blocks may be removed, if there was a search; else empty."""
        if self.search is None:
            return ""
        by_count: dict[int, list[str]] = {}
        for label in self.search.order:
            by_count.setdefault(self.search.removable[label].count, []).append(label)
        counts = "; ".join(f"{count} by {', '.join(labels)}" for count, labels in by_count.items())
        least = f"at least {self.search.keep * 100:.4g}%"
        kept = f"{least} is retained" if self.search.keep_of == "quality" else f"{least} of the predictions agree"
        return f"Removable of {self.num_blocks} blocks, while {kept}: {counts}."


class Design(Part):
    """The design of a comparison, with everything settled that the request left open."""

    models: dict[str, Recipe]
    """The recipe for each model, by label."""
    measured: dict[str, list[str]]
    """The tasks that each model was evaluated on, by label."""
    scorers: dict[str, ComponentSpec]
    """The scorers, including baselines, by label."""
    blind: list[str]
    """The scorers that do not look at the model, so that no text changes them."""
    baselines: list[str]
    """The labels of the baselines."""
    added: list[str]
    """The baselines that were not asked for as scorers: they were measured only for comparison."""
    pruners: dict[str, ComponentSpec]
    """The pruners, by label."""
    healers: dict[str, ComponentSpec]
    """The healers, by label."""
    amounts: list[Amount]
    """What to remove, as in a `Removal`."""
    repeats: int
    """How often each scoring was done."""
    seed: int
    """The seed of the first repeat."""
    protect: list[int]
    """The blocks to keep regardless of scores."""
    limit: int | None
    """The largest number of documents per task; null for all."""
    limits: dict[str, int] = Field(default={})
    """By name, the documents of a task or of a whole group, in place of `limit`."""
    num_fewshot: int | None
    """The number of examples in each prompt; null for the task's own number."""

    @property
    def contenders(self) -> dict[str, Contender]:
        """The contenders, by label: the columns of the tables."""
        return contenders(self.scorers, self.healers)


class Compared(Part):
    """A design and the results: the data behind all tables."""

    design: Design
    """What was compared."""
    models: dict[str, ModelResults]
    """The results by label of the model, without models that have no results yet."""

    @property
    def model(self) -> ModelResults:
        """The results for the only model, as in a run.

        Raises:
            InputError: there are several models, or there is none.
        """
        if len(self.models) != 1:
            raise InputError(f"the results are of {len(self.models)} models, which are in `models`")
        return next(iter(self.models.values()))

    @property
    def everything(self) -> Sequence[tuple[str, Row]]:
        """All rows, each with the label of its model."""
        return [(label, row) for label, model in self.models.items() for row in model.rows]
