"""The report on a smaller model: its verdict, and what is known of both models."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from layerimp.calibration.sampling import load_calibration
from layerimp.defaults import PROSE
from layerimp.errors import ModelError
from layerimp.fidelity import compare_texts, continuations, end_tokens, prompts
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.prepare import OFFLOADED, obstacle_to_healing
from layerimp.pipeline.reporting import recorded
from layerimp.pipeline.shrink_measured import CACHE
from layerimp.pipeline.shrink_recipe import shipped_text, trains
from layerimp.pipeline.texts import publishable
from layerimp.recipe import Permissions
from layerimp.registry.assets import assets
from layerimp.report.results.shrunk import BothSpeeds, ShrinkReport, TaskRetained
from layerimp.report.verdict import judged

if TYPE_CHECKING:
    from layerimp.evaluation.speed import Speed
    from layerimp.fidelity.record import Sample
    from layerimp.pipeline.run import CutModel, Run
    from layerimp.report.document import Results
    from layerimp.report.results.shrunk import HealingStage

CARD_PROMPTS, CARD_LENGTH = 2, 64
"""The prompts of a card, and the length of the rows that they are cut from."""


@dataclass(frozen=True)
class Made:
    """A smaller model, as it was made and measured.

    Attributes:
        model: The model.
        stages: The stages of healing, in order.
        speeds: The speeds of the `intact` and the `small` model, by label and name.
        minutes: How long each part took.
    """

    model: CutModel
    stages: Sequence[HealingStage]
    speeds: Mapping[str, Mapping[str, Speed]]
    minutes: Mapping[str, float]


def report_of(run: Run, made: Made, results: Results) -> ShrinkReport:
    """Return the document on a smaller model."""
    (removal,) = results.model.removals
    (small,) = removal.models
    assert small.size is not None
    verdict, reasons = judged(small.fidelity, removal.retained)
    caches = {"intact": results.model.footprint, "small": small.footprint}
    cached = {label: costs[CACHE].value for label, costs in caches.items() if CACHE in costs}
    return ShrinkReport(
        verdict=verdict,
        reasons=[_unmeasured(run)] if verdict == "not measured" else reasons,
        advice=list(_advice(run, small.plan.blocks, made.stages)) if verdict == "poor" else [],
        model=run.resolved.model,
        loader=run.loader,
        output=results.output,
        intact=run.size,
        small=small.size,
        cache=cached if len(cached) == len(caches) else {},
        targets=results.model.targets,
        reached=small.targets,
        speeds=dict(_speeds(made.speeds)),
        plan=small.plan,
        stages=list(made.stages),
        tasks=list(_tasks(results)),
        retained=removal.retained,
        fidelity=small.fidelity,
        samples=_samples(run, made),
        calibration=run.text.description,
        training_text=small.healing.training_text if small.healing else None,
        failures=dict(run.evaluation.failed),
        minutes=dict(made.minutes),
        memory=_memory(run),
        recipe=recorded(run).model_dump(mode="json", exclude={"overwrite", "output"}),
    )


def _unmeasured(run: Run) -> str:
    """Say why nothing was measured."""
    if run.loaded.stack.offloaded:
        return OFFLOADED
    if failed := run.evaluation.failed:
        return f"{' and '.join(failed)} failed"
    return obstacle_to_healing(run.resolved, Permissions(), run.loaded) or "there was neither a task nor text for it"


def _advice(run: Run, removed: Sequence[object], stages: Sequence[HealingStage]) -> Iterator[str]:
    """Yield what would help a poor model."""
    recipe = run.resolved
    if len(removed) > 1:
        others = {
            "--ratio": recipe.ratio,
            "--target": recipe.targets,
            "--keep": recipe.keep,
            "--blocks": recipe.blocks,
        }
        instead = "".join(f" in place of {option}" for option, value in others.items() if value)
        yield f"a smaller cut (--count {len(removed) // 2}{instead})"
    training = [stage for stage in stages if trains(recipe.healers[stage.label])]
    if training:  # tokens or steps may have ended it long before its minutes
        took, limit = training[-1].minutes, recipe.healers[training[-1].label].options.get("minutes")
        yield f"more training (--minutes {2 * max(1, round(min(took, limit or took)))})"
    else:
        yield "training (--minutes)"
    if recipe.heal_text is None or recipe.heal_text == shipped_text(recipe):
        yield "text of your own (--heal-text)"


def _speeds(measured: Mapping[str, Mapping[str, Speed]]) -> Iterator[tuple[str, BothSpeeds]]:
    if len(measured) < 2:
        return
    intact, small = measured["intact"], measured["small"]
    for name in (name for name in intact if name in small):
        factor, error = small[name].times(intact[name])
        yield (
            name,
            BothSpeeds(
                tokens=intact[name].tokens,
                intact=intact[name].mean,
                intact_stderr=intact[name].stderr,
                small=small[name].mean,
                small_stderr=small[name].stderr,
                factor=factor,
                factor_stderr=error,
            ),
        )


def _tasks(results: Results) -> Iterator[TaskRetained]:
    """Yield the tasks, each by the metric that it counts by, or by its first one if it is at chance."""
    model = results.model
    (removal,) = model.removals
    metrics, retained = removal.models[0].metrics, removal.retained.tasks if removal.retained else {}
    entries = [(row, row.entries[removal.label]) for row in model.rows if removal.label in row.entries]
    for task, kept in retained.items():
        names = [row.metric for row, entry in entries if row.task == task and (kept is None or entry.retained)]
        if names:
            intact, small = model.metrics[task][names[0]], metrics[task][names[0]]
            yield TaskRetained(task=task, metric=names[0], intact=intact, small=small, retained=kept)


def _memory(run: Run) -> dict[str, int]:
    """Return the most memory that this process has had in use so far, by device."""
    unit = 1 if sys.platform == "darwin" else 1024
    used = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if run.loaded.stack.device.type == "cuda":
        used["cuda"] = sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    return used


def _samples(run: Run, made: Made) -> list[Sample]:
    """Return how both models continue beginnings of the prose that ships, or of the measured text if that ships."""
    fidelity = made.model.fidelity
    if fidelity is None or fidelity.generation is None:
        return []
    if known := publishable(fidelity, run.reserved):
        return list(known)
    if PROSE not in assets().texts:
        return []
    model, tokenizer = made.model.beside, run.loaded.tokenizer
    assert model is not None
    text = load_calibration(PROSE, tokenizer, samples=CARD_PROMPTS, max_length=CARD_LENGTH, seed=run.recipe.seed)
    chosen = prompts(text, tokenizer, CARD_PROMPTS)
    if not chosen:
        return []
    ends = end_tokens(run.loaded.model, tokenizer)
    try:
        intact, small = (continuations(stack, chosen, ends) for stack in (run.loaded.stack, find_blocks(model)))
    except ModelError:
        return []
    return compare_texts(chosen, intact, small, tokenizer).samples
