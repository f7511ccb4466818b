"""Plans by each scorer and their removals; pruning by the recipe's amount, healing, and what models are measured by."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from layerimp.blocks.modalities import not_tried
from layerimp.checkpoint.saving import check_memory
from layerimp.errors import ModelError, NonFiniteError, OutputError, PluginError
from layerimp.evaluation.comparing import Comparing, comparer_of
from layerimp.models.discovery import find_blocks
from layerimp.models.sizing import shapes_only
from layerimp.pipeline.blocks_for_size import Goal
from layerimp.pipeline.file_pruning import kept_tensors
from layerimp.pipeline.healing import repaired
from layerimp.pipeline.resolve import budget_of, check_plans, model_anywhere, named_plan
from layerimp.pipeline.run import CutModel, StageResults
from layerimp.pipeline.scores import Memory, Rescoring, score_blocks
from layerimp.pruner import Budget, PrunePlan
from layerimp.registry.attribution import attributing
from layerimp.report.results.contenders import Contender
from layerimp.report.results.models import Size
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.fidelity.record import Fidelity
    from layerimp.metric import Metric
    from layerimp.pipeline.run import Run
    from layerimp.report.results.search import QualitySearch
    from layerimp.scorer import Importance
    from layerimp.sizes.targets import Reached


@dataclass(frozen=True)
class Choice:
    """What is to be removed.

    Attributes:
        plans: The plans, by label.
        importance: The scores that led to them, by the scorer's label; empty if the plans were given.
        reached: The values that each plan reaches beside the targets, by label; empty without targets.
        search: The search for the plan, if a quality was to be kept.
    """

    plans: Mapping[str, PrunePlan]
    importance: Mapping[str, Importance] = field(default_factory=dict)
    reached: Mapping[str, Sequence[Reached]] = field(default_factory=dict)
    search: QualitySearch | None = None


def choose(run: Run) -> Choice:
    """Score the blocks, and let the pruner make a plan by each scorer; if the recipe names all that goes, plan that.

    Scorers that fail leave the selection. If the recipe names neither an amount nor blocks, a quarter of the blocks is
    removed. If it names targets, each plan is as long as the targets require.
    """
    recipe, loaded = run.recipe, run.loaded
    if recipe.names_all:
        return Choice({"blocks": named_plan(recipe, len(loaded.stack))})
    goal = Goal.of(recipe, loaded.stack, run.progress) if recipe.targets else None
    budget = goal.budget if goal else budget_of(recipe, len(loaded.stack))
    memory: Memory = {}
    importance = score_blocks(run, memory=memory)
    plans: dict[str, PrunePlan] = {}
    reached: dict[str, list[Reached]] = {}
    for label in list(run.selection.specs):
        with run.selection.excusing(label):
            ask = planner(run, label, importance[label], memory)
            if goal:
                plans[label], reached[label] = goal.reached(ask)
            else:
                plans[label] = ask(budget)
    return Choice(plans, importance, reached)


def planner(run: Run, label: str, first: Importance, memory: Memory) -> Callable[[Budget], PrunePlan]:
    """Return a function that makes plans by one scorer's scores.

    Args:
        run: The run.
        label: The scorer.
        first: Its scores of the intact model.
        memory: What the sweeps have kept of the run's whole text.
    """
    recipe, pruner, name = run.recipe, run.pruner, run.recipe.pruner.name
    origin = {"scorer": run.selection.specs[label].name, "pruner": name, "model": model_anywhere(recipe.model)}
    text = run.text if pruner.rescored_rows is None else run.text.first(pruner.rescored_rows)
    kept = memory if text is run.text else {}
    scoring = Rescoring(run.loaded.stack, text, first, run.selection, label, kept)

    def plan(budget: Budget) -> PrunePlan:
        with attributing("pruner", name, type(pruner), f"on the scores of {label}"):
            chosen = pruner.within_budget(scoring, budget)
            return chosen.model_copy(update={**origin, "nested": pruner.nested})

    return plan


def prepare_removals(run: Run, choice: Choice) -> dict[str, CutModel]:
    """Prepare each plan's removal, and apply it once, so that a removal that fails does so before any long work.

    Plans that remove the same share one removal. Scorers whose plan cannot be carried out leave the selection.

    Returns:
        The pruned models, by label.

    Raises:
        OptionError: a plan removes nothing, is for another number of blocks, or has a label that is not allowed; or
            there is no plan.
        ModelError: no scorer is left.
        SurgeryError: blocks cannot be removed exactly.
        OutputError: there is not enough disk space for the checkpoints, or not enough memory to load one back.
    """
    models: dict[str, CutModel] = {}
    first: dict[frozenset[int], CutModel] = {}
    check_plans(choice.plans, len(run.loaded.stack))
    for label, plan in choice.plans.items():
        with run.selection.excusing(label):
            removed, contender = frozenset(plan.blocks), Contender(label)
            if removed not in first:
                first[removed] = pruned(run.loaded.stack, plan, contender)
            reached = choice.reached.get(label, ())
            models[label] = replace(first[removed], contender=contender, plan=plan, reached=reached)
    run.selection.need_any()
    if untried := next(iter(models.values())).removal.untried:
        run.progress.note(f"{run.recipe.model}: {not_tried(untried)}")
    saved = sum(model.size.bytes for label, model in models.items() if label not in run.selection.baselines)
    check_room(run, saved * (1 + len(run.healers)))
    return models


def pruned(stack: BlockStack, plan: PrunePlan, contender: Contender) -> CutModel:
    """Prepare a plan's removal; what is left of an offloaded model exists beside it, on the meta device."""
    removal = prepare(stack, plan.blocks)
    if stack.offloaded:
        kept_tensors(stack, removal)  # refuses what cannot be cut in files
        beside = shapes_only(stack.model, removal.shortened.config if removal.shortened else None)
        return CutModel(contender, plan, Size.of(find_blocks(beside)), removal, beside)
    with removal.applied():
        return CutModel(contender, plan, Size.of(stack), removal)


