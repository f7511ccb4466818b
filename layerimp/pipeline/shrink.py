"""`layerimp shrink`: from a model to one smaller checkpoint that works: choose, heal, train, measure, write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.cache.unfinished import Unfinished
from layerimp.defaults import ALL, BEST, FAST, HUB, HUB_TEXT, SCORERS, STARTER
from layerimp.errors import ModelError, OptionError
from layerimp.evaluation.selection import is_requested
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.checkpoints import describe_checkpoint, write_checkpoint
from layerimp.pipeline.keeping import prune_to_quality
from layerimp.pipeline.output import PLANS, SHRUNK, output_directory, why_not_shrunk
from layerimp.pipeline.prepare import config_of, obstacle_to_healing, prepare
from layerimp.pipeline.pruning import Choice, choose, prepare_removals
from layerimp.pipeline.reporting import results_of
from layerimp.pipeline.resolve import check_own_text
from layerimp.pipeline.run import CutModel, Run
from layerimp.pipeline.shrink_measured import measured
from layerimp.pipeline.shrink_recipe import completed, repairing, shipped_text, trains, with_training
from layerimp.pipeline.shrink_state import State
from layerimp.pipeline.shrunk import Made, report_of
from layerimp.pipeline.stages import Loaded
from layerimp.progress import SILENT, Progress
from layerimp.pruner import counted
from layerimp.recipe import Permissions, Recipe, validated
from layerimp.recipe.plans import PlanFile
from layerimp.report.document import write_json
from layerimp.report.page import write_page
from layerimp.report.results.contenders import Contender
from layerimp.report.results.models import RepairedGap
from layerimp.report.words import share_cell

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.pipeline.prepare import Prepared
    from layerimp.report.document import Results
    from layerimp.report.results.shrunk import HealingStage, ShrinkReport


def prepare_shrink(
    recipe: Recipe, permissions: Permissions, progress: Progress, loaded: Loaded | None = None
) -> Prepared:
    """Prepare `shrink`. Nothing is loaded, chosen or written.

    What cannot work with the model is left out, and a line says so: without labels or next tokens, or if the model does
    not fit into memory, the best scorer that reads the text once chooses, and nothing is healed.

    Args:
        recipe: The recipe, completed by `layerimp.pipeline.shrink_recipe`.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        loaded: The model, if it is loaded already.

    Raises:
        InputError: something in the recipe is wrong, as far as this can be seen without the weights; or the model is a
            classifier, and the recipe names no text; or the recipe requests an evaluator of costs.
    """
    if len(recipe.scorers) > 1 or ALL in recipe.scorers:
        named = ", ".join(recipe.scorers)
        raise OptionError(f"shrink chooses by one scorer, and the recipe names {named}; layerimp run compares scorers")
    check_own_text(recipe, config_of(recipe, permissions, loaded))
    if not recipe.healers:
        progress.note("the recipe names no healer: what is left is neither repaired nor trained")
    elif obstacle := obstacle_to_healing(recipe, permissions, loaded):
        recipe = _unhealed(recipe, obstacle, progress)
    elif any(map(trains, recipe.healers.values())) and recipe.heal_text is None:
        recipe = _with_shipped_text(recipe, progress)
    prepared = prepare("shrink", recipe, permissions, progress, loaded=loaded)
    for label, evaluator in prepared.evaluators.items():
        if evaluator.kind == "cost" and is_requested(recipe, label):
            raise OptionError(f"shrink measures sizes and speeds in its own way: leave out {label!r} and its options")
    return prepared


def _unhealed(recipe: Recipe, obstacle: str, progress: Progress) -> Recipe:
    """Return a recipe that heals nothing, and chooses by what reads the text once; a line says so."""
    best = {spec.name for spec in recipe.scorers.values()} == {SCORERS[BEST]}
    by = f"chosen by {FAST} ({SCORERS[FAST]}), and " if best and not recipe.names_all else ""
    progress.note(f"{by}neither healed nor measured: {obstacle}")
    plain = recipe.in_one_pass if best else recipe
    return plain.model_copy(update={"healers": {}, "heal_text": None, "tasks": ()})


def _with_shipped_text(recipe: Recipe, progress: Progress) -> Recipe:
    """Return a recipe that trains on the rest of the text that ships; a line says that this is little."""
    source = shipped_text(recipe)
    more = f"--heal-text FILE, or --heal-text {HUB} for a part of {HUB_TEXT.partition('@')[0]}"
    if source is None:
        own = recipe.calibration.source
        progress.note(
            f"training reads only the rows drawn from {own}; the rest of it: --heal-text {own}; other: {more}"
        )
        return recipe
    if recipe.model != STARTER:
        progress.note(
            f"the text {source} may be unlike yours, and is too little to train on: choose by your own with "
            f"--calibration FILE, and train on more with {more}"
        )
    return recipe.model_copy(update={"heal_text": source})


@dataclass(frozen=True)
class Shrunk:
    """A smaller model.

    Attributes:
        model: The model, which shares what no healing has changed with the intact one; None if it was only written,
            since it does not fit into memory.
        report: What it is worth, what was done, and what that cost.
    """

    model: PreTrainedModel | None
    report: ShrinkReport


def shrink(
    model: str | PreTrainedModel = STARTER,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    minutes: float | None = None,
    permissions: Permissions | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> Shrunk:
    """Make a smaller model: choose what goes, heal and train what is left, and measure it beside the intact model.

    Args:
        model: The name or the directory of the model, or the model itself, which is not changed.
        tokenizer: The tokenizer of a model that is given itself.
        minutes: How long to train, 0 for not at all; by default as long as is worth it (see `layerimp.defaults`).
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        fields: Further fields of the recipe, such as `count=4`, `heal_text="more.jsonl"` or `output="small"`; without
            an output nothing is written.

    Returns:
        The smaller model, and the report on it.

    Raises:
        InputError: something is wrong with the model or a field.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    loaded = None
    if not isinstance(model, str):
        if tokenizer is None:
            raise OptionError("a model that is given itself needs its tokenizer: shrink(model, tokenizer)")
        loaded = Loaded(model, tokenizer, find_blocks(model))
        model = str(getattr(model.config, "_name_or_path", "") or f"{type(model).__name__} in memory")
    elif tokenizer is not None:
        raise OptionError("a tokenizer is for a model that is given itself; that of a model by name is loaded with it")
    recipe = validated(Recipe, {"model": model, **fields})
    recipe = with_training(recipe, minutes, named="healers" in fields)
    device = None if loaded is None else loaded.stack.device
    recipe = completed(recipe, minutes, device)
    return shrink_by(recipe, permissions=permissions, progress=progress or SILENT, loaded=loaded)


