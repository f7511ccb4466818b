"""The output of `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp._table import Column, Table
from layerimp.progress import span
from layerimp.report.words import amount, between, gib

if TYPE_CHECKING:
    from layerimp.pipeline.dry_run import DryRun, ModelWork, Stage

SIZES = {"blocks": "blocks", "parameters": "parameters", "bytes": "bytes, stored", "kv-cache": "cache, bytes per token"}


def lines_of(dry_run: DryRun) -> Iterator[Table | str]:
    """Yield the tables and lines that show what a command would do."""
    for label, work in dry_run.models.items():
        yield _sizes(f"{dry_run.command} {label}", work)
        if work.stages:
            yield _stages(work.stages)
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
    sizes = work.sizes.values()
    columns = [
        Column("size", [SIZES[name] for name in work.sizes], "left"),
        Column("intact", [amount(size.original) for size in sizes]),
        Column("pruned", [" to ".join(dict.fromkeys((amount(size.least), amount(size.most)))) for size in sizes]),
        Column("left", [between(size.least / size.original, size.most / size.original) for size in sizes]),
    ]
    return Table(columns, f"{title}: what would be left")


def _stages(stages: list[Stage]) -> Table:
    """Return a table of the work in each stage."""

    def shown(values: list[float | None], form: str = ",", unknown: str = "?") -> list[str]:
        return [unknown if value is None else format(value, form) for value in values]

    return Table(
        [
            Column("stage", [stage.name for stage in stages], "left"),
            Column("rows or\ndocuments", shown([stage.documents for stage in stages])),
            Column("tokens", shown([stage.tokens for stage in stages], ",.0f")),
            Column("times", shown([stage.times for stage in stages], unknown="each")),
            Column("TFLOP", shown([stage.operations and stage.operations / 1e12 for stage in stages], ",.3g")),
            Column("about", ["not estimated" if stage.seconds is None else span(stage.seconds) for stage in stages]),
        ]
    )
