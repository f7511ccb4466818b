"""`layerimp inspect`: the structure of a model, shown without reading its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp.cli import options as o
from layerimp.defaults import STARTER

BLOCKS_WIDTH = 18
"""The width at which long lists of blocks are broken."""

if TYPE_CHECKING:
    from layerimp.cli.display import Screen
    from layerimp.report.forecast_documents import InspectedBlock, Inspection, Part


@o.taking("model trust_remote_code json", argument="model")
def inspect(*, model: str | None, trust_remote_code: bool, json: bool) -> int:
    """Show a model's blocks, their sizes, and which ones can be removed, without reading its weights.

    Example: layerimp inspect DIR
    """
    from layerimp.cli.display import Screen
    from layerimp.pipeline.inspection import inspect_model
    from layerimp.recipe import Permissions

    screen = Screen(json=json)
    found = inspect_model(model or STARTER, Permissions(trust_remote_code=trust_remote_code))
    if json:
        screen.print_json(found)
        return 0
    _table(found, screen)
    for line in _lines(found):
        screen.print_text(f"{line}\n")
    return 0


def _table(found: Inspection, screen: Screen) -> None:
    """Show the blocks, with equal blocks in one line, and the parts outside the blocks."""
    from layerimp._table import Column, Table
    from layerimp.report import cuts

    groups = list(_groups(found["blocks"]))
    firsts, outside = [first for first, _ in groups], found["outside"]
    rows = Column("blocks", [*(cuts.ranges(blocks) for _, blocks in groups), "outside", "all"], "left", BLOCKS_WIDTH)
    cache = [first["kv_bytes_per_token"] for first in firsts]
    columns = [
        Column("parameters", _counts(*(one["parameters"] for one in (*firsts, outside, found)))),
        Column("bytes", _counts(*(one["bytes"] for one in (*firsts, outside, found)))),
        Column("attention", [*(_count(first["attention"]) for first in firsts), "", ""]),
        Column("MLP", [*(_count(first["mlp"]) for first in firsts), "", ""]),
        Column("cache", [*map(_amount, cache), "", _amount(found["kv_bytes_per_token"])]),
    ]
    if any(first["kind"] for first in firsts):
        columns.insert(0, Column("kind", [*(first["kind"] or "" for first in firsts), "", ""], "left"))
    blocks = "1 block" if found["num_blocks"] == 1 else f"{found['num_blocks']} blocks"
    title = f"{found['architecture']}, {blocks}, stored in {found['stored_dtype']}"
    screen.print_table(Table([rows, *columns], title))


def _counts(*numbers: int) -> list[str]:
    return [f"{number:,}" for number in numbers]


def _groups(blocks: list[InspectedBlock]) -> Iterator[tuple[InspectedBlock, list[int]]]:
    """Yield groups of equal blocks, each as its first block and all indices."""
    groups: dict[tuple[object, ...], list[InspectedBlock]] = {}
    for block in blocks:
        key = (block["kind"], block["alike"], block["parameters"], block["bytes"], block["kv_bytes_per_token"])
        groups.setdefault(key, []).append(block)
    for group in groups.values():
        yield group[0], [block["block"] for block in group]


def _lines(found: Inspection) -> Iterator[str]:
    """Yield the lines that explain the table, and that say what can be removed."""
    yield "numbers are per block; bytes: of the stored weights; cache: bytes that generation keeps per token"
    if files := found["files"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in files["numbers"].items())
        yield f"{files['files']} weight file{'s' * (files['files'] != 1)}: {files['bytes']:,} bytes ({kinds})"
    from layerimp.cli.forecast import gib

    memory = found["memory"]
    fits = "fits" if memory["weights"] <= memory["free"] else "does not fit, and is offloaded"
    yield (
        f"memory on {memory['device']}: {gib(memory['weights'])} of weights, {gib(memory['free'])} free: "
        f"the model {fits} (--offload: {gib(memory['offloaded'])} of weights at a time)"
    )
    yield from _reasons(found, "not_removed", "stock code builds the model without any one of its blocks")
    yield from _reasons(found, "not_divided", "every block can be divided into attention and MLP, so seams can be cut")
    yield from (f"note: {note}" for note in found["notes"])
    yield "whether the smaller model computes the same is checked with the weights, when blocks are removed"


def _reasons(found: Inspection, which: str, fine: str) -> Iterator[str]:
    """Yield the blocks for which something is not possible, by reason, or a line saying that it is always possible."""
    from layerimp.report import cuts

    reasons: dict[str, list[int]] = {}
    for block in found["blocks"]:
        why = block["not_removed"] if which == "not_removed" else block["not_divided"]
        reasons.setdefault(why, []).append(block["block"])
    if list(reasons) == [""]:
        yield fine
    cannot = "cannot be removed" if which == "not_removed" else "cannot be divided into attention and MLP"
    for why, blocks in reasons.items():
        if why:
            yield f"{'block' if len(blocks) == 1 else 'blocks'} {cuts.ranges(blocks)} {cannot}: {why}"


def _count(part: Part | None) -> str:
    return "-" if part is None else f"{part['parameters']:,}"


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
