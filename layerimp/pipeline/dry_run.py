"""What `run`, `prune`, `shrink` and `heal` would do, as far as this is known before weights are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from layerimp.errors import SurgeryError
from layerimp.healer import Scope
from layerimp.healing.origin import check_shapes
from layerimp.indices import kept_blocks, named, runs_of
from layerimp.pipeline.blocks_for_size import Goal
from layerimp.pipeline.keeping import longest_plan
from layerimp.pipeline.memory import Memory, most_gaps
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import budget_for, budget_of, row_length
from layerimp.pipeline.trial import trial
from layerimp.pipeline.workload import ROUGHLY, DryRun, Range, Stage, Workload, bounds, sizes_of
from layerimp.scoring.passes import check_offloading, shared_passes

if TYPE_CHECKING:
    from layerimp.pipeline.heal_checkpoint import PreparedHealing
    from layerimp.pipeline.prepare import Prepared

SEARCHED = "how many blocks may go is found by measuring pruned models, and not known before"


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
    workload, num_blocks, ledger = Workload(outline, recipe, length, memory), len(outline.stack), outline.ledger
    plans, count = _removed(prepared, outline)

    def left(quantity: str) -> list[float]:
        if plans:
            return [ledger.left(plan).of(quantity) for plan in plans]
        budget = budget_for(recipe, int(count.most), num_blocks)
        return bounds(ledger, kept_blocks(budget.protected, num_blocks), count, quantity)

    counts = range(int(count.least), int(count.most) + 1)
    gaps = [len(list(runs_of(plan))) for plan in plans] or [most_gaps(counts, num_blocks)]
    scope = Scope(max(gaps), length)
    stages = list(_stages(prepared, workload, count, scope))
    decided = memory.decisions(prepared.healers, outline.stack, scope)
    notes = [f"{label}: {decision.words}" for label, decision in decided.items()]
    notes += [SEARCHED] * (recipe.keep is not None)
    tasks = recipe.tasks if "tasks" in prepared.reads else ()
    return DryRun(
        command=prepared.command,
        models={recipe.model: workload.work(count, sizes_of(ledger, left), stages, tasks)},
        output=None if recipe.output is None else str(recipe.output),
        notes=[*notes, ROUGHLY] if stages else notes,
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
    workload = Workload(teacher, recipe, row_length(recipe.calibration, pruned.stack.model), memory)
    gaps = [named(gap) for gap in runs_of(record.removed)]
    scope, healers = Scope(len(gaps), workload.length), {prepared.label: healer}
    # What no healer has changed is shared; of a model that was healed before it is not known what that is.
    both = pruned.size.parameters + teacher.size.parameters
    shared = 0 if record.healers else memory.weights * pruned.size.parameters // both
    decided = memory.decisions(healers, pruned.stack, scope, shared=shared)
    stages = [*workload.healing(healers, scope), *workload.measuring(prepared.comparers, permissions, 2)]
    sizes = sizes_of(teacher.ledger, lambda quantity: [pruned.ledger.left(()).of(quantity)])
    further = [f"further text: {recipe.heal_text}"] if recipe.heal_text else []
    notes = [f"gaps: {'; '.join(gaps)}", *further]
    return DryRun(
        command="heal",
        models={recipe.model: workload.work(Range.of(len(record.removed)), sizes, stages)},
        output=str(recipe.output),
        notes=[*notes, *(f"{label}: {decision.words}" for label, decision in decided.items()), ROUGHLY],
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
        kind = type(outline.stack.model).__name__
        goal = Goal.by_arithmetic(recipe, outline.ledger, kind)
        return [], Range.of(goal.fewest(), min(goal.budget.most, goal.fewest(lightest=True)))
    budget = budget_of(recipe, len(outline.stack))
    _refuse(outline, budget.forced)
    if recipe.keep is not None:
        return [], Range.of(0, budget.most)
    known: list[Sequence[int]] = [budget.forced] if len(budget.forced) == budget.count else []
    return known, Range.of(budget.count)


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
    yield from workload.measuring(prepared.evaluators, prepared.permissions, None if searched else models)


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
    least = max(int(count.least), len(budget.forced), 1)
    asked = longest_plan(partial(trial, prepared.pruner), budget, least)
    rows = min(workload.rows, prepared.pruner.rescored_rows or workload.rows)
    if again := [len(blocks) for removed, blocks in asked if removed]:
        yield from workload.scoring(passes, again, rows=rows, again=True)
