"""The search for the most blocks that may be removed while a share of the quality is kept: `layerimp run --keep`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from layerimp.defaults import ORIGINAL
from layerimp.errors import CalibrationError, ModelError, NonFiniteError, OptionError, PluginError, SurgeryError
from layerimp.pipeline.ahead import budget_of
from layerimp.pipeline.counting import confirmed, most_that_hold
from layerimp.pipeline.held_out import ONE_IN, HeldOut, hold_out
from layerimp.pipeline.output import write_checkpoint
from layerimp.pipeline.removals import check_room, forget_dropped, planner
from layerimp.pipeline.resolve import made_pruner
from layerimp.pipeline.scores import score_blocks
from layerimp.pruner import Budget, PrunePlan, counted
from layerimp.recipe import check_label
from layerimp.report.data import Size
from layerimp.report.findings import Contender, contenders
from layerimp.report.halves import Halves, check_halves, kept
from layerimp.report.healing import Healing
from layerimp.report.retained import counting
from layerimp.report.search import Removable, Search, Tried
from layerimp.steps import Sublayer, removed_by
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.evaluation.runner import Evaluation
    from layerimp.evaluator import Evaluator, Metric
    from layerimp.healing.engine import Healed
    from layerimp.pipeline.healing import HealerSet
    from layerimp.pipeline.stages import Loaded
    from layerimp.progress import Progress
    from layerimp.report.data import Report
    from layerimp.report.paired_bootstrap import Estimate
    from layerimp.scoring.selection import Selection
    from layerimp.surgery.removal import Removal

ROUNDING = 1e-9
"""A share may lie below the one to keep by this amount, since sums are rounded."""


@dataclass(frozen=True)
class _Trial:
    """The measurements of a pruned or healed model.

    Attributes:
        searched: The share retained on the documents that the search uses; None if the model could not be measured.
        confirmed: The share retained on the other documents, which confirm the choice.
        metrics: The metrics on the confirming documents.
        removal: The removal.
        healed: The healed model; None without a healer, or if the model does not keep enough.
        why: Why the model could not be measured; empty if it could.
    """

    searched: Estimate | None = None
    confirmed: Estimate | None = None
    metrics: tuple[Metric, ...] = ()
    removal: Removal | None = None
    healed: Healed | None = None
    why: str = ""


@dataclass
class _Trials:
    """Tries pruned and healed models. A model that several scorers choose is tried once.

    Attributes:
        loaded: The intact model.
        evaluation: Measures the intact model and the pruned ones.
        evaluators: The evaluators of quality.
        drawn: The text to heal on.
        healers: The healers.
        keep: The share that has to be retained.
        progress: Where to report progress.
        intact: The metrics of the intact model.
    """

    loaded: Loaded
    evaluation: Evaluation
    evaluators: Mapping[str, Evaluator]
    drawn: CalibrationSet
    healers: HealerSet
    keep: float
    progress: Progress
    intact: Halves
    _removals: dict[frozenset[Sublayer], Removal] = field(default_factory=dict)
    _known: dict[tuple[frozenset[Sublayer], str], _Trial] = field(default_factory=dict)

    def keeps(self, share: Estimate | None) -> bool:
        """Whether a share is large enough."""
        return share is not None and share.mean >= self.keep - ROUNDING

    def of(self, plan: PrunePlan, who: Contender) -> _Trial:
        """Try the model that a plan leaves, healed or not. If it cannot be pruned or measured, it keeps nothing."""
        key = removed_by(plan.blocks), who.healer
        if key not in self._known:
            try:
                self._known[key] = self._tried(plan, who.healer, f"{who.label}, {counted(len(plan.blocks))} gone")
            except (SurgeryError, NonFiniteError) as error:
                self.progress.note(f"{who.label} keeps nothing without {counted(len(plan.blocks))}: {error}")
                self._known[key] = _Trial(why=str(error))
        return self._known[key]

    def _tried(self, plan: PrunePlan, healer: str, who: str) -> _Trial:
        gone = removed_by(plan.blocks)
        if gone not in self._removals:
            self._removals[gone] = prepare(self.loaded.stack, plan.blocks)
        removal, healed = self._removals[gone], None
        if healer:
            healed = self.healers.heal(healer, self.loaded.stack, removal, self.drawn, self.progress)
            metrics = self.evaluation.beside(healed.model).of(dict(self.evaluators), "quality", who)
        else:
            with removal.applied():
                metrics = self.evaluation.of(dict(self.evaluators), "quality", who)
        halves = Halves.of(metrics)
        searched = kept(self.intact.search, halves.search)
        confirms = kept(self.intact.confirmation, halves.confirmation)
        may_be_chosen = self.keeps(searched) and self.keeps(confirms)  # the weights of other models are freed
        return _Trial(searched, confirms, tuple(halves.confirmation), removal, healed if may_be_chosen else None)

    def most(
        self, plan_of: Callable[[int], PrunePlan], who: Contender, span: tuple[int, int], *, nested: bool
    ) -> Removable:
        """Find the largest number of blocks that may be removed.

        Args:
            plan_of: Makes the plan for a number of blocks.
            who: The scorer, and the healer if there is one.
            span: The smallest and the largest number to try.
            nested: Whether the plan for fewer blocks is the start of the plan for more.

        Raises:
            OptionError: the pruner has no plan for the smallest number.
        """
        tried: dict[int, _Trial] = {}

        def trial(count: int) -> _Trial:
            if count not in tried:
                try:
                    tried[count] = self.of(plan_of(count), who)
                except OptionError as error:  # the pruner has no plan for so many
                    if count == span[0]:
                        raise
                    tried[count] = _Trial(why=str(error))
            return tried[count]

        def holds(count: int) -> bool:
            return self.keeps(trial(count).searched)

        first = most_that_hold(holds, *span, nested=nested)
        count = confirmed(first, holds, lambda count: self.keeps(trial(count).confirmed), span[0])
        known = [Tried(n, one.searched, one.confirmed, one.why) for n, one in sorted(tried.items())]
        return Removable(who.scorer, who.healer, count, plan_of(count) if count else None, first, known)


def with_quality(
    report: Report,
    loaded: Loaded,
    drawn: CalibrationSet,
    evaluators: Mapping[str, Evaluator],
    progress: Progress,
) -> tuple[CalibrationSet, dict[str, Evaluator]]:
    """Return the text and the evaluators of a run that has to measure quality.

    If no evaluator measures quality, a part of the text is held out to measure it on. Scorers and healers get the rest,
    which the report then describes.

    Raises:
        CalibrationError: there is too little text to hold out a part of it.
    """
    if any(one.kind == "quality" for one in evaluators.values()):
        return drawn, dict(evaluators)
    rest, held = hold_out(drawn)
    if not held.rows:
        raise CalibrationError(
            f"without tasks one row of {ONE_IN} is held out to measure what is kept, and there are {len(drawn.rows)}; "
            "draw more (--samples), or name tasks (--tasks)"
        )
    progress.note(f"no tasks: what is kept is measured on {len(held.rows)} held-out rows of {drawn.source}")
    report.calibration = rest.description
    return rest, {HeldOut.name: HeldOut(loaded.stack, held), **evaluators}


def prune_to_quality(
    report: Report,
    loaded: Loaded,
    drawn: CalibrationSet,
    selection: Selection,
    healers: HealerSet,
    evaluation: Evaluation,
    evaluators: Mapping[str, Evaluator],
    stage: Path | None,
    progress: Progress,
) -> tuple[dict[str, Removal], dict[str, PreTrainedModel]]:
    """Remove as many blocks as the recipe's `keep` allows, by each scorer, unhealed and healed by each healer.

    The report then holds the plans, the sizes, the metrics on the confirming documents, and what the search tried.

    Returns:
        The removals by the scorer's label, and the healed models by label. Those for which no block may be removed are
        left out.

    Raises:
        TaskError: a task has no quality that could be kept, or too few documents to confirm a choice.
        OptionError: a label is not allowed, or the forced and protected blocks leave no choice.
        OutputError: there is not enough disk space for the checkpoints.
    """
    recipe = report.recipe
    assert recipe.keep is not None
    quality = {label: one for label, one in evaluators.items() if one.kind == "quality"}
    evaluation.announce(quality, loaded.stack, tried=True)
    whole = evaluation.of(quality, "quality")
    check_halves(whole)
    intact = Halves.of(whole)
    report.metrics[ORIGINAL] = list(intact.confirmation)
    for label in selection.specs:
        check_label(label)
    least = budget_of(recipe, len(loaded.stack))
    budget = replace(least, count=least.most)
    score_blocks(report, loaded.stack, drawn, selection, progress)
    trials = _Trials(loaded, evaluation, quality, drawn, healers, recipe.keep, progress, intact)
    found: dict[str, Removable] = {}
    for label in list(selection.specs):
        with selection.excusing(label):
            found |= _by_scorer(report, trials, selection, label, budget)
    forget_dropped(report, selection)
    report.search = Search(recipe.keep, list(counting(whole)), HeldOut.name in quality, found)
    removals, models = _settled(report, trials)
    _write(report, loaded, removals, models, stage, progress)
    return removals, models


def _by_scorer(
    report: Report, trials: _Trials, selection: Selection, label: str, budget: Budget
) -> dict[str, Removable]:
    """Find how many blocks may be removed by one scorer's choice, unhealed and with each healer, by label."""
    pruner = made_pruner(report.recipe.pruner, report.recipe.cuts)
    make = planner(report, trials.loaded, trials.drawn, selection, label, pruner, trials.progress)
    least = max(1, len(budget.forced))
    plan_of, most = _plans(make, budget, least, nested=pruner.nested)
    found = {}
    for name, who in contenders([label], trials.healers.healers).items():
        try:
            found[name] = trials.most(plan_of, who, (least, most), nested=pruner.nested)
        except (ModelError, PluginError) as error:
            if not who.healer:
                raise
            report.failed[name] = str(error)
            trials.progress.note(f"{name} is left out: {error}")
    return found


