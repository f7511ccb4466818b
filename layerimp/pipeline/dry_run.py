"""What a command would do, as far as this is known before weights are read: sizes, memory, work by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from layerimp.component import versioned
from layerimp.errors import LayerimpError, SurgeryError
from layerimp.evaluator import Reading
from layerimp.healer import Scope
from layerimp.healing.origin import check_shapes
from layerimp.indices import kept_blocks, named, runs_of
from layerimp.models.dtypes import dtype_named
from layerimp.models.loading import load_tokenizer
from layerimp.pipeline.blocks_for_size import Goal
from layerimp.pipeline.keeping import longest_plan
from layerimp.pipeline.memory import Memory, most_gaps
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import budget_for, budget_of, row_length
from layerimp.pipeline.trial import trial
from layerimp.registry.attribution import attributing
from layerimp.report.results.part import Known, Part, Versioned
from layerimp.scoring.passes import check_offloading, shared_passes

if TYPE_CHECKING:
    from layerimp.evaluator import Evaluator
    from layerimp.healer import Healer
    from layerimp.pipeline.heal_checkpoint import PreparedHealing
    from layerimp.pipeline.prepare import Prepared
    from layerimp.recipe import Permissions, Recipe
    from layerimp.scoring.passes import Pass
    from layerimp.sizes.ledger import Ledger

MOMENT = 0.2
"""The speed of the machine is measured for so many seconds."""
ROUGHLY = "a time is the work over the speed of one product on this machine; reality may be twice or half that"
SEARCHED = "how many blocks may go is found by measuring pruned models, and not known before"


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
    stages: list[Stage]
    """The stages in which models compute."""
    memory: Memory
    """The memory for the weights."""


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
        permissions: Which code that came with data may run.
        memory: The memory for the weights.
        length: The tokens in a row of the text; 0 if none is read.
    """

    outline: Outline
    recipe: Recipe
    permissions: Permissions
    memory: Memory
    length: int

    @property
    def rows(self) -> int:
        """The rows of the text."""
        return self.recipe.calibration.samples

    @property
    def text(self) -> str:
        """The text in words."""
        tokens = self.rows * self.length
        return f"text: at most {self.rows:,} rows of {self.recipe.calibration.source}, {tokens:,} tokens"

    @cached_property
    def speed(self) -> float:
        """The operations per second in products of a batch of the text and the largest matrix of a block."""
        matrices = (value for value in self.outline.stack[0].parameters() if value.ndim > 1)
        width, depth = max(matrices, key=Tensor.numel).shape[-2:]
        place = {"dtype": dtype_named(self.memory.dtype), "device": torch.device(self.memory.device)}
        batch, matrix = (torch.ones(size, depth, **place) for size in (self.recipe.batch_size * self.length, width))
        named_values, threads = {"batch": batch, "matrix": matrix}, torch.get_num_threads()
        product = Timer("batch @ matrix.T", globals=named_values, num_threads=threads)
        seconds: float = product.blocked_autorange(min_run_time=MOMENT).median
        return 2.0 * batch.numel() * int(width) / seconds

    def stage(self, name: str, reading: Reading | None, times: int | None = 1, limit: float = math.inf) -> Stage:
        """Return a stage with its work.

        Args:
            name: What is done.
            reading: What a model reads each time; None if not known.
            times: How often; None if not known.
            limit: The most seconds that it takes each time.
        """
        often = 1 if times is None else times
        if reading is None:
            return Stage(name=name, documents=None, tokens=None, times=times, operations=None, seconds=often * limit)
        ledger, head = self.outline.ledger, self.outline.stack.model.get_output_embeddings()
        of_blocks = (ledger.left(()).parameters - ledger.outside.parameters) * reading.tokens
        of_head = 0 if head is None else sum(map(Tensor.numel, head.parameters())) * reading.predicted
        operations = 2 * (of_blocks + of_head)
        seconds, work = (
            min(operations / self.speed, limit),
            {"tokens": reading.tokens, "operations": often * operations},
        )
        return Stage(name=name, documents=reading.documents, times=times, seconds=often * seconds, **work)

    def scoring(
        self, passes: Sequence[Pass], asked: Sequence[int], *, rows: int, times: int = 1, again: bool = False
    ) -> Iterator[Stage]:
        """Yield a stage for each pass over some rows of the text, once for each number of blocks in `asked`."""
        for shared in passes:
            tokens = rows * self.length * sum(shared.sweep.passes(blocks, rows) for blocks in asked)
            reading = Reading(rows, tokens, tokens if shared.sweep.predicts else 0)
            yield self.stage(f"score{' again' * again} by {', '.join(shared.scorers)}", reading, times)

    def healing(self, healers: Mapping[str, Healer], scope: Scope, times: int | None = 1) -> Iterator[Stage]:
        """Yield a stage for each healer, within its limit of minutes if it has one."""
        for label, healer in healers.items():
            with attributing("healer", healer.name, type(healer)):
                tokens = healer.tokens(scope, self.rows)
            limit = 60 * (getattr(healer.config, "minutes", None) or math.inf)
            reading = None if tokens is None else Reading(self.rows, tokens, tokens)
            yield self.stage(f"heal by {label}", reading, times, limit)

    def measuring(self, evaluators: Mapping[str, Evaluator], times: int | None) -> Iterator[Stage]:
        """Yield a stage for each evaluator of quality or fidelity; what it cannot tell ahead, it will say later."""
        verbs = {"quality": "evaluate", "fidelity": "compare"}
        for label, evaluator in evaluators.items():
            if evaluator.kind not in verbs:
                continue
            reading = None
            with suppress(LayerimpError), attributing("evaluator", label, type(evaluator)):
                trusted = self.permissions.trust_remote_code
                tokenizer = load_tokenizer(self.recipe.model, trust_remote_code=trusted)
                reading = evaluator.reading(self.outline.stack.model, tokenizer, self.rows, self.length)
            if reading is None or reading.documents:
                yield self.stage(f"{verbs[evaluator.kind]} by {label}", reading, times)

    def work(self, removed: Range, sizes: dict[str, SizeRange], stages: Iterable[Stage]) -> ModelWork:
        """Return the whole work."""
        return ModelWork(
            model=self.recipe.model,
            num_blocks=len(self.outline.stack),
            removed=removed,
            sizes=sizes,
            stages=list(stages),
            memory=self.memory,
        )


