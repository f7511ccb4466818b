"""Estimates how long the stages of a command take, from the time of one block of each kind with random weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, called, computing, with_hidden, without_cache
from layerimp.blocks.modes import quiet
from layerimp.blocks.stack import whole_or_backbone
from layerimp.calibration.splits import judging_size, sizes_of
from layerimp.errors import LayerimpError
from layerimp.evaluation.comparing import comparer_of
from layerimp.evaluation.cost import batch_of, head_share, reading_seconds
from layerimp.healer import Scope
from layerimp.models.loading import load_tokenizer
from layerimp.models.traits import classifies
from layerimp.pipeline.outline import alike, stand_in
from layerimp.pipeline.resolve import row_length
from layerimp.registry.attribution import attributing

if TYPE_CHECKING:
    from torch import nn

    from layerimp.evaluator import Evaluator, Reading
    from layerimp.healer import Effort, Healer
    from layerimp.pipeline.forecast_parts import PassForecast
    from layerimp.pipeline.outline import Outline
    from layerimp.recipe import Permissions, Recipe

REPEATS = 3
"""How often a block is timed, after one run to warm up; the median counts."""
MEASURING, JUDGING = 3, 3
"""How often the loss and the distance are measured besides the healer's work: of the intact, the pruned and the healed
model."""


class Durations:
    """Estimates times in seconds; None for what is not known.

    Args:
        outline: The model.
        recipe: The recipe, whose text is read in batches.
        length: The tokens in a row of the text.
    """

    def __init__(self, outline: Outline, recipe: Recipe, length: int) -> None:
        self._outline, self._recipe, self._length = outline, recipe, length
        self._rows = min(recipe.batch_size, recipe.calibration.samples)
        self._batches = -(-recipe.calibration.samples // self._rows)
        self._timed = lru_cache(maxsize=None)(lambda rows, tokens: block_seconds(outline, rows, tokens))

    @cached_property
    def block(self) -> float | None:
        """The time of a block for a batch of the text."""
        return self._timed(self._rows, self._length)

    @property
    def block_ms(self) -> float | None:
        """The same in milliseconds."""
        return None if self.block is None else 1000 * self.block

    @cached_property
    def _head(self) -> float:
        """The head takes as long per weight as the blocks: its size as a share of theirs."""
        return head_share(self._outline.stack)

    def _blocks(self, rows: int, tokens: int) -> float | None:
        """The time of all blocks for a batch [rows, tokens]."""
        seconds = self._timed(rows, tokens)
        return None if seconds is None else seconds * len(self._outline.stack)

    def passes(self, number: float) -> float | None:
        """Return the time of passes of all blocks over the text."""
        return None if self.block is None else number * self.block * len(self._outline.stack) * self._batches

    def scoring(self, passes: Iterable[PassForecast]) -> float | None:
        """Return the time of the passes of one scoring."""
        known = [(forecast.backbone, forecast.head or 0.0) for forecast in passes]
        if not known or any(backbone is None for backbone, _ in known):
            return None
        return self.passes(sum((backbone or 0.0) + self._head * head for backbone, head in known))

    def scope(self, gaps: int) -> Scope:
        """Return the size of a healing of so many gaps."""
        rows, held_out = sizes_of(self._recipe.calibration.samples)
        labels = classifies(self._outline.stack.model)
        judging, tokens = judging_size(self._length, classifies=labels)
        judged = judging * tokens * (1 if labels else 2)  # language models read repeated rows as well
        return Scope(gaps, rows, self._batches, held_out, self._length, judged)

    def healing(self, healers: Iterable[Healer], gaps: int) -> float | None:
        """Return the time that it takes to heal one model by each of some healers.

        Args:
            healers: The healers.
            gaps: How many places something is removed at.
        """
        scope = self.scope(gaps)
        total = 0.0
        for healer in healers:
            with attributing("healer", healer.name, type(healer)):
                effort = healer.effort(scope)
            if effort is None or self.block is None:
                return None
            each = self.block * len(self._outline.stack)
            per_token = each / (self._rows * self._length)
            measured = MEASURING * scope.held_out * self._length + JUDGING * scope.judged
            total += self._limited(effort, per_token) + per_token * measured * (1 + self._head)
        return total

    def _limited(self, effort: Effort, per_token: float) -> float:
        """Return the time of some work within its limits, and of what comes before it."""
        # A classifier's head costs nothing here, however often a limit of time lets it run.
        head = self._head * effort.head if self._head else 0.0
        work = per_token * (effort.blocks + head)
        before = 0.0 if effort.before is None else self._limited(effort.before, per_token)
        return before + (work if effort.seconds is None else min(work, effort.seconds))

    def evaluation(self, evaluators: Mapping[str, Evaluator], permissions: Permissions) -> float | None:
        """Return the time that it takes to measure the quality of one model."""
        quality = {label: evaluator for label, evaluator in evaluators.items() if evaluator.kind == "quality"}
        if not quality:
            return 0.0
        readings: list[tuple[Reading, int]] = []
        try:
            tokenizer = load_tokenizer(self._recipe.model, trust_remote_code=permissions.trust_remote_code)
            for label, evaluator in quality.items():
                with attributing("evaluator", label, type(evaluator)):
                    reading = evaluator.reading(self._outline.stack.model, tokenizer)
                if reading is None:
                    return None
                readings.append((reading, batch_of(evaluator)))
        except LayerimpError:  # the evaluation itself will say what is wrong
            return None
        return self._reading(readings)

    def fidelity(self, evaluators: Mapping[str, Evaluator]) -> float | None:
        """Return the time that it takes to compare one model with the intact one; running that takes about as long."""
        if (labelled := comparer_of(evaluators)) is None:
            return 0.0
        model, (label, comparer) = self._outline.stack.model, labelled
        with attributing("evaluator", label, type(comparer)):
            readings = comparer.readings(model, row_length(self._recipe.calibration, model))
        if readings is None:
            return None
        at_once = self._recipe.batch_size
        return self._reading((each, max(1, round(each.rows)) if each.generated else at_once) for each in readings)

    def _reading(self, readings: Iterable[tuple[Reading, int]]) -> float | None:
        """Return the time of what is read, each with the most rows in a batch."""
        seconds = [reading_seconds(each, batch, self._blocks, self._head) for each, batch in readings]
        return None if None in seconds else sum(filter(None, seconds))


def block_seconds(outline: Outline, rows: int, tokens: int) -> float | None:
    """Return the mean time of a block for one batch [rows, tokens] on the CPU, in float32.

    One block of each kind is timed.

    Returns:
        The seconds; None if there is not enough memory, or if the model cannot be built or run with random weights.
    """
    try:
        with quiet():
            stack = stand_in(outline.stack)
            if stack is None:
                return None
            kinds, timed, shown = alike(stack), dict[int, float](), dict[int, Any]()

            def step(index: int, _block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                kind = kinds[index]
                if kind not in timed:
                    timed[kind], shown[kind] = _timed(partial(forward, *args, **kwargs))
                return with_hidden(shown[kind], block_input(args, kwargs))

            ids = torch.ones((rows, tokens), dtype=torch.long)
            with ExitStack() as undo, torch.no_grad():
                for index, block in enumerate(stack):
                    undo.enter_context(computing(block, partial(step, index, block, block.forward)))
                part = whole_or_backbone(stack)
                called(part, input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(part))
    except Exception:  # a model may fail in any way with weights that were never trained
        return None
    return statistics.mean(timed[kind] for kind in kinds)


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median time of a call in seconds, and the result of the call."""
    seconds, output = [], run()
    for _ in range(REPEATS):
        start = time.perf_counter()
        output = run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), output