def _longest(make: Callable[[Budget], PrunePlan], budget: Budget, least: int) -> PrunePlan:
    """Return the longest plan within a budget; it is shorter if the pruner protects blocks of its own."""
    try:
        return make(budget)
    except OptionError:
        if budget.count == least:
            raise
        return _longest(make, replace(budget, count=budget.count - 1), least)


def _plans(
    make: Callable[[Budget], PrunePlan], budget: Budget, least: int, *, nested: bool
) -> tuple[Callable[[int], PrunePlan], int]:
    """Return a function that gives the plan for a number of blocks, and the largest number to ask it for.

    Raises:
        OptionError: plans are nested, and there is none even for the smallest number.
    """
    if not nested:
        return cache(lambda count: make(replace(budget, count=count))), budget.count
    longest = _longest(make, budget, least)
    return lambda count: longest.model_copy(update={"blocks": longest.blocks[:count]}), len(longest.blocks)


def _settled(report: Report, trials: _Trials) -> tuple[dict[str, Removal], dict[str, PreTrainedModel]]:
    """Add what was found to the report: plans, sizes, metrics and repairs."""
    removals: dict[str, Removal] = {}
    models: dict[str, PreTrainedModel] = {}
    assert report.search is not None
    for who, one in report.search.removable.items():
        if one.plan is None:
            continue
        trial = trials.of(one.plan, Contender(one.scorer, one.healer))
        assert trial.removal is not None
        with trial.removal.applied():
            report.sizes[who] = Size.of(trials.loaded.stack)
        report.metrics[who] = list(trial.metrics)
        if trial.healed is None:
            report.plans[who], removals[who] = one.plan, trial.removal
        else:
            models[who], done = trial.healed.model, trial.healed
            report.healed[who] = Healing(one.scorer, one.healer, done.repairs, done.loss, done.accuracy, done.recovered)
    return removals, models


def _write(
    report: Report,
    loaded: Loaded,
    removals: Mapping[str, Removal],
    models: Mapping[str, PreTrainedModel],
    stage: Path | None,
    progress: Progress,
) -> None:
    """Write the checkpoints of the models that were found."""
    if stage is None:
        return
    healed = [who for who in models if report.healed[who].scorer not in report.baselines]
    wanted = [*(who for who in removals if who not in report.baselines), *healed]
    check_room(report, loaded, stage, sum(report.sizes[who].bytes for who in wanted))
    save = partial(write_checkpoint, tokenizer=loaded.tokenizer, report=report, stage=stage, progress=progress)
    for who in wanted:
        if who in models:
            save(models[who], label=who)
        else:
            with removals[who].applied():
                save(loaded.model, label=who)
