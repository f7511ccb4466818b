"""The worker, which computes the cells of an assignment and keeps the last model loaded for the next assignment."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from layerimp.bench.cells import Outcome, Result, failure
from layerimp.bench.executors.planning import as_importance, planned
from layerimp.blocks.forward import run
from layerimp.blocks.timing import seconds_of
from layerimp.cache.unfinished import Unfinished
from layerimp.calibration.splits import read_by
from layerimp.calibration.validation import Checked
from layerimp.defaults import ORIGINAL
from layerimp.errors import ModelError
from layerimp.evaluation.comparing import Comparing, comparer_of
from layerimp.evaluation.packing import packed
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluation.selection import fitting, prepared_for
from layerimp.healing.engine import heal_beside
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.healing import check_text, configured, leave_out_measured, repaired
from layerimp.pipeline.resolve import settled
from layerimp.pipeline.scores import Memory, Rescoring
from layerimp.pipeline.stages import Loaded, load_model
from layerimp.pipeline.texts import Texts, check_calibration
from layerimp.progress import SILENT
from layerimp.pruner import Pruner, Scoring
from layerimp.report.results.models import Size
from layerimp.scoring.engine import fill, finished, measure
from layerimp.scoring.selection import Selection
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.bench.cell_graph import Measure
    from layerimp.bench.executors.base import Assignment
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.further_text import FurtherText
    from layerimp.calibration.sampling import CalibrationSet, Corpus
    from layerimp.evaluator import Evaluator
    from layerimp.fidelity.comparer import Comparer
    from layerimp.recipe import Recipe

TIMINGS, LONG = 3, 5.0
"""A scorer's cost is the median of several ratios, after one to warm up; a single ratio if that takes too long."""


