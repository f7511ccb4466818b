"""`layerimp inspect`: the structure of a model, shown without reading its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from layerimp._table import Column, Table
from layerimp.cli import options as o
from layerimp.defaults import STARTER
from layerimp.pruner import counted

BLOCKS_WIDTH = 18
"""The width at which long lists of blocks are broken."""

if TYPE_CHECKING:
    from layerimp.pipeline.inspection import InspectedBlock, Inspection, PartSize


@o.taking("model trust_remote_code json", argument="model")
def inspect(*, model: str | None, trust_remote_code: bool, json: bool) -> int:
    """Show a model's blocks, their sizes, and which ones can be removed, without reading its weights.

    Example: layerimp inspect DIR
    """
    from layerimp.cli.display import Screen
    from layerimp.pipeline.inspection import inspect_model
    from layerimp.recipe import Permissions

    inspection = inspect_model(model or STARTER, Permissions(trust_remote_code=trust_remote_code))
    Screen(json=json).present(inspection, (_table(inspection), *_lines(inspection)))
    return 0


def _table(inspection: Inspection) -> Table:
    """Return a table of the blocks, with equal blocks in one line, and of the parts outside the blocks."""
    from layerimp.report import words

    groups = list(_groups(inspection.blocks))
    firsts = [first for first, _ in groups]
    language = [inspection.language_model] if inspection.language_model else []
    sizes: list[InspectedBlock | PartSize | Inspection] = [*firsts, inspection.outside, *language, inspection]
    parts = ["outside", *["language model" for _ in language], "all"]
    rows = Column("blocks", [*(words.ranges(blocks) for _, blocks in groups), *parts], "left", BLOCKS_WIDTH)
    empty = [""] * (len(parts) - 1)
    cache = [words.amount(first.kv_bytes_per_token) for first in firsts]
    columns = [
        Column("parameters", [f"{size.parameters:,}" for size in sizes]),
        Column("bytes", [f"{size.bytes:,}" for size in sizes]),
        Column("cache", [*cache, *empty, words.amount(inspection.kv_bytes_per_token)]),
    ]
    if any(first.kind for first in firsts):
        columns.insert(0, Column("kind", [*(first.kind for first in firsts), *empty, ""], "left"))
    blocks = counted(inspection.num_blocks)
    title = f"{inspection.architecture}, {blocks}, stored in {inspection.stored_dtype}"
    return Table([rows, *columns], title)


def _groups(blocks: list[InspectedBlock]) -> Iterator[tuple[InspectedBlock, list[int]]]:
    """Yield groups of equal blocks, each as its first block and all indices."""
    groups: dict[tuple[object, ...], list[InspectedBlock]] = {}
    for block in blocks:
        key = (block.kind, block.alike, block.parameters, block.bytes, block.kv_bytes_per_token)
        groups.setdefault(key, []).append(block)
    for group in groups.values():
        yield group[0], [block.block for block in group]


def _lines(inspection: Inspection) -> Iterator[str]:
    """Yield the lines that explain the table, and that say what can be removed."""
    yield "numbers are per block; bytes: of the stored weights; cache: bytes that generation keeps per token"
    if files := inspection.files:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in files.numbers.items())
        yield f"{files.files} weight file{'s' * (files.files != 1)}: {files.bytes:,} bytes ({kinds})"
    from layerimp.report.words import gib

    memory = inspection.memory
    fits = "fits" if memory.weights <= memory.free else "does not fit, and is offloaded"
    yield (
        f"memory on {memory.device}: {gib(memory.weights)} of weights, {gib(memory.free)} free: "
        f"the model {fits} (--offload: {gib(memory.offloaded)} of weights at a time)"
    )
    removed = [block.not_removed for block in inspection.blocks]
    yield from _refusals(removed)
    yield from (f"note: {note}" for note in inspection.notes)
    yield "whether the smaller model computes the same is checked with the weights, when blocks are removed"


def _refusals(reasons: Sequence[str]) -> Iterator[str]:
    """Yield the blocks that cannot be removed, by reason; each reason is empty if the block can be removed."""
    from layerimp.report import words

    by_reason: dict[str, list[int]] = {}
    for block, reason in enumerate(reasons):
        by_reason.setdefault(reason, []).append(block)
    if list(by_reason) == [""]:
        yield "stock code builds the model without any one of its blocks"
    for reason, blocks in by_reason.items():
        if reason:
            yield f"{'block' if len(blocks) == 1 else 'blocks'} {words.ranges(blocks)} cannot be removed: {reason}"
