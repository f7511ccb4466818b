"""The search for the most blocks that may be removed while a share of the quality is kept: `layerimp run --keep`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from layerimp.errors import ModelError, NonFiniteError, OptionError, PluginError, SurgeryError
from layerimp.pipeline.document_halves import DocumentHalves, check_halves, kept
from layerimp.pipeline.healing import repaired
from layerimp.pipeline.held_out import HeldOut
from layerimp.pipeline.pruning import check_room, measure_quality, planner, pruned
from layerimp.pipeline.resolve import budget_of
from layerimp.pipeline.run import CutModel, StageResults
from layerimp.pipeline.scores import Memory, score_blocks
from layerimp.pruner import Budget, PrunePlan, counted
from layerimp.recipe import check_label
from layerimp.report.results.contenders import Contender, contenders
from layerimp.report.results.search import MostBlocks, QualitySearch, TriedModel
from layerimp.report.retained import ROUNDING, counting, share

if TYPE_CHECKING:
    from layerimp.evaluator import Evaluator
    from layerimp.pipeline.run import Run
    from layerimp.report.paired_bootstrap import Estimate

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Trial:
    """The measurements of a pruned or healed model.

    Attributes:
        searched: The share retained on the documents that the search uses; None if the model could not be measured.
        confirmed: The share retained on the other documents, which confirm the choice.
        model: The model, with the metrics on the confirming documents; None if it does not keep enough, so that its
            weights are freed.
    """

    searched: Estimate | None = None
    confirmed: Estimate | None = None
    model: CutModel | None = None


@dataclass
class _Trials:
    """Tries pruned and healed models. A model that several scorers choose is tried once.

    Attributes:
        run: The run.
        evaluators: The evaluators of quality.
        intact: The metrics of the intact model.
    """

    run: Run
    evaluators: Mapping[str, Evaluator]
    intact: DocumentHalves
    _pruned: dict[frozenset[int], CutModel] = field(default_factory=dict)
    _known: dict[tuple[frozenset[int], str], _Trial] = field(default_factory=dict)

    def keeps(self, share: Estimate | None) -> bool:
        """Whether a share is large enough."""
        assert self.run.recipe.keep is not None
        return share is not None and share.mean >= self.run.recipe.keep - ROUNDING

    def of(self, plan: PrunePlan, contender: Contender) -> _Trial:
        """Try the model that a plan leaves, healed or not. If it cannot be pruned or measured, it keeps nothing."""
        key, progress = (frozenset(plan.blocks), contender.healer), self.run.progress
        if key not in self._known:
            try:
                self._known[key] = self._tried(plan, contender)
            except (SurgeryError, NonFiniteError) as error:
                progress.note(f"{contender.label} keeps nothing without {counted(len(plan.blocks))}: {error}")
                self._known[key] = _Trial()
        return self._known[key]

    def _tried(self, plan: PrunePlan, contender: Contender) -> _Trial:
        run, removed = self.run, frozenset(plan.blocks)
        if removed not in self._pruned:
            self._pruned[removed] = pruned(run.loaded.stack, plan, contender)
        model = self._pruned[removed]
        if contender.healer:
            healed = run.heal(contender.healer, model.removal)
            model = replace(model, beside=healed.model, healing=repaired(healed, run.further))
        with model.in_place() as weights:
            name = f"{contender.label}, {counted(len(plan.blocks))} gone"
            halves = DocumentHalves.of(run.evaluation.beside(weights).of(self.evaluators, "quality", name))
        searched = kept(self.intact.search, halves.search)
        confirms = kept(self.intact.confirmation, halves.confirmation)
        may_be_chosen = self.keeps(searched) and self.keeps(confirms)
        return _Trial(searched, confirms, replace(model, metrics=halves.confirmation) if may_be_chosen else None)

    def most(
        self, plan_of: Callable[[int], PrunePlan], contender: Contender, span: tuple[int, int]
    ) -> tuple[CutModel | None, MostBlocks]:
        """Find the model with the largest number of blocks that may be removed; None if none may.

        Args:
            plan_of: Makes the plan for a number of blocks.
            contender: The scorer, and the healer if there is one.
            span: The smallest and the largest number to try.

        Raises:
            OptionError: the pruner has no plan for the smallest number.
        """
        tried: dict[int, _Trial] = {}

        def trial(count: int) -> _Trial:
            if count not in tried:
                try:
                    tried[count] = self.of(plan_of(count), contender)
                except OptionError:  # the pruner has no plan for so many
                    if count == span[0]:
                        raise
                    tried[count] = _Trial()
            return tried[count]

        def holds(count: int) -> bool:
            return self.keeps(trial(count).searched)

        first = most_that_hold(holds, *span, nested=self.run.pruner.nested)
        count = confirmed(first, holds, lambda count: self.keeps(trial(count).confirmed), span[0])
        chosen = tried[count] if count else _Trial()
        model = chosen.model and replace(chosen.model, contender=contender, plan=plan_of(count))
        result = MostBlocks(
            count=count,
            blocks=model.plan.blocks if model else [],
            retained=share(chosen.searched),
            confirmed=share(chosen.confirmed),
            before_confirmation=first,
            tried=[
                TriedModel(count=n, retained=share(model.searched), confirmed=share(model.confirmed))
                for n, model in sorted(tried.items())
            ],
        )
        return model, result


def prune_to_quality(run: Run) -> StageResults:
    """Remove as many blocks as the recipe's `keep` allows, by each scorer, unhealed and healed by each healer.

    Returns:
        The results, with the metrics on the confirming documents. Models from which no block may be removed are left
        out.

    Raises:
        TaskError: a task has no quality that could be kept, or too few documents to confirm a choice.
        OptionError: a label is not allowed, or the forced and protected blocks leave no choice.
        OutputError: there is not enough disk space for the checkpoints, or not enough memory to load one back.
    """
    check_room(run, 0)  # the memory, before the long search
    quality, others = searched(run)
    whole = run.evaluation.of(quality, "quality")
    check_halves(whole)
    for label in run.selection.specs:
        check_label(label)
    least = budget_of(run.recipe, len(run.loaded.stack))
    budget = replace(least, count=least.most)
    memory: Memory = {}
    importance = score_blocks(run, memory=memory)
    trials = _Trials(run, quality, DocumentHalves.of(whole))
    most: dict[str, tuple[CutModel | None, MostBlocks]] = {}
    failed: dict[str, str] = {}
    for label in list(run.selection.specs):
        with run.selection.excusing(label):
            by_label, unhealed = _by_scorer(trials, label, planner(run, label, importance[label], memory), budget)
            most |= by_label
            failed |= unhealed
    run.selection.need_any()
    models = {label: model for label, (model, _) in most.items() if model is not None}
    removable, metrics = {label: result for label, (_, result) in most.items()}, trials.intact.confirmation
    saved = [model for model in models.values() if model.contender.scorer not in run.selection.baselines]
    check_room(run, sum(model.size.bytes for model in saved))
    if run.recipe.keep_of == "agreement":  # the tasks took no part in the search
        rest = replace(run, evaluators=others)
        metrics, models = run.evaluation.of(others, "quality"), measure_quality(rest, models)
    assert run.recipe.keep is not None
    search = QualitySearch(
        keep=run.recipe.keep,
        keep_of=run.recipe.keep_of,
        measured_on=list(counting(whole)),
        held_out=HeldOut.name in quality,
        order=_order(removable),
        removable=removable,
    )
    return StageResults(importance, models, metrics, search=search, failed=failed)


def searched(run: Run) -> tuple[dict[str, Evaluator], dict[str, Evaluator]]:
    """Return the evaluators that the search measures by, and the other ones of quality; both by label."""
    quality = {label: evaluator for label, evaluator in run.evaluators.items() if evaluator.kind == "quality"}
    if run.recipe.keep_of == "quality":
        return quality, {}
    return {HeldOut.name: quality.pop(HeldOut.name)}, quality


def _order(removable: Mapping[str, MostBlocks]) -> list[str]:
    """Return the labels by the most blocks, and then by what is retained on the confirming documents."""

    def rank(label: str) -> tuple[float, float]:
        result = removable[label]
        return -result.count, 0.0 if result.confirmed is None else -result.confirmed.mean

    return sorted(removable, key=rank)


def _by_scorer(
    trials: _Trials, label: str, make: Callable[[Budget], PrunePlan], budget: Budget
) -> tuple[dict[str, tuple[CutModel | None, MostBlocks]], dict[str, str]]:
    """Find how many blocks may be removed by one scorer's choice, unhealed and with each healer, by label.

    Returns:
        The models with their numbers, and for each healed model that could not be made, the reason; both by label.
    """
    run = trials.run
    least = max(1, len(budget.forced))
    plan_of, longest = _plans(make, budget, least, nested=run.pruner.nested)
    most: dict[str, tuple[CutModel | None, MostBlocks]] = {}
    failed: dict[str, str] = {}
    for name, contender in contenders([label], run.healers).items():
        try:
            most[name] = trials.most(plan_of, contender, (least, longest))
        except (ModelError, PluginError) as error:
            if not contender.healer:
                raise
            failed[name] = str(error)
            run.progress.note(f"{name} is left out: {error}")
    return most, failed


def longest_plan(make: Callable[[Budget], Made], budget: Budget, least: int) -> Made:
    """Return what is made of the longest plan within a budget; it is shorter if the pruner protects blocks itself."""
    try:
        return make(budget)
    except OptionError:
        if budget.count == least:
            raise
        return longest_plan(make, replace(budget, count=budget.count - 1), least)


def _plans(
    make: Callable[[Budget], PrunePlan], budget: Budget, least: int, *, nested: bool
) -> tuple[Callable[[int], PrunePlan], int]:
    """Return a function that gives the plan for a number of blocks, and the largest number to ask it for.

    Raises:
        OptionError: plans are nested, and there is none even for the smallest number.
    """
    if not nested:
        return cache(lambda count: make(replace(budget, count=count))), budget.count
    longest = longest_plan(make, budget, least)
    return lambda count: longest.model_copy(update={"blocks": longest.blocks[:count]}), len(longest.blocks)


Holds = Callable[[int], bool]
"""Tells whether the model without a given number of blocks still meets the demand."""


def most_that_hold(holds: Holds, least: int, most: int, *, nested: bool) -> int:
    """Return the largest number between `least` and `most` such that it and every smaller number tried hold.

    If plans are nested, this is a binary search: about log2(`most`) numbers are tried. Quality is assumed to fall with
    the number of blocks; if it falls and rises again, the answer depends on which numbers are tried. If plans are not
    nested, two plans have nothing in common, so every number from `least` on is tried until one fails.

    Args:
        holds: Tries a number.
        least: The smallest number to try, 1 or more.
        most: The largest number to try.
        nested: Whether the plan for fewer blocks is the start of the plan for more.

    Returns:
        The number; 0 if `least` does not hold.
    """
    good, bad = least - 1, most + 1
    while bad - good > 1:
        middle = (good + bad) // 2 if nested else good + 1
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good if good >= least else 0


def confirmed(most: int, holds: Holds, confirms: Holds, least: int) -> int:
    """Return the largest number up to `most` that holds and that other documents confirm; 0 if there is none."""
    for count in range(most, least - 1, -1):
        if holds(count) and confirms(count):
            return count
    return 0
