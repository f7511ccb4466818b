"""The output of `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp._table import Column, Table
from layerimp.progress import span
from layerimp.report.words import amount, between, gib

if TYPE_CHECKING:
    from layerimp.pipeline.workload import DryRun, ModelWork, Range, Stage

SIZES = {"parameters": "parameters", "bytes": "bytes, stored", "kv-cache": "cache, bytes per token"}


def lines_of(dry_run: DryRun) -> Iterator[Table | str]:
    """Yield the tables and lines that show what a command would do."""
    for label, work in dry_run.models.items():
        yield _sizes(f"{dry_run.command} {label}", work)
        if work.cells:
            counts = [f"{cell.finished:,} of {cell.most:,}" for cell in work.cells.values()]
            yield Table([Column("cells", list(work.cells), "left"), Column("finished, of at most", counts)])
        if work.stages:
            yield _stages(work.stages)
        if work.text is not None:
            yield f"text: at most {work.rows:,} rows of {work.text}, {work.tokens:,} tokens"
        if work.tasks:
            yield f"tasks: {', '.join(work.tasks)}"
        memory = work.memory
        copy = f", and {gib(memory.verifying)} to verify a checkpoint" if memory.verifying else ""
        at_a_time = " at a time (offloaded)" if memory.offloaded else ""
        weights = f"{gib(memory.weights)} of weights{at_a_time} in {memory.dtype}{copy}"
        yield f"memory on {memory.device}: {weights}; {gib(memory.free)} are free"
    if dry_run.output is not None:
        yield f"output: {dry_run.output}"
    yield from (f"note: {note}" for note in dry_run.notes)


def _sizes(title: str, work: ModelWork) -> Table:
    """Return a table of the sizes before and after pruning."""
    sizes = {SIZES[name]: size for name, size in work.sizes.items()}
    left = {name: [size.pruned.least / size.original, size.pruned.most / size.original] for name, size in sizes.items()}
    columns = [
        Column("intact", [amount(size.original) for size in sizes.values()]),
        Column("pruned", [_range(size.pruned) for size in sizes.values()]),
        Column("left", [between(*shares) for shares in left.values()]),
    ]
    removed, blocks = work.removed, work.num_blocks
    share, parameters = between(removed.least / blocks, removed.most / blocks), left["parameters"]
    gone = between(1 - parameters[1], 1 - parameters[0])
    what = f"{_range(removed)} of {blocks} blocks ({share}) and {gone} of the parameters"
    return Table([Column("size", list(sizes), "left"), *columns], f"{title}: {what} would be removed")


def _stages(stages: list[Stage]) -> Table:
    """Return a table of the work in each stage; of a stage that is not estimated the rest is shown."""
    return Table(
        [
            Column("stage", [stage.name for stage in stages], "left"),
            Column(
                "rows or\ndocuments", ["?" if stage.documents is None else f"{stage.documents:,}" for stage in stages]
            ),
            Column("tokens", ["?" if stage.tokens is None else f"{stage.tokens:,.0f}" for stage in stages]),
            Column("times", ["each" if stage.times is None else f"{stage.times:,}" for stage in stages]),
            Column(
                "TFLOP", ["?" if stage.operations is None else f"{stage.operations / 1e12:,.3g}" for stage in stages]
            ),
            Column("about", ["not estimated" if stage.seconds is None else span(stage.seconds) for stage in stages]),
        ]
    )


def _range(value: Range) -> str:
    return " to ".join(dict.fromkeys((amount(value.least), amount(value.most))))