def shrink_by(
    recipe: Recipe,
    *,
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
    loaded: Loaded | None = None,
) -> Shrunk:
    """Choose what goes, heal and train what is left, measure it beside the intact model, and write one checkpoint.

    After an interruption the same call goes on with what was not finished.

    Args:
        recipe: The recipe, completed by `layerimp.pipeline.shrink_recipe`; its healers go on from each other.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        loaded: The model, if it is loaded already.

    Raises:
        InputError: something in the recipe is wrong. If possible, this is known before any long work.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    prepared = prepare_shrink(recipe, permissions or Permissions(), progress, loaded)
    with Unfinished() as unfinished, output_directory(prepared.recipe, why_not_shrunk) as stage:
        run = Run.of(prepared, stage, unfinished, loaded)
        made, results = _made(run)
        report = report_of(run, made, results)
        if stage is not None:
            _describe(run, made, results, report)
    if report.output is not None:
        write_page(results, Path(report.output), report)
    return Shrunk(None if run.loaded.stack.offloaded else made.model.beside, report)


def _made(run: Run) -> tuple[Made, Results]:
    """Make the smaller model, measure it, and write its weights if there is an output."""
    minutes: dict[str, float] = {}
    state = State(run)
    choice, seconds = state.choice(lambda: _chosen(run))
    minutes["choose"] = seconds / 60
    (model,) = prepare_removals(replace(run, healers={}), choice).values()
    stages: list[HealingStage] = []
    if not run.loaded.stack.offloaded:
        beside = model.removal.beside()
        stages = state.healed(model.removal, beside)
        minutes |= {stage.label: stage.minutes for stage in stages}
        model = _with_stages(replace(model, beside=beside), stages)
    with _timing(minutes, "measure"):
        figures, speeds = measured(run, model)
    (model,) = figures.models.values()
    if run.stage is not None:
        with _timing(minutes, "write"):
            model = write_checkpoint(run, model, Path())
    results = replace(
        figures,
        importance=choice.importance,
        models={model.contender.label: model},
        search=choice.search,
        failed={stage.label: stage.why for stage in stages if stage.healing is None},
    )
    return Made(model, stages, speeds, minutes), results_of(run, results)


@contextmanager
def _timing(minutes: dict[str, float], part: str) -> Iterator[None]:
    """A context whose minutes count for a part."""
    start = time.monotonic()
    yield
    minutes[part] = (time.monotonic() - start) / 60


def _chosen(run: Run) -> Choice:
    """Choose what goes, by the recipe's scorer and pruner: a single plan."""
    if run.recipe.keep is not None:
        kept = prune_to_quality(replace(run, healers={label: run.healers[label] for label in repairing(run.recipe)}))
        if not kept.models:
            share = f"{run.recipe.keep:g} of the {run.recipe.keep_of}"
            raise ModelError(f"no block may go if {share} is to stay; ask for less (--keep)")
        assert kept.search is not None
        scorer = next(iter(kept.models.values())).contender.scorer
        *_, model = (each for each in kept.models.values() if each.contender.scorer == scorer)  # healed, if it keeps
        retained = share_cell(kept.search.removable[model.contender.label].confirmed)
        run.progress.note(
            f"{model.contender.label} retains {retained} of the {run.recipe.keep_of} without "
            f"{counted(len(model.plan.blocks))}, on documents that did not choose"
        )
        return Choice({scorer: model.plan}, kept.importance, search=kept.search)
    return choose(run)