def check_room(run: Run, need: int) -> None:
    """Refuse to write checkpoints of `need` bytes if there is not enough disk space, or memory to load one back.

    Raises:
        OutputError: there is not enough disk space or memory.
    """
    if run.stage is None:
        return
    if need > (free := shutil.disk_usage(run.stage).free):
        raise OutputError(f"the checkpoints need {need:,} bytes, and {run.stage.parent} has {free:,} left")
    if run.recipe.verify and not run.loaded.stack.offloaded:
        check_memory(run.loaded.model)


def prune_by_amount(run: Run) -> StageResults:
    """Remove the recipe's amount by each scorer, let each healer repair each pruned model, and measure the quality."""
    choice = choose(run)
    models = prepare_removals(run, choice)
    metrics = run.evaluation.of(run.evaluators, "quality")
    models = measure_quality(run, models)
    healed, failed = heal_pruned(run, models)
    return StageResults(choice.importance, models | measure_quality(run, healed), metrics, failed=failed)


def measure_quality(run: Run, models: Mapping[str, CutModel]) -> dict[str, CutModel]:
    """Measure the quality of pruned models, by label; equal models are measured once."""
    measured: dict[str, CutModel] = {}
    first: dict[tuple[frozenset[int], str], str] = {}
    for label, model in models.items():
        same = first.setdefault(model.key, label)
        if metrics := measured[same].metrics if same in measured else ():
            run.progress.note(f"{label} removes the same as {same}, whose metrics stand for both")
        else:
            metrics = _metrics(run, label, model, "quality")
        measured[label] = replace(model, metrics=metrics)
    return measured


def measure_costs(run: Run, stages: StageResults) -> StageResults:
    """Measure the costs of all models one right after the other, so that the machine's load is about the same."""
    intact = run.evaluation.of(run.evaluators, "cost")
    models = {
        label: replace(model, footprint=_metrics(run, label, model, "cost")) for label, model in stages.models.items()
    }
    return replace(stages, models=models, footprint=intact)


def measure_fidelity(run: Run, models: Mapping[str, CutModel]) -> Mapping[str, CutModel]:
    """Measure how far pruned models are from the intact one, by label; equal models are measured once."""
    if (comparer := comparer_of(run.evaluators)) is None or run.reserved is None:
        return models
    comparing = Comparing(*comparer, run.loaded.model, run.loaded.tokenizer, run.progress)
    known: dict[tuple[frozenset[int], str], Fidelity | None] = {}
    for label, model in models.items():
        if model.key not in known:
            beside = model.beside or model.removal.beside()
            baseline = model.contender.scorer in run.selection.baselines
            known[model.key] = comparing.of(beside, run.reserved, label, baseline=baseline)
    if comparing.failed is not None:
        run.evaluation.failed[comparer[0]] = comparing.failed
    return {label: replace(model, fidelity=known[model.key]) for label, model in models.items()}


def _metrics(run: Run, label: str, model: CutModel, kind: str) -> list[Metric]:
    """Run the evaluators of a kind on a pruned model."""
    with model.in_place() as weights:
        return run.evaluation.beside(weights).of(run.evaluators, kind, label)


def heal_pruned(run: Run, models: Mapping[str, CutModel]) -> tuple[dict[str, CutModel], dict[str, str]]:
    """Let every healer repair every pruned model. Plans that remove the same blocks share a healed model.

    Returns:
        The healed models, and for each model that could not be healed, the reason; both by label, `SCORER+HEALER`.
    """
    healed: dict[str, CutModel] = {}
    failed: dict[str, str] = {}
    first: dict[tuple[frozenset[int], str], str] = {}
    for (scorer, model), healer in product(models.items(), run.healers):
        contender = Contender(scorer, healer)
        label = contender.label
        same = first.setdefault((model.key[0], healer), label)
        if same in failed:
            failed[label] = failed[same]
        elif same in healed:
            known = healed[same]
            healed[label] = replace(model, contender=contender, beside=known.beside, healing=known.healing)
        else:
            run.progress.note(f"heal {label}")
            try:
                done = run.heal(healer, model.removal)
            except (ModelError, PluginError, NonFiniteError) as error:
                failed[label] = str(error)
                run.progress.note(f"{label} is left out: {error}")
            else:
                what = repaired(done, run.further)
                healed[label] = replace(model, contender=contender, beside=done.model, healing=what)
    return healed, failed
