"""The work of a command by arithmetic: sizes, tokens, operations and times, as `--dry-run` shows them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch

from layerimp.component import versioned
from layerimp.errors import LayerimpError
from layerimp.models.dtypes import dtype_named
from layerimp.models.loading import load_tokenizer
from layerimp.pipeline.memory import Memory
from layerimp.registry.attribution import attributing
from layerimp.report.results.part import Known, Part, Versioned

if TYPE_CHECKING:
    from layerimp.evaluator import Evaluator
    from layerimp.healer import Healer, Scope
    from layerimp.pipeline.outline import Outline
    from layerimp.recipe import Permissions, Recipe
    from layerimp.scoring.passes import Pass
    from layerimp.sizes.ledger import Ledger

QUANTITIES = ("parameters", "bytes", "kv-cache")
MOMENT = 0.2
"""The speed of the machine is measured for so many seconds."""
ROUGHLY = "a time is the work over the speed of one product on this machine; reality may be twice or half that"


class Range(Part):
    """A number that may not be known exactly before the blocks are scored. If it is known, both ends are equal."""

    least: int | float
    """The smallest possible value."""
    most: int | float
    """The largest possible value."""

    @classmethod
    def of(cls, *values: float) -> Range:
        """Return the range of some values, rounded to six places."""
        return cls(least=round(min(values), 6), most=round(max(values), 6))


class SizeRange(Part):
    """A size before and after pruning."""

    original: int | float
    """The size of the intact model."""
    pruned: Range
    """The size of the pruned model, by arithmetic."""


class Stage(Part):
    """A stage in which models compute."""

    name: str
    """What is done."""
    documents: int | None
    """How many rows of text, or documents of tasks, are read each time; null if unknown."""
    tokens: Known
    """How many tokens run forward each time, about; a backward pass counts twice; null if unknown."""
    times: int | None
    """How often, at most, such as for how many models; null if that is not known, and the work is that of once."""
    operations: Known
    """The floating-point operations of all times: two for each parameter and token; null if unknown."""
    seconds: Known
    """The time, estimated from them; null if unknown."""


class CellCount(Part):
    """The cells of one kind in a grid."""

    finished: int
    """The number of finished cells."""
    most: int
    """The largest possible number of cells, including finished ones."""


class ModelWork(Part):
    """What a command would do with one model."""

    model: str
    """The model, as it was named."""
    num_blocks: int
    """The number of blocks of the intact model."""
    removed: Range
    """How many blocks are removed."""
    sizes: dict[str, SizeRange]
    """The `parameters`, the `bytes` in the stored dtype, and the `kv-cache` in bytes per token if it is known."""
    text: str | None
    """The text for scorers and healers; null if none is read."""
    rows: int
    """How many rows are drawn from it, at most; in a grid for each repeat."""
    tokens: int
    """How many tokens these rows have, at most."""
    tasks: list[str]
    """The tasks that quality is measured on."""
    stages: list[Stage]
    """The stages in which models compute."""
    memory: Memory
    """The memory for the weights."""
    cells: dict[str, CellCount]
    """The cells of a grid by kind, with those of healed models in `evaluation`; empty for other commands."""


class DryRun(Versioned):
    """The document that `run`, `prune`, `shrink`, `heal` and `bench` print with `--dry-run --json`."""

    schema_version: Literal["layerimp.dry-run/1"] = versioned("layerimp.dry-run/1")
    command: str
    """The command."""
    models: dict[str, ModelWork]
    """The models, by label; one, but for a grid."""
    output: str | None
    """The directory that would be written; null for none."""
    notes: list[str]
    """Notes for a reader."""


@dataclass(frozen=True)
class Workload:
    """Counts the work of a command with one model.

    Attributes:
        outline: The model.
        recipe: The recipe, whose text is read.
        length: The tokens in a row of that text; 0 if none is read.
        memory: The memory for the weights.
    """

    outline: Outline
    recipe: Recipe
    length: int
    memory: Memory

    @property
    def rows(self) -> int:
        """The rows of the text."""
        return self.recipe.calibration.samples

    @cached_property
    def speed(self) -> float:
        """The operations per second in products of a batch of the text and the largest matrix of a block."""
        matrices = [value for value in self.outline.stack[0].parameters() if value.ndim > 1]
        width, depth = max(matrices, key=lambda value: value.numel()).shape[-2:]
        place = {"dtype": dtype_named(self.memory.dtype), "device": torch.device(self.memory.device)}
        batch, matrix = (torch.ones(size, depth, **place) for size in (self.recipe.batch_size * self.length, width))
        float((batch @ matrix.T)[0, 0])  # the first product also loads kernels
        count, began = 0, time.perf_counter()
        while (seconds := time.perf_counter() - began) < MOMENT:
            float((batch @ matrix.T)[0, 0])  # a GPU has to be done
            count += 1
        return 2.0 * count * batch.numel() * int(width) / seconds

    def stage(
        self,
        name: str,
        documents: int | None,
        tokens: float | None,
        predicted: float,
        times: int | None = 1,
        limit: float = math.inf,
    ) -> Stage:
        """Return a stage with its work.

        Args:
            name: What is done.
            documents: How many rows or documents are read.
            tokens: The tokens that run through the blocks; None if not known.
            predicted: At how many of them the head is computed.
            times: How often; None if not known.
            limit: The most seconds that it takes each time.
        """
        operations, seconds, often = None, limit, 1 if times is None else times
        if tokens is not None:
            ledger, head = self.outline.ledger, self.outline.stack.model.get_output_embeddings()
            of_head = 0 if head is None else sum(value.numel() for value in head.parameters())
            of_blocks = ledger.left(()).parameters - ledger.outside.parameters
            operations = 2 * (of_blocks * tokens + of_head * predicted)
            seconds = min(operations / self.speed, limit)
            operations *= often
        return Stage(
            name=name, documents=documents, tokens=tokens, times=times, operations=operations, seconds=often * seconds
        )

    def scoring(
        self, passes: Sequence[Pass], asked: Sequence[int], *, rows: int, times: int = 1, again: bool = False
    ) -> Iterator[Stage]:
        """Yield a stage for each pass over some rows of the text, once for each number of blocks in `asked`."""
        for shared in passes:
            labels = ", ".join(shared.scorers)
            tokens = rows * self.length * sum(shared.sweep.passes(blocks, rows) for blocks in asked)
            predicted = tokens if shared.sweep.predicts else 0
            yield self.stage(f"score{' again' * again} by {labels}", rows, tokens, predicted, times)

    def healing(self, healers: Mapping[str, Healer], scope: Scope, times: int | None = 1) -> Iterator[Stage]:
        """Yield a stage for each healer, within its limit of minutes if it has one."""
        for label, healer in healers.items():
            with attributing("healer", healer.name, type(healer)):
                tokens = healer.tokens(scope, self.rows)
            minutes = getattr(healer.config, "minutes", None)
            limit = math.inf if minutes is None else 60 * minutes
            yield self.stage(f"heal by {label}", self.rows, tokens, tokens or 0, times, limit)

    def measuring(
        self, evaluators: Mapping[str, Evaluator], permissions: Permissions, times: int | None
    ) -> Iterator[Stage]:
        """Yield a stage for each evaluator of quality or fidelity; what it cannot tell ahead, it will say later."""
        for label, evaluator in evaluators.items():
            if evaluator.kind == "cost":
                continue
            reading = None
            with suppress(LayerimpError), attributing("evaluator", label, type(evaluator)):
                trusted = permissions.trust_remote_code
                tokenizer = load_tokenizer(self.recipe.model, trust_remote_code=trusted)
                reading = evaluator.reading(self.outline.stack.model, tokenizer, self.rows, self.length)
            name = f"{'compare' if evaluator.kind == 'fidelity' else 'evaluate'} by {label}"
            if reading is None:
                yield self.stage(name, None, None, 0, times)
            elif reading.documents:
                yield self.stage(name, reading.documents, reading.tokens, reading.predicted, times)

    def work(
        self,
        removed: Range,
        sizes: dict[str, SizeRange],
        stages: Iterable[Stage],
        tasks: Iterable[str] | None = None,
        cells: Mapping[str, CellCount] = MappingProxyType({}),
    ) -> ModelWork:
        """Return the whole work."""
        return ModelWork(
            model=self.recipe.model,
            num_blocks=len(self.outline.stack),
            removed=removed,
            sizes=sizes,
            text=str(self.recipe.calibration.source) if self.length else None,
            rows=self.rows if self.length else 0,
            tokens=self.rows * self.length,
            stages=list(stages),
            memory=self.memory,
            tasks=list(tasks or ()),
            cells=dict(cells),
        )


def sizes_of(ledger: Ledger, left: Callable[[str], Iterable[float]]) -> dict[str, SizeRange]:
    """Return the known sizes of a model and of what is left of it, which is given for each quantity."""
    whole = {quantity: ledger.left(()).of(quantity) for quantity in QUANTITIES}
    return {
        quantity: SizeRange(original=size, pruned=Range.of(*left(quantity)))
        for quantity, size in whole.items()
        if size > 0  # a size that is not known is a NaN
    }


def bounds(ledger: Ledger, free: Collection[int], count: Range, quantity: str) -> list[float]:
    """Return the least and the most of a quantity that can be left without so many of some blocks."""
    whole = ledger.left(()).of(quantity)
    taken = (ledger.removable(quantity, free), ledger.removable(quantity, free, lightest=True))
    return [whole - most[: int(number) + 1][-1] for most, number in zip(taken, (count.most, count.least), strict=True)]