def _with_stages(model: CutModel, stages: Sequence[HealingStage]) -> CutModel:
    """Return a model with what its stages of healing did together; as it was if none was kept."""
    kept = [stage.healing for stage in stages if stage.kept and stage.healing is not None]
    if not kept:
        return model
    last = [stage.healing for stage in stages if stage.healing is not None][-1]
    gaps = []
    for at_gap in zip(*(healing.gaps for healing in kept), strict=True):
        done = ", ".join(gap.done for gap in at_gap if gap.done != "nothing") or "nothing"
        numbers = {name: value for gap in at_gap for name, value in gap.numbers.items()}
        why = "; ".join(dict.fromkeys(gap.why for gap in at_gap if gap.why))
        gaps.append(RepairedGap(gap=at_gap[0].gap, removed=at_gap[0].removed, done=done, why=why, numbers=numbers))
    label = [stage.label for stage in stages if stage.kept][-1]
    contender = Contender(model.contender.scorer, label)
    texts = [healing.training_text for healing in kept if healing.training_text is not None]
    longest = max(texts, key=lambda text: text.rows, default=None)  # each stage reads the text from its beginning
    together = last.model_copy(update={"gaps": gaps, "training_text": longest})
    return replace(model, contender=contender, healing=together)


def _describe(run: Run, made: Made, results: Results, report: ShrinkReport) -> None:
    """Write what stands beside the weights: the card, the record, the plan and the report."""
    assert run.stage is not None
    (removal,) = results.model.removals
    healers = [stage.healer for stage in made.stages if stage.kept]
    describe_checkpoint(run, results, removal, Path(), healers, report)
    plans = PlanFile.of({removal.scorer: made.model.plan})
    write_json(run.stage / PLANS, plans.model_dump(mode="json"))
    write_json(run.stage / SHRUNK, report.model_copy(update={"output": None}).model_dump(mode="json"))
