"""`layerimp inspect`: what a model is made of, before its weights are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from layerimp.cli import options as o
from layerimp.defaults import STARTER

if TYPE_CHECKING:
    from rich.table import Table

    from layerimp.report.forecast_documents import InspectedBlock, Inspection, Part


def inspect(
    model: Annotated[
        str | None, typer.Argument(help="Model directory, or hub id. Default: starter, which ships.")
    ] = None,
    trust_remote_code: o.trust_remote_code = False,
    json: o.json = False,
) -> None:
    """Show a model's blocks, what each amounts to, and what can be removed, without reading its weights.

    Example: layerimp inspect DIR
    """
    from layerimp.cli.display import Screen
    from layerimp.pipeline.inspection import inspect_model
    from layerimp.recipe import Permissions

    screen = Screen(json=json)
    found = inspect_model(model or STARTER, Permissions(trust_remote_code=trust_remote_code))
    if json:
        screen.print_json(found)
        return
    screen.print_table(_table(found))
    for line in _lines(found):
        screen.print_text(f"{line}\n")


def _table(found: Inspection) -> Table:
    """The blocks, those that are alike in one line, and what lies outside them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from layerimp.cli.tables import shown
    from layerimp.report import cuts

    title = f"{found['architecture']}, {found['num_blocks']} blocks, stored in {found['stored_dtype']}"
    table = Table(title=shown(title), box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    table.add_column("blocks", max_width=18)
    kinds = any(block["kind"] for block in found["blocks"])
    if kinds:
        table.add_column("kind")
    for name in ("parameters", "attention", "MLP", "bytes", "cache"):
        table.add_column(name, justify="right")
    for first, blocks in _groups(found["blocks"]):
        cells = [cuts.ranges(blocks), *([first["kind"]] if kinds else [])]
        cells += [f"{first['parameters']:,}", _count(first["attention"]), _count(first["mlp"])]
        table.add_row(*map(shown, (*cells, f"{first['bytes']:,}", _amount(first["kv_bytes_per_token"]))))
    gap = [""] if kinds else []
    outside = found["outside"]
    table.add_row("outside", *gap, f"{outside['parameters']:,}", "", "", f"{outside['bytes']:,}", "")
    cache = _amount(found["kv_bytes_per_token"])
    table.add_row("all", *gap, f"{found['parameters']:,}", "", "", f"{found['bytes']:,}", cache)
    return table


def _groups(blocks: list[InspectedBlock]) -> Iterator[tuple[InspectedBlock, list[int]]]:
    """The blocks that one line tells of, with the first of them."""
    groups: dict[tuple[object, ...], list[InspectedBlock]] = {}
    for block in blocks:
        key = (block["kind"], block["alike"], block["parameters"], block["bytes"], block["kv_bytes_per_token"])
        groups.setdefault(key, []).append(block)
    for group in groups.values():
        yield group[0], [block["block"] for block in group]


def _lines(found: Inspection) -> Iterator[str]:
    """What a reader of the table has to know, and what can be removed."""
    yield "numbers of each block; bytes: of the weights, as they are stored; cache: what generation keeps of each token"
    if files := found["files"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in files["numbers"].items())
        yield f"{files['files']} weight file{'s' * (files['files'] != 1)}: {files['bytes']:,} bytes ({kinds})"
    yield from _reasons(found, "not_removed", "stock code builds the model without any one of its blocks")
    yield from _reasons(found, "not_divided", "every block can be divided into attention and MLP, so seams can be cut")
    yield from (f"note: {note}" for note in found["notes"])
    yield "that the smaller model computes the same is proved on the weights, when blocks are removed"


def _reasons(found: Inspection, which: str, fine: str) -> Iterator[str]:
    """The blocks for which something is not possible, by the reason; or that it is for all of them."""
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