def sizes_of(
    ledger: Ledger, plans: Iterable[Collection[int]], count: Range, protected: Collection[int] = ()
) -> dict[str, SizeRange]:
    """Return the known sizes of a model, and of what plans leave; without plans, of what any removal can leave."""
    sizes, free = {}, kept_blocks(protected, ledger.num_blocks)
    for quantity in ("parameters", "bytes", "kv-cache"):
        whole = ledger.left(()).of(quantity)
        left = [ledger.left(plan).of(quantity) for plan in plans]
        for number, lightest in () if left else ((count.most, False), (count.least, True)):
            left.append(whole - ledger.removable(quantity, free, lightest=lightest)[: int(number) + 1][-1])
        if whole > 0:  # a size that is not known is a NaN
            sizes[quantity] = SizeRange(original=whole, pruned=Range.of(*left))
    return sizes


def dry_run_of(prepared: Prepared) -> DryRun:
    """Tell what a prepared command would do. Nothing is loaded, scored or written.

    Raises:
        InputError: something in the recipe is wrong, as far as this can be seen without the weights.
    """
    recipe, offloaded, permissions = prepared.recipe, prepared.offloaded, prepared.permissions
    dtype = None if offloaded else recipe.dtype  # the files of an offloaded model are copied as they are
    outline = Outline.of(recipe.model, dtype=dtype, trust_remote_code=permissions.trust_remote_code)
    length = row_length(recipe.calibration, outline.stack.model) if prepared.reads_text else 0
    verifies = recipe.output is not None and (recipe.verify or offloaded)  # pruned files are tried in any case
    memory = Memory.of(outline, recipe, permissions, offloaded=offloaded, verifies=verifies)
    workload, num_blocks = Workload(outline, recipe, permissions, memory, length), len(outline.stack)
    plans, count = _removed(prepared, outline)
    protected = () if plans else budget_for(recipe, int(count.most), num_blocks).protected
    counts = range(int(count.least), int(count.most) + 1)
    gaps = [len(list(runs_of(plan))) for plan in plans] or [most_gaps(counts, num_blocks)]
    scope = Scope(max(gaps), length)
    stages = list(_stages(prepared, workload, count, scope))
    notes = [workload.text] if length else []
    if recipe.tasks and "tasks" in prepared.reads:
        notes.append(f"tasks: {', '.join(recipe.tasks)}")
    notes += _decided(memory, prepared.healers, outline, scope) + [SEARCHED] * (recipe.keep is not None)
    return DryRun(
        command=prepared.command,
        models={recipe.model: workload.work(count, sizes_of(outline.ledger, plans, count, protected), stages)},
        output=None if recipe.output is None else str(recipe.output),
        notes=notes + [ROUGHLY] * bool(stages),
    )


