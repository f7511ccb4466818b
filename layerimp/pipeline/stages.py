"""The stages of a run, each a function of what it needs: load, draw, score, plan, remove, write."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.calibration.documents import check_source, task_of
from layerimp.calibration.sampling import CalibrationSet, draw_calibration, load_calibration
from layerimp.checkpoint.record import Record
from layerimp.checkpoint.saving import check_memory, write
from layerimp.checkpoint.staging import check_name, check_target, staged
from layerimp.defaults import LENGTH
from layerimp.errors import OptionError, OutputError
from layerimp.evaluation.selection import for_training
from layerimp.models.discovery import find_blocks
from layerimp.models.loading import load
from layerimp.models.traits import classifies, longest_row
from layerimp.pipeline.ahead import budget_of, check_plans, default_ratio
from layerimp.pipeline.rescoring import rescoring
from layerimp.pipeline.resolve import made_pruner, model_anywhere, source_anywhere
from layerimp.pipeline.scores import score_blocks
from layerimp.pipeline.targets import Goal
from layerimp.pruner import Budget, PrunePlan
from layerimp.recipe import check_label
from layerimp.registry.assets import located
from layerimp.registry.attribution import attributing
from layerimp.report.data import Size, why_not_ours
from layerimp.report.model_card import model_card
from layerimp.steps import simplest
from layerimp.surgery.removal import Removal, prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.evaluator import Evaluator
    from layerimp.progress import Progress
    from layerimp.pruner import Pruner
    from layerimp.recipe import Permissions, Recipe
    from layerimp.report.data import Report
    from layerimp.scoring.selection import Selection


@dataclass(frozen=True)
class Loaded:
    """A model at work.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        stack: Its blocks.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stack: BlockStack


def load_model(recipe: Recipe, permissions: Permissions, progress: Progress) -> Loaded:
    """Load a recipe's model, and find its blocks.

    Raises:
        ModelError: the model cannot be loaded or understood.
    """
    with progress.stage(f"load {recipe.model}"):
        model, tokenizer = load(
            recipe.model,
            dtype=recipe.dtype,
            device=recipe.device,
            device_map=recipe.device_map,
            trust_remote_code=permissions.trust_remote_code,
            progress=progress,
        )
    return Loaded(model, tokenizer, find_blocks(model))


def check_calibration(recipe: Recipe, permissions: Permissions, progress: Progress) -> Evaluator | None:
    """Stop, before a model is loaded, if the calibration text is not there.

    Returns:
        Where the text is the training split of a task, the evaluator that knows it.

    Raises:
        InputError: the text, or the task, does not exist, or does not go together with another option.
    """
    spec = recipe.calibration
    if recipe.heal_text is not None:
        check_source(recipe.heal_text)
    if (task := task_of(str(spec.source))) is None:
        check_source(str(spec.source), packing=spec.packing, label_field=spec.label_field)
        return None
    if spec.label_field or ("field" in spec.model_fields_set and spec.field != "text"):
        raise OptionError(f"{spec.source} says itself where its text and its labels are; leave the fields out")
    return for_training(recipe, task, permissions, progress)


def draw(recipe: Recipe, loaded: Loaded, trained_on: Evaluator | None, progress: Progress) -> CalibrationSet:
    """Draw the calibration set.

    Args:
        recipe: The recipe, resolved.
        loaded: The model that reads the text.
        trained_on: The evaluator that knows the text, where that is the training split of a task.
        progress: Where to report progress.

    Raises:
        CalibrationError: the text cannot be read, or is too little.
        OptionError: the model has no use for what is asked for.
    """
    spec, settled = recipe.calibration, calibration_values(recipe, loaded.model, trained_on)
    source = str(spec.source)
    amount: dict[str, Any] = {"samples": spec.samples, "batch_size": recipe.batch_size, "seed": recipe.seed}
    amount |= {name: settled[name] for name in ("max_length", "packing")}
    with progress.stage(f"read {spec.source}"):
        if trained_on is not None:
            with attributing("evaluator", trained_on.name, type(trained_on)):
                documents = trained_on.training_documents(loaded.model, loaded.tokenizer)
            return draw_calibration(documents, loaded.tokenizer, source=source, **amount)
        label2id = {name: int(number) for name, number in (loaded.model.config.label2id or {}).items()}
        fields: dict[str, Any] = {"field": spec.field, "label_field": spec.label_field, "label2id": label2id}
        return load_calibration(source, loaded.tokenizer, **fields, **amount)


