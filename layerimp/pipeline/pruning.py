"""Prunes a model in memory by the recipe's amount, heals what is left, and measures the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from layerimp.defaults import ORIGINAL
from layerimp.errors import ModelError, NonFiniteError, PluginError
from layerimp.evaluation.comparing import Comparing, comparer_of
from layerimp.pipeline.healing import repaired
from layerimp.pipeline.removals import choose, prepare_removals
from layerimp.pipeline.run import PrunedModel, StageResults
from layerimp.report.results.contenders import Contender
from layerimp.steps import Sublayer

if TYPE_CHECKING:
    from layerimp.fidelity.record import Fidelity
    from layerimp.metric import Metric
    from layerimp.pipeline.run import Run


def prune_by_amount(run: Run) -> StageResults:
    """Remove the recipe's amount by each scorer, let each healer repair each pruned model, and measure the quality."""
    choice = choose(run)
    models = prepare_removals(run, choice)
    different = len({model.key for model in models.values()})
    run.evaluation.announce(run.evaluators, run.loaded.stack, different * (1 + len(run.healers)))
    metrics = {ORIGINAL: run.evaluation.of(run.evaluators, "quality")} | measure_quality(run, models)
    healed, failed = heal_pruned(run, models)
    metrics |= measure_quality(run, healed)
    return StageResults(choice.importance, models | healed, metrics, failed=failed)


def measure_quality(run: Run, models: Mapping[str, PrunedModel]) -> dict[str, list[Metric]]:
    """Measure the quality of pruned models, by label; equal models are measured once."""
    metrics: dict[str, list[Metric]] = {}
    first: dict[tuple[frozenset[Sublayer], str], str] = {}
    for label, model in models.items():
        same = first.setdefault(model.key, label)
        if known := metrics.get(same):
            run.progress.note(f"{label} removes the same as {same}, whose metrics stand for both")
            metrics[label] = known
        else:
            metrics[label] = measured(run, label, model, "quality")
    return metrics


def measure_costs(run: Run, models: Mapping[str, PrunedModel]) -> dict[str, list[Metric]]:
    """Measure the costs of all models one right after the other, so that the machine's load is about the same."""
    intact = run.evaluation.of(run.evaluators, "cost")
    return {ORIGINAL: intact} | {label: measured(run, label, model, "cost") for label, model in models.items()}


def measure_fidelity(run: Run, models: Mapping[str, PrunedModel]) -> dict[str, Fidelity]:
    """Measure how far pruned models are from the intact one, by label; equal models are measured once."""
    if (comparer := comparer_of(run.evaluators)) is None or run.reserved is None:
        return {}
    comparing = Comparing(*comparer, run.loaded.model, run.loaded.tokenizer, run.progress)
    known: dict[tuple[frozenset[Sublayer], str], Fidelity | None] = {}
    for label, model in models.items():
        if model.key not in known:
            beside = model.beside or model.removal.beside()
            known[model.key] = comparing.of(beside, run.reserved, label)
    if comparing.failed is not None:
        run.evaluation.failed[comparer[0]] = comparing.failed
    by_label = {label: known[model.key] for label, model in models.items()}
    return {label: fidelity for label, fidelity in by_label.items() if fidelity is not None}


def measured(run: Run, label: str, model: PrunedModel, kind: str) -> list[Metric]:
    """Run the evaluators of a kind on a pruned model."""
    with model.in_place() as pruned:
        return run.evaluation.beside(pruned).of(run.evaluators, kind, label)


def heal_pruned(run: Run, models: Mapping[str, PrunedModel]) -> tuple[dict[str, PrunedModel], dict[str, str]]:
    """Let every healer repair every pruned model. Plans that remove the same blocks share a healed model.

    Returns:
        The healed models, and for each model that could not be healed, the reason; both by label, `SCORER+HEALER`.
    """
    healed: dict[str, PrunedModel] = {}
    failed: dict[str, str] = {}
    first: dict[tuple[frozenset[Sublayer], str], str] = {}
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
                healed[label] = replace(model, contender=contender, beside=done.model, healing=repaired(done))
    return healed, failed
