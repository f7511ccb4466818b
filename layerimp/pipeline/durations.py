"""Estimates how long the stages of a command take, from the time of one block of each kind with random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from layerimp.calibration.splits import rows_of
from layerimp.errors import LayerimpError
from layerimp.evaluation.cost import batch_of, reading_seconds
from layerimp.healer import Scope
from layerimp.models.loading import load_tokenizer
from layerimp.pipeline.pace import block_seconds
from layerimp.registry.attribution import attributing

if TYPE_CHECKING:
    from layerimp.evaluator import Evaluator
    from layerimp.healer import Healer
    from layerimp.pipeline.outline import Outline
    from layerimp.recipe import Permissions, Recipe
    from layerimp.report.forecast_documents import PassForecast
    from layerimp.scoring.passes import Pass

ROUGHLY = "the times are estimates from one block with random weights, on the CPU; reality may be twice or half that"
MEASURING = 5
"""How often the loss is measured besides the healer's work: three models on one part of the text, two on another."""


def pass_forecast(shared: Pass, units: int) -> PassForecast:
    """Describe a pass over a model with so many scored units."""
    work = shared.sweep.work(units)
    return {
        "sweep": type(shared.sweep).__name__,
        "scorers": list(dict.fromkeys(label for label, _ in shared.scorers)),
        "backbone": None if work is None else work.backbone,
        "head": None if work is None else work.head,
    }


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

    @cached_property
    def _head(self) -> float:
        """The head takes as long per weight as the blocks: its size as a share of theirs."""
        ledger, head = self._outline.ledger, self._outline.stack.model.get_output_embeddings()
        of_head = sum(p.numel() for p in head.parameters()) if head is not None else 0
        return of_head / max(1, ledger.inside(ledger.sublayers).parameters)

    def _blocks(self, rows: int, tokens: int) -> float | None:
        """The time of all blocks for a batch [rows, tokens]."""
        seconds = self._timed(rows, tokens)
        return None if seconds is None else seconds * len(self._outline.stack)

    def passes(self, number: float) -> float | None:
        """Return the time of passes of all blocks over the text."""
        return None if self.block is None else number * self.block * len(self._outline.stack) * self._batches

    def scoring(self, passes: Iterable[PassForecast]) -> float | None:
        """Return the time of the passes of one scoring."""
        known = [(forecast["backbone"], forecast["head"] or 0.0) for forecast in passes]
        if not known or any(backbone is None for backbone, _ in known):
            return None
        return self.passes(sum((backbone or 0.0) + self._head * head for backbone, head in known))

    def healing(self, healers: Iterable[Healer], gaps: int) -> float | None:
        """Return the time that it takes to heal one model by each of some healers.

        Args:
            healers: The healers.
            gaps: How many places something is removed at.
        """
        rows, held_out = rows_of(self._recipe.calibration.samples)
        scope = Scope(gaps, rows, self._batches, held_out, self._length)
        total = 0.0
        for healer in healers:
            with attributing("healer", healer.name, type(healer)):
                effort = healer.effort(scope)
            if effort is None or self.block is None:
                return None
            each = self._blocks(self._rows, self._length)
            assert each is not None
            per_token, measured = each / (self._rows * self._length), MEASURING * held_out * self._length
            work = per_token * (effort.blocks + self._head * effort.head)
            total += work if effort.seconds is None else min(work, effort.seconds)
            total += per_token * measured * (1 + self._head)
        return total

    def evaluation(self, evaluators: Mapping[str, Evaluator], permissions: Permissions) -> float | None:
        """Return the time that it takes to measure the quality of one model."""
        quality = {label: evaluator for label, evaluator in evaluators.items() if evaluator.kind == "quality"}
        if not quality:
            return 0.0
        total = 0.0
        try:
            tokenizer = load_tokenizer(self._recipe.model, trust_remote_code=permissions.trust_remote_code)
            for label, evaluator in quality.items():
                with attributing("evaluator", label, type(evaluator)):
                    reading = evaluator.reading(self._outline.stack.model, tokenizer)
                if reading is None:
                    return None
                seconds = reading_seconds(reading, batch_of(evaluator), self._blocks, self._head)
                if seconds is None:
                    return None
                total += seconds
        except LayerimpError:  # the evaluation itself will say what is wrong
            return None
        return total
