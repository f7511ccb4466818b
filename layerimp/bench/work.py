"""Computes the cells of an assignment, wherever that is; the model that was loaded last is kept for the next one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.blocks import run
from layerimp.engine import Checked, measure
from layerimp.errors import LayerimpError, ModelError
from layerimp.job import Job
from layerimp.plugins import one_line
from layerimp.progress import SILENT
from layerimp.pruner import Budget, Pruner, Scoring
from layerimp.recipe import ComponentSpec, Recipe
from layerimp.registry import registry
from layerimp.report import Size
from layerimp.scorer import Importance
from layerimp.surgery import pruned
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from layerimp.bench.engines import Assignment
    from layerimp.evaluator import Evaluator

BARE_PASSES = 3
"""Timed for the unit of a scorer's cost; the median counts."""


def as_result(importance: Importance) -> dict[str, Any]:
    """An importance as plain data."""
    return asdict(importance)


def as_importance(result: Result) -> Importance:
    """An importance from plain data, in which the lengths of windows have become text."""
    parts = {name: result[name] for name in ("scores", "blocks", "columns", "notes")}
    return Importance(**parts, spans={int(length): scores for length, scores in result["spans"].items()})


def planned(cell: Cell, num_blocks: int, scoring: Scoring) -> Result:
    """The plan that a cell asks for.

    Raises:
        OptionError: no plan can keep to its budget.
    """
    content = cell.content
    pruner = registry().get("pruner", content["pruner"])(
        registry().options("pruner", content["pruner"], content["options"])
    )
    assert isinstance(pruner, Pruner)
    budget = Budget.exactly(content["count"], num_blocks, protect=content["protect"])
    return {"blocks": pruner.within_budget(scoring, budget).blocks}


class Workshop:
    """Computes assignments, one after the other.

    Args:
        device: Where models are put; None for the first GPU, else the CPU.
    """

    def __init__(self, device: str | None) -> None:
        self._device = device
        self._loaded: tuple[Recipe, Job] | None = None
        self._evaluators: dict[str, dict[str, Evaluator]] = {}

    def compute(self, assignment: Assignment) -> list[Outcome]:
        """Compute all cells; what goes wrong is an outcome too."""
        ways = {"scoring": self._score, "planning": self._plan, "evaluation": self._evaluate, "costing": self._cost}
        start = time.monotonic()
        try:
            found = ways[assignment.cells[0].kind](assignment)
        except Exception as error:
            found = dict.fromkeys((cell.key for cell in assignment.cells), said(error))
        seconds = (time.monotonic() - start) / len(assignment.cells)
        return [
            Outcome(key, None, came_of, seconds) if isinstance(came_of, str) else Outcome(key, came_of, "", seconds)
            for key, came_of in found.items()
        ]

    def _opened(self, assignment: Assignment, scorers: Mapping[str, ComponentSpec]) -> Job:
        """The model at work; loaded, unless it is the one that was needed last."""
        recipe = assignment.recipe.model_copy(
            update={"device": self._device, "baselines": {}} | ({"scorers": dict(scorers)} if scorers else {})
        )
        job = Job(recipe, assignment.permissions, SILENT)
        if self._loaded and all(getattr(self._loaded[0], name) == getattr(recipe, name) for name in ("model", "dtype")):
            before = self._loaded[1]
            job.adopt(before.model, before.tokenizer)
        else:
            self._loaded = None  # two at once might not fit
            job.open()
        self._loaded = recipe, job
        return job

    def _score(self, assignment: Assignment) -> dict[str, Result | str]:
        cells = {f"{cell.scorer}-{cell.seed}" if _blind(cell) else cell.scorer: cell for cell in assignment.cells}
        job = self._opened(assignment, {label: _spec(cell) for label, cell in cells.items()})
        lineup = job.lineup
        lineup.unnamed |= lineup.specs.keys()
        drawn: Sequence[Any] | Any = ()
        if not all(map(_blind, assignment.cells)):
            job.need_calibration()
            drawn = job.calibration()
            try:
                lineup.try_out(job.stack, next(iter(drawn)))
            except ModelError:
                if lineup.specs:
                    raise
        found: dict[str, Result | str] = {cells[label].key: reason for label, reason in lineup.left_out.items()}
        for label, came_of in _together_or_alone(job, drawn):
            found[cells[label].key] = came_of
        return found

    def _plan(self, assignment: Assignment) -> dict[str, Result | str]:
        (cell,) = assignment.cells
        assert assignment.importance is not None
        first = as_importance(assignment.importance)
        job = self._opened(assignment, {cell.scorer: assignment.recipe.scorers[cell.scorer]})
        job.need_calibration()
        drawn, cache = job.calibration(), BlockCache(job.stack)

        def scoring(removed: Sequence[int]) -> Importance:
            if not removed:
                return first
            scorers = job.lineup.made(len(job.stack) - len(set(removed)), cell.scorer)
            return measure(job.stack, drawn, scorers, removed=removed, cache=cache)[cell.scorer]

        return {cell.key: planned(cell, len(job.stack), scoring)}

    def _evaluate(self, assignment: Assignment) -> dict[str, Result | str]:
        (cell,) = assignment.cells
        blocks = cell.content["blocks"]
        job = self._opened(assignment, {})
        evaluators = self._prepared(assignment, job)
        with pruned(job.model, blocks):
            metrics = job.evaluate(evaluators, "quality", intact=not blocks)
            return {cell.key: {"metrics": [asdict(metric) for metric in metrics], "size": asdict(Size.of(job.stack))}}

    def _prepared(self, assignment: Assignment, job: Job) -> dict[str, Evaluator]:
        (cell,) = assignment.cells
        tag = cell.content["tag"]
        if tag not in self._evaluators:
            self._evaluators[tag] = job.panel.prepared()
        return job.panel.fitting(self._evaluators[tag], job.model)

    def _cost(self, assignment: Assignment) -> dict[str, Result | str]:
        (cell,) = assignment.cells
        job = self._opened(assignment, {cell.scorer: assignment.recipe.scorers[cell.scorer]})
        job.need_calibration()
        batch = [next(iter(job.calibration()))]

        def bare() -> None:
            with torch.inference_mode():
                for ready in Checked(batch, job.stack):
                    run(job.stack.backbone, ready)

        bare()
        unit = statistics.median(_timed(bare) for _ in range(BARE_PASSES))
        seconds = _timed(lambda: measure(job.stack, batch, job.lineup.made(len(job.stack))))
        return {cell.key: {"bare_passes": seconds / unit, "seconds": seconds}}


def _together_or_alone(job: Job, drawn: Any) -> Iterator[tuple[str, Result | str]]:
    """The importances in shared sweeps; where that fails, each by itself, so that only who is to blame has failed."""
    scorers = list(job.lineup.specs)
    shared = {"calibration": dict(job.report.calibration)}
    groups = [scorers] if len(scorers) < 2 else [scorers, *([label] for label in scorers)]
    for group in groups:
        try:
            found = measure(job.stack, drawn, job.lineup.made(len(job.stack), *group))
        except Exception as error:
            if len(group) == 1:
                yield group[0], said(error)
            continue
        for label, importance in found.items():
            yield label, as_result(importance) | shared
        if len(group) > 1:
            return


def _blind(cell: Cell) -> bool:
    return cell.content["calibration"] is None


def _spec(cell: Cell) -> ComponentSpec:
    return ComponentSpec(name=cell.content["scorer"], options=dict(cell.content["options"]))


def _timed(function: Any) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def said(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) if isinstance(error, LayerimpError) else one_line(error)
