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


class Extent(Part):
    """A size of a model, and what is left of it, by arithmetic: two different numbers if the plan is not known."""

    original: int | float
    """The size of the intact model."""
    least: int | float
    """The smallest that may be left."""
    most: int | float
    """The largest that may be left."""

    @classmethod
    def of(cls, original: float, left: Collection[float]) -> Extent:
        """Return a size and the range of what may be left, rounded to six places."""
        return cls(original=original, least=round(min(left), 6), most=round(max(left), 6))


class Stage(Part):
    """A stage in which models compute."""

    name: str
    """What is done."""
    documents: int | None = None
    """How many rows of text, or documents of tasks, are read each time; null if unknown."""
    tokens: Known = None
    """How many tokens run forward each time, about; a backward pass counts twice; null if unknown."""
    times: int | None
    """How often, at most, such as for how many models; null if that is not known, and the work is that of once."""
    operations: Known = None
    """The floating-point operations of all times: two for each parameter and token; null if unknown."""
    seconds: Known
    """The time, estimated from them; null if unknown."""


class ModelWork(Part):
    """What a command would do with one model."""

    model: str
    """The model, as it was named."""
    sizes: dict[str, Extent]
    """The `blocks`, the `parameters`, the `bytes` in the stored dtype, and `kv-cache`, bytes per token, if known."""
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
            return Stage(name=name, times=times, seconds=often * limit)
        ledger, head = self.outline.ledger, self.outline.stack.model.get_output_embeddings()
        of_blocks = (ledger.left(()).parameters - ledger.outside.parameters) * reading.tokens
        of_head = 0 if head is None else sum(map(Tensor.numel, head.parameters())) * reading.predicted
        operations = 2 * (of_blocks + of_head)
        return Stage(
            name=name,
            documents=reading.documents,
            tokens=reading.tokens,
            times=times,
            operations=often * operations,
            seconds=often * min(operations / self.speed, limit),
        )

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


def sizes_of(
    ledger: Ledger, plans: Iterable[Collection[int]], counts: Sequence[int], protected: Collection[int] = ()
) -> dict[str, Extent]:
    """Return the sizes of a model, and of what plans leave; without plans, of what any removal of such counts leaves.

    The counts rise. A size that is not known is left out.
    """
    sizes = {"blocks": Extent.of(ledger.num_blocks, [ledger.num_blocks - count for count in counts])}
    free = kept_blocks(protected, ledger.num_blocks)
    for quantity in ("parameters", "bytes", "kv-cache"):
        original = ledger.left(()).of(quantity)
        left = [ledger.left(plan).of(quantity) for plan in plans]
        for count, lightest in () if left else ((counts[-1], False), (counts[0], True)):
            left.append(original - ledger.removable(quantity, free, lightest=lightest)[: count + 1][-1])
        if original > 0:  # a size that is not known is a NaN
            sizes[quantity] = Extent.of(original, left)
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
    plans, counts = _removed(prepared, outline)
    protected = () if plans else budget_for(recipe, counts[-1], num_blocks).protected
    gaps = [len(list(runs_of(plan))) for plan in plans] or [most_gaps(counts, num_blocks)]
    scope = Scope(max(gaps), length)
    stages, sizes = list(_stages(prepared, workload, counts, scope)), sizes_of(outline.ledger, plans, counts, protected)
    notes = [workload.text] if length else []
    if recipe.tasks and "tasks" in prepared.reads:
        notes.append(f"tasks: {', '.join(recipe.tasks)}")
    notes += _decided(memory, prepared.healers, outline, scope) + [SEARCHED] * (recipe.keep is not None)
    return DryRun(
        command=prepared.command,
        models={recipe.model: ModelWork(model=recipe.model, sizes=sizes, stages=stages, memory=memory)},
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
    stages = [*workload.healing(healers, scope), *workload.measuring(prepared.comparers, 2)]
    sizes = sizes_of(teacher.ledger, [record.removed], [len(record.removed)])
    further = [f"further text: {recipe.heal_text}"] if recipe.heal_text else []
    notes = [workload.text, f"gaps: {'; '.join(gaps)}", *further]
    return DryRun(
        command="heal",
        models={recipe.model: ModelWork(model=recipe.model, sizes=sizes, stages=stages, memory=memory)},
        output=str(recipe.output),
        notes=[*notes, *_decided(memory, healers, pruned, scope, shared), ROUGHLY],
    )


def _removed(prepared: Prepared, outline: Outline) -> tuple[list[Sequence[int]], range]:
    """Return the blocks that each plan removes, as far as they are named, and how many that may be."""
    recipe = prepared.recipe
    if prepared.plans is not None:
        plans: list[Sequence[int]] = [plan.blocks for plan in prepared.plans.values()]
        for blocks in plans:
            _refuse(outline, blocks)
        return plans, range(min(map(len, plans)), max(map(len, plans)) + 1)
    if recipe.targets:
        goal = Goal.by_arithmetic(recipe, outline.ledger, type(outline.stack.model).__name__)
        return [], range(goal.fewest(), min(goal.budget.most, goal.fewest(lightest=True)) + 1)
    budget = budget_of(recipe, len(outline.stack))
    _refuse(outline, budget.forced)
    if recipe.keep is not None:
        return [], range(budget.most + 1)
    return [budget.forced] if len(budget.forced) == budget.count else [], range(budget.count, budget.count + 1)


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


def _stages(prepared: Prepared, workload: Workload, counts: range, scope: Scope) -> Iterator[Stage]:
    """Yield the stages of a command; how many models a search measures is not known."""
    recipe, selection = prepared.recipe, prepared.selection
    if prepared.scores:
        yield from _scoring(prepared, workload, counts)
    if not prepared.reads_text:
        return
    pruned, searched = 1 if recipe.names_all else len(selection.specs), recipe.keep is not None
    yield from workload.healing(prepared.healers, scope, None if searched else pruned)
    # Of models that one healer after the other changes, the last one is measured.
    models = 2 if prepared.command == "shrink" else 1 + pruned * (1 + len(prepared.healers))
    yield from workload.measuring(prepared.evaluators, None if searched else models)


def _scoring(prepared: Prepared, workload: Workload, counts: range) -> Iterator[Stage]:
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
    budget = budget_for(recipe, counts[-1], num_blocks)
    asked = longest_plan(partial(trial, prepared.pruner), budget, max(counts[0], len(budget.forced), 1))
    rows = min(workload.rows, prepared.pruner.rescored_rows or workload.rows)
    if again := [len(blocks) for removed, blocks in asked if removed]:
        yield from workload.scoring(passes, again, rows=rows, again=True)