class Worker:
    """Computes assignments, one after the other.

    Args:
        device: The device that models are put on; None for the first GPU, else the CPU.
    """

    def __init__(self, device: str | None) -> None:
        self._device = device
        self._loaded: tuple[tuple[str, str | None], Loaded] | None = None
        self._evaluators: dict[str, Evaluator] = {}
        self._reserved: tuple[tuple[Recipe, range], CalibrationSet, CalibrationSet] | None = None
        self._comparing: tuple[tuple[Recipe, str], Comparing] | None = None
        self._memory: tuple[CalibrationSet, Memory] | None = None

    def compute(self, assignment: Assignment, drawn: CalibrationSet | None = None) -> list[Outcome]:
        """Compute all cells; an error becomes an outcome.

        Args:
            assignment: The cells.
            drawn: The calibration set, if it is drawn already.
        """
        ways = {"scoring": self._score, "planning": self._plan, "evaluation": self._evaluate, "costing": self._cost}
        start = time.monotonic()
        try:
            outcomes = ways[assignment.first.kind](assignment, drawn)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Scorings that fail together are tried again alone, so that only the scorer at fault fails.
            together = assignment.first.kind == "scoring" and len(assignment.cells) > 1
            outcomes = {cell.key: failure(cell.key, error, again=together) for cell in assignment.cells}
        seconds = (time.monotonic() - start) / len(assignment.cells)
        return [replace(outcome, seconds=seconds) for outcome in outcomes.values()]

    def draw(self, assignment: Assignment) -> CalibrationSet:
        """Draw the calibration set of an assignment."""
        texts, corpus = self._corpus(assignment)
        return corpus.draw(texts.recipe.calibration.samples, assignment.first.seed)

    def _texts(self, assignment: Assignment) -> Texts:
        """Return what reads the texts of an assignment."""
        loaded = self._opened(assignment)
        return Texts(settled(assignment.recipe, loaded.model), loaded, assignment.permissions, SILENT)

    def _corpus(self, assignment: Assignment) -> tuple[Texts, Corpus]:
        """Return what reads the texts of an assignment, and the documents of its calibration text."""
        texts = self._texts(assignment)
        # The further text was checked when the grid began; loading its task for each draw would only cost time.
        trained_on = check_calibration(texts.recipe.model_copy(update={"heal_text": None}), texts.permissions, SILENT)
        return texts, texts.calibration(trained_on)

    def _reserved_texts(self, assignment: Assignment) -> tuple[CalibrationSet, CalibrationSet]:
        """Draw the text that the fidelity of all models of the grid is measured on, and the rows that judge healing."""
        drawn_for = assignment.recipe, assignment.layout.text_seeds
        if self._reserved is None or self._reserved[0] != drawn_for:
            texts, corpus = self._corpus(assignment)
            read = read_by(corpus, texts.recipe.calibration.samples, assignment.layout.text_seeds)
            fidelity = texts.for_fidelity(corpus, read)
            self._reserved = drawn_for, fidelity, texts.for_judging(corpus, read | fidelity.documents)
        return self._reserved[1:]

    def _opened(self, assignment: Assignment) -> Loaded:
        """Load the model of an assignment, unless it is the last one that was used."""
        recipe = assignment.recipe
        name = recipe.model, recipe.dtype
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = self._comparing = self._memory = None  # two models at once might not fit
            recipe = recipe.model_copy(update={"device": self._device})
            self._loaded = name, load_model(recipe, assignment.permissions, SILENT)
        return self._loaded[1]

    def _score(self, assignment: Assignment, drawn: CalibrationSet | None) -> dict[str, Outcome]:
        blind = assignment.first.content["calibration"] is None
        cells = {f"{cell.scorer}-{cell.seed}" if blind else cell.scorer: cell for cell in assignment.cells}
        text = None if blind else drawn or self.draw(assignment)
        stack = self._opened(assignment).stack
        specs = {label: assignment.layout.spec(cell.scorer, cell.seed) for label, cell in cells.items()}
        selection = Selection(SILENT, specs, unnamed=set(specs))
        if text is not None:
            try:
                selection.try_out(stack, next(iter(text)))
            except ModelError:
                if selection.specs:
                    raise
        outcomes = {label: Outcome(cells[label].key, error=reason) for label, reason in selection.left_out.items()}
        shared = {} if text is None else {"calibration": text.description.model_dump(mode="json")}
        scorers = selection.create(len(stack))
        memory = {} if text is None else self._memory_of(text)
        for label, filled in fill(stack, text or (), scorers, memory=memory).items():
            key = cells[label].key
            try:
                outcomes[label] = Outcome(key, {**asdict(finished(label, filled)), **shared})
            except Exception as error:
                outcomes[label] = failure(key, error)
        return {outcome.key: outcome for outcome in outcomes.values()}

    def _memory_of(self, text: CalibrationSet) -> Memory:
        """Return what sweeps have kept of the intact model on a text, if it is the last one that was scored."""
        if self._memory is None or self._memory[0] != text:
            self._memory = text, {}
        return self._memory[1]

    def _plan(self, assignment: Assignment, drawn: CalibrationSet | None) -> dict[str, Outcome]:
        cell = assignment.first
        assert assignment.importance is not None
        first = as_importance(assignment.importance)

        def rescore(pruner: Pruner) -> Scoring:
            text, rows = drawn or self.draw(assignment), pruner.rescored_rows
            text = text if rows is None else text.first(rows)
            stack, selection = self._opened(assignment).stack, _alone(assignment)
            return Rescoring(stack, text, first, selection, cell.scorer, self._memory_of(text))

        return {cell.key: Outcome(cell.key, planned(cell, first, rescore))}

    def _evaluate(self, assignment: Assignment, drawn: CalibrationSet | None) -> dict[str, Outcome]:
        """Evaluate one model; if one evaluation fails, the others are still done.

        Nothing is healed for tasks that share documents with the text, or that cannot be measured.
        """
        first, outcomes, ready = assignment.first, {}, {}
        text = (drawn or self.draw(assignment)) if "healing" in first.content else None
        loaded, recipe = self._opened(assignment), assignment.recipe
        further = None
        if text is not None and recipe.heal_text is not None:
            taken = text.documents.union(*(each.documents for each in self._reserved_texts(assignment)))
            further = self._texts(assignment).further(taken)
            for each in assignment.subject.measures:  # also those of other assignments: all measure the same model
                leave_out_measured(recipe, self._prepared(assignment, each), further)
        intact = loaded.stack.model
        for cell, wanted in assignment.measured():
            try:
                if wanted.optional and (why := self._why_left_out(assignment, wanted)):
                    outcomes[cell.key] = Outcome(cell.key, {"left_out": why})
                    continue
                evaluators, _ = fitting(recipe, self._prepared(assignment, wanted), intact, SILENT, lenient=False)
                if text is not None:
                    check_text(recipe, evaluators, text, self._reserved_texts(assignment)[1], further)
                ready[cell.key] = evaluators
            except Exception as error:
                outcomes[cell.key] = failure(cell.key, error)
        if not ready:
            return outcomes
        who = "pruned" if first.content["blocks"] else ORIGINAL
        beside = any(comparer_of(evaluators) for evaluators in ready.values())
        with self._left(assignment, text, further, beside=beside) as (stack, result):
            evaluation = Evaluation(stack.model, loaded.tokenizer, SILENT)
            for key, evaluators in ready.items():
                try:
                    if comparing := comparer_of(evaluators):
                        measured = self._compared(assignment, *comparing, stack.model)
                    else:
                        measured = packed(evaluation.of(evaluators, "quality", who))
                    outcomes[key] = Outcome(key, {**measured, **result})
                except Exception as error:
                    outcomes[key] = failure(key, error)
        return outcomes

    def _why_left_out(self, assignment: Assignment, wanted: Measure) -> str:
        """Tell why models cannot be compared with the intact one; empty if they can."""
        ((_, comparer),) = self._prepared(assignment, wanted).items()
        try:
            comparer.check(self._opened(assignment).model)
        except ModelError as error:
            return str(error)
        text, _ = self._reserved_texts(assignment)
        return "" if text.rows else f"{text.source} holds no text that the calibration sets leave over"

    def _compared(
        self, assignment: Assignment, label: str, comparer: Comparer, model: PreTrainedModel
    ) -> dict[str, Any]:
        """Compare a model with the intact one, which runs once for all models of the grid that this worker compares."""
        loaded, compared = self._opened(assignment), (assignment.recipe, label)
        if self._comparing is None or self._comparing[0] != compared:
            self._comparing = compared, Comparing(label, comparer, loaded.model, loaded.tokenizer, SILENT)
        text, _ = self._reserved_texts(assignment)
        comparing = self._comparing[1]
        fidelity = comparing.of(model, text, str(assignment.first))
        if comparing.failed is not None:
            self._comparing = None  # the next model may be compared well
        if fidelity is None:
            raise ModelError(comparing.reason or "")
        return {"fidelity": fidelity.model_dump(mode="json")}

    @contextmanager
    def _left(
        self, assignment: Assignment, text: CalibrationSet | None, further: FurtherText | None, *, beside: bool
    ) -> Iterator[tuple[BlockStack, Result]]:
        """Yield the pruned model, healed if a text is given, and the part of the results that describes it.

        The model is beside the intact one if it is healed, or if that is asked for; otherwise the intact one lacks the
        blocks in this context.
        """
        stack, content = self._opened(assignment).stack, assignment.first.content
        removal = prepare(stack, content["blocks"])
        if text is None:
            with nullcontext(removal.beside()) if beside else removal.applied() as model:
                stack = find_blocks(model)
                yield stack, {"size": Size.of(stack).model_dump()}
            return
        healer = configured(content["healing"]["healer"], content["healing"]["options"])
        pruned = find_blocks(removal.beside())
        with Unfinished() as unfinished:
            healed = heal_beside(
                *(stack, pruned, content["blocks"], text, healer),
                further=further,
                judging=self._reserved_texts(assignment)[1],
                unfinished=unfinished,
            )
            done = repaired(healed, further)
            yield pruned, {"size": Size.of(pruned).model_dump(), "healing": done.model_dump(mode="json")}

    def _prepared(self, assignment: Assignment, measure: Measure) -> dict[str, Evaluator]:
        name = f"{measure.evaluator} {measure.tag}"
        if name not in self._evaluators:
            recipe, allowed = assignment.recipe, assignment.permissions
            self._evaluators[name] = prepared_for(measure.evaluator, measure.task, recipe, allowed, SILENT)
        return {measure.evaluator: self._evaluators[name]}

    def _cost(self, assignment: Assignment, drawn: CalibrationSet | None) -> dict[str, Outcome]:
        (cell,) = assignment.cells
        batch = [next(iter(drawn or self.draw(assignment)))]
        stack = self._opened(assignment).stack
        selection = _alone(assignment)

        def bare() -> None:
            with torch.inference_mode():
                for ready in Checked(batch, stack):
                    run(stack.backbone, ready)

        def timing() -> tuple[float, float]:
            unit = seconds_of(bare, stack.device)
            scorers = selection.create(len(stack))
            seconds = seconds_of(lambda: measure(stack, batch, scorers), stack.device)
            return seconds / unit, seconds

        bare()
        timings = [timing()]
        if timings[0][1] < LONG:
            timings = [timing() for _ in range(TIMINGS)]
        passes, seconds = (statistics.median(values) for values in zip(*timings, strict=True))
        return {cell.key: Outcome(cell.key, {"bare_passes": passes, "seconds": seconds})}


def _alone(assignment: Assignment) -> Selection:
    """Return a selection of the scorer of an assignment's first cell."""
    cell = assignment.first
    return Selection(SILENT, {cell.scorer: assignment.layout.spec(cell.scorer, cell.seed)})