def calibration_values(recipe: Recipe, model: PreTrainedModel, trained_on: Evaluator | None) -> dict[str, Any]:
    """The fields of a recipe's calibration, with what depends on the model, and paths that mean the same anywhere."""
    spec = recipe.calibration
    longest = longest_row(model) or math.inf
    length = int(spec.max_length or min(LENGTH, longest))
    if length > longest:
        raise OptionError(f"max_length {length} is beyond the model's {longest} positions")
    if spec.label_field and not classifies(model):
        raise OptionError(f"labels ({spec.label_field!r}) are for classifiers; {type(model).__name__} is none")
    rows = trained_on is not None and classifies(model)
    return spec.model_dump() | {
        "max_length": length,
        "packing": spec.packing or ("rows" if rows else "windows"),
        "source": source_anywhere(str(spec.source)),
    }


def read_text(report: Report, loaded: Loaded, trained_on: Evaluator | None, progress: Progress) -> CalibrationSet:
    """Draw the calibration set, and tell of it in the report."""
    drawn = draw(report.recipe, loaded, trained_on, progress)
    report.calibration = drawn.description
    report.resolved["calibration"] = calibration_values(report.recipe, loaded.model, trained_on)
    return drawn


def plan_removals(
    report: Report, loaded: Loaded, drawn: CalibrationSet, selection: Selection, progress: Progress
) -> dict[str, PrunePlan]:
    """Score the blocks into the report, and let the pruner choose by each scorer; those that fail leave the selection.

    Where the recipe names neither an amount nor blocks, a quarter goes. With targets each plan is as long as these
    demand.
    """
    recipe, stack = report.recipe, loaded.stack
    goal = Goal.of(recipe, stack, loaded.tokenizer, progress) if recipe.targets else None
    budget = goal.budget if goal else budget_of(recipe, len(stack))
    if not goal and (ratio := default_ratio(recipe)) is not None:
        report.resolved["ratio"] = ratio
    score_blocks(report, loaded.stack, drawn, selection, progress)
    plans, pruner = {}, made_pruner(recipe.pruner, recipe.cuts)
    for label in list(selection.specs):
        with selection.excusing(label):
            ask = planner(report, loaded, drawn, selection, label, pruner, progress)
            if goal:
                plans[label], report.reached[label] = goal.reached(ask)
            else:
                plans[label] = ask(budget)
    return plans


def planner(
    report: Report,
    loaded: Loaded,
    drawn: CalibrationSet,
    selection: Selection,
    label: str,
    pruner: Pruner,
    progress: Progress,
) -> Callable[[Budget], PrunePlan]:
    """What makes plans by one scorer's scores, which are in the report."""
    recipe, name = report.recipe, report.recipe.pruner.name
    origin = {"scorer": selection.specs[label].name, "pruner": name, "model": model_anywhere(recipe.model)}
    first = report.importance[label]
    scoring = rescoring(loaded.stack, drawn, first, selection, label, progress, cuts=recipe.cuts)

    def plan(budget: Budget) -> PrunePlan:
        with attributing("pruner", name, type(pruner), f"on the scores of {label}"):
            made = pruner.within_budget(scoring, budget)
            return made.model_copy(update={**origin, "nested": pruner.nested})

    return plan