def healing_dry_run_of(prepared: PreparedHealing) -> DryRun:
    """Tell what a prepared healing would do. Nothing is loaded, healed or written.

    Raises:
        InputError: something in the request is wrong, as far as this can be seen without the weights.
    """
    recipe, healer, record, permissions = prepared.recipe, prepared.healer, prepared.record, prepared.permissions
    trusted = permissions.trust_remote_code
    teacher = Outline.of(record.source, trust_remote_code=trusted)
    pruned = Outline.of(recipe.model, dtype=recipe.dtype, trust_remote_code=trusted)
    check_shapes(teacher.stack, pruned.stack, record.removed)
    # Both models compute in the dtype of the pruned one.
    memory = Memory.of(pruned, recipe, permissions, verifies=recipe.verify, beside=teacher.size.parameters)
    workload = Workload(teacher, recipe, permissions, memory, row_length(recipe.calibration, pruned.stack.model))
    gaps = [named(gap) for gap in runs_of(record.removed)]
    scope, healers = Scope(len(gaps), workload.length), {prepared.label: healer}
    # What no healer has changed is shared; of a model that was healed before it is not known what that is.
    both = pruned.size.parameters + teacher.size.parameters
    shared = 0 if record.healers else memory.weights * pruned.size.parameters // both
    removed, stages = Range.of(len(record.removed)), list(workload.healing(healers, scope))
    stages += workload.measuring(prepared.comparers, 2)
    further = [f"further text: {recipe.heal_text}"] if recipe.heal_text else []
    notes = [workload.text, f"gaps: {'; '.join(gaps)}", *further]
    return DryRun(
        command="heal",
        models={recipe.model: workload.work(removed, sizes_of(teacher.ledger, [record.removed], removed), stages)},
        output=str(recipe.output),
        notes=[*notes, *_decided(memory, healers, pruned, scope, shared), ROUGHLY],
    )


def _removed(prepared: Prepared, outline: Outline) -> tuple[list[Sequence[int]], Range]:
    """Return the blocks that each plan removes, as far as they are named, and their number."""
    recipe = prepared.recipe
    if prepared.plans is not None:
        plans = [plan.blocks for plan in prepared.plans.values()]
        for blocks in plans:
            _refuse(outline, blocks)
        return plans, Range.of(*map(len, plans))  # type: ignore[return-value]
    if recipe.targets:
        goal = Goal.by_arithmetic(recipe, outline.ledger, type(outline.stack.model).__name__)
        return [], Range.of(goal.fewest(), min(goal.budget.most, goal.fewest(lightest=True)))
    budget = budget_of(recipe, len(outline.stack))
    _refuse(outline, budget.forced)
    if recipe.keep is not None:
        return [], Range.of(0, budget.most)
    known: list[Sequence[int]] = [budget.forced] if len(budget.forced) == budget.count else []
    return known, Range.of(budget.count)


def _decided(
    memory: Memory, healers: Mapping[str, Healer], outline: Outline, scope: Scope, shared: int = 0
) -> list[str]:
    """Return in words what healers decide by the memory; see `Memory.decisions`."""
    decisions = memory.decisions(healers, outline.stack, scope, shared=shared)
    return [f"{label}: {decision.words}" for label, decision in decisions.items()]


def _refuse(outline: Outline, blocks: Sequence[int]) -> None:
    """Refuse blocks that cannot be removed, as far as this can be seen without the weights."""
    if blocks and (reason := outline.refusal(blocks)):
        raise SurgeryError(f"{named(blocks)} cannot be removed: {reason}")


def _stages(prepared: Prepared, workload: Workload, count: Range, scope: Scope) -> Iterator[Stage]:
    """Yield the stages of a command; how many models a search measures is not known."""
    recipe, selection = prepared.recipe, prepared.selection
    if prepared.scores:
        yield from _scoring(prepared, workload, count)
    if not prepared.reads_text:
        return
    pruned, searched = 1 if recipe.names_all else len(selection.specs), recipe.keep is not None
    yield from workload.healing(prepared.healers, scope, None if searched else pruned)
    # Of models that one healer after the other changes, the last one is measured.
    models = 2 if prepared.command == "shrink" else 1 + pruned * (1 + len(prepared.healers))
    yield from workload.measuring(prepared.evaluators, None if searched else models)


def _scoring(prepared: Prepared, workload: Workload, count: Range) -> Iterator[Stage]:
    """Yield the passes of the first scoring, and of the pruner's further ones, as a trial with equal scores shows them.

    Scorers that do not fit the model are left out. Like a search, the trial goes down from the most blocks to what the
    pruner can plan.
    """
    selection, recipe, num_blocks = prepared.selection, prepared.recipe, len(workload.outline.stack)
    for label in list(selection.specs):
        with selection.excusing(label):
            scorers = selection.create(num_blocks, label)
            if prepared.offloaded:
                check_offloading(scorers)
    selection.need_any()
    passes = shared_passes(selection.create(num_blocks))
    yield from workload.scoring(passes, [num_blocks], rows=workload.rows)
    budget = budget_for(recipe, int(count.most), num_blocks)
    asked = longest_plan(partial(trial, prepared.pruner), budget, max(int(count.least), len(budget.forced), 1))
    rows = min(workload.rows, prepared.pruner.rescored_rows or workload.rows)
    if again := [len(blocks) for removed, blocks in asked if removed]:
        yield from workload.scoring(passes, again, rows=rows, again=True)
