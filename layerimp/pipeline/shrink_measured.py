"""What `layerimp shrink` measures of the intact and the smaller model: quality, fidelity, sizes and speeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from layerimp.defaults import FOOTPRINT
from layerimp.evaluation.speed import speeds
from layerimp.metric import Metric
from layerimp.models.discovery import find_blocks
from layerimp.models.sizing import ledger_of
from layerimp.pipeline.document_halves import DocumentHalves
from layerimp.pipeline.keeping import searched
from layerimp.pipeline.pruning import measure_fidelity
from layerimp.pipeline.run import StageResults

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.evaluation.speed import Speed
    from layerimp.pipeline.run import CutModel, Run
    from layerimp.report.results.models import Size

CACHE = "kv_bytes_per_token"
"""The name of the evaluator's figure for the cache."""


def measured(run: Run, model: CutModel) -> tuple[StageResults, dict[str, dict[str, Speed]]]:
    """Measure both models; return their figures, and the speeds of the `intact` and the `small` model.

    If a quality was to be kept, it is measured on the documents that did not choose, and its evaluator must not fail.
    An agreement that was to be kept is left out: fidelity measures it on other text.
    """
    label, (chose, others) = model.contender.label, searched(run)
    quality = chose if run.recipe.keep_of == "quality" else others
    keeps = run.recipe.keep is not None and run.recipe.keep_of == "quality"
    # Otherwise an evaluator that fails does not cost the model, which may have been trained for hours.
    metrics = run.evaluation.of(quality, "quality", lenient=not keeps)
    with model.in_place() as weights:
        own = run.evaluation.beside(weights).of(quality, "quality", label, lenient=not keeps)
    if keeps:
        metrics, own = (list(DocumentHalves.of(each).confirmation) for each in (metrics, own))
    model = replace(model, metrics=own)
    if not run.loaded.stack.offloaded:
        model = measure_fidelity(run, {label: model})[label]
    assert model.beside is not None
    both = {"intact": run.loaded.stack, "small": find_blocks(model.beside)}
    fast = {} if run.loaded.stack.offloaded else speeds(both, run.progress)
    costs = {
        who: [*_sizes(stack, size), *_as_metrics(fast.get(who, {}))]
        for (who, stack), size in zip(both.items(), (run.size, model.size), strict=True)
    }
    model = replace(model, footprint=costs["small"])
    return StageResults(models={label: model}, metrics=metrics, footprint=costs["intact"]), fast


def _sizes(stack: BlockStack, size: Size) -> Iterator[Metric]:
    """Yield the sizes of a model, and of its cache if that is known, as metrics of cost."""
    yield Metric(FOOTPRINT, "parameters", float(size.parameters), None, higher_is_better=False)
    yield Metric(FOOTPRINT, "bytes", float(size.bytes), None, higher_is_better=False)
    kept = ledger_of(stack).left(()).of("kv-cache")
    if kept and math.isfinite(kept):
        yield Metric(FOOTPRINT, CACHE, float(kept), None, higher_is_better=False)


def _as_metrics(known: Mapping[str, Speed]) -> Iterator[Metric]:
    """Yield speeds as metrics of cost."""
    for name, speed in known.items():
        yield Metric(FOOTPRINT, f"{name}_tokens_per_second", speed.mean, speed.stderr, higher_is_better=True)