def prepare_removals(
    report: Report, loaded: Loaded, plans: Mapping[str, PrunePlan], selection: Selection, stage: Path | None
) -> dict[str, Removal]:
    """Prepare each plan's removal, and apply it once: what cannot be carried out is known before any long work.

    The report then holds the plans that can be carried out, and the sizes of what they leave.

    Returns:
        The removals, by label.

    Raises:
        OptionError: a plan removes nothing, is for another number of blocks, or has a label that cannot be one; or
            there is none.
        SurgeryError: blocks cannot be removed exactly.
        OutputError: there is no room for the checkpoints, or for loading one back.
    """
    removals = {}
    stack = loaded.stack
    check_plans(plans, len(stack))
    for label, plan in plans.items():
        check_label(label)
        with selection.excusing(label):
            removal = prepare(stack, plan.blocks)
            with removal.applied():
                report.sizes[label] = Size.of(stack)
            report.plans[label], removals[label] = plan, removal
    forget_dropped(report, selection)
    if stage:
        kept = sum(report.sizes[label].bytes for label in removals if label not in report.baselines)
        check_room(report, loaded, stage, kept * (1 + len(report.recipe.healers)))
    return removals


def forget_dropped(report: Report, selection: Selection) -> None:
    """Take the scorers out of the report that did not go on to the end.

    Raises:
        ModelError: no other is left.
    """
    selection.need_any()
    for label in selection.left_out | selection.failed:
        report.importance.pop(label, None)


def check_room(report: Report, loaded: Loaded, stage: Path, need: int) -> None:
    """Refuse to write checkpoints of so many bytes where there is no room for them, or for loading one back.

    Raises:
        OutputError: so it is.
    """
    if need > (free := shutil.disk_usage(stage).free):
        raise OutputError(f"the checkpoints need {need:,} bytes, and {stage.parent} has {free:,} left")
    if report.recipe.verify:
        check_memory(loaded.model)


def write_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    report: Report,
    label: str,
    stage: Path,
    progress: Progress,
) -> None:
    """Write a pruned model as it is now, with a card and a record, under its label, and note that in the report."""
    relative = Path("checkpoints") / label
    report.checkpoints[label] = relative
    with progress.stage(f"save {relative}"):
        (stage / relative).mkdir(parents=True)
        write(
            model,
            tokenizer,
            stage / relative,
            verify=report.recipe.verify,
            card=model_card(report, label),
            record=Record(
                source=model_anywhere(report.recipe.model),
                num_blocks=report.num_blocks,
                removed=tuple(simplest(report.plan_of(label).blocks)),
                healers=(report.recipe.healers[report.healed[label].healer].name,) if label in report.healed else (),
            ),
            max_shard_size=report.recipe.max_shard_size,
        )


@contextmanager
def output_directory(
    recipe: Recipe, why_not: Callable[[Path], str | None] = why_not_ours, others: Sequence[str] = ()
) -> Iterator[Path | None]:
    """The output directory in the making, or None where none is asked for; it appears under its name on leaving.

    Args:
        recipe: The recipe.
        why_not: Why a directory that exists may not be replaced, where the recipe allows that; None if it may.
        others: Further models that are read, and left alone.

    Raises:
        OutputError: it exists and must stay, or nothing can be written there.
    """
    if recipe.output is None:
        yield None
        return
    target = recipe.output.expanduser().absolute()
    check_name(target)
    for model in (recipe.model, *others):
        refuse_precious(target, model)
    with staged(target, why_not=why_not if recipe.overwrite else None) as stage:
        yield stage


def check_output(recipe: Recipe) -> None:
    """Refuse an output directory that could not be made; nothing is made.

    Raises:
        OutputError: it exists and must stay.
    """
    if recipe.output is not None:
        target = recipe.output.expanduser().absolute()
        check_name(target)
        refuse_precious(target, recipe.model)
        check_target(target, why_not=why_not_ours if recipe.overwrite else None)


def refuse_precious(target: Path, model: str) -> None:
    """Never write into a model's own directory, one of its parents, or a home.

    Raises:
        OutputError: the output would lie there.
    """
    source = Path(located("models", model)).expanduser()
    resolved = target.resolve()
    if source.is_dir():
        own = source.resolve()
        if own == resolved or resolved in own.parents:
            raise OutputError(f"the output {target} is the model's own directory or holds it; name another")
        if own in resolved.parents:
            raise OutputError(f"the output {target} lies in the directory of the model {model}; name another")
    if resolved == Path.home().resolve() or resolved in Path.home().resolve().parents:
        raise OutputError(f"the output {target} is a home directory or holds one; name another")
