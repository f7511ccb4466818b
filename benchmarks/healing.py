"""What closed-form healing brings back, by scorer, over draws of text.

    python benchmarks/healing.py --model DIR --calibration FILE --held-out FILE --held-out FILE --count 7

Each draw of calibration text scores the blocks, and heals what is left without those that each scorer would remove (or
without --blocks). The loss is measured on other files: *recovered* is the share of the loss that the removal cost and
healing brings back, over all tokens of them; the perplexity is the geometric mean over the files. Shown are means over
the draws with their 95 % intervals (Student's t).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

import layerimp
from layerimp.blocks.stack import BlockStack
from layerimp.calibration.sampling import CalibrationSet, load_calibration
from layerimp.healing.engine import heal_beside
from layerimp.healing.loss import HeldOutLoss
from layerimp.models.discovery import find_blocks
from layerimp.pruner import Budget
from layerimp.registry.catalog import registry
from layerimp.report.cuts import ranges
from layerimp.report.statistics import interval
from layerimp.scorer import Importance
from layerimp.scoring.engine import measure
from layerimp.steps import Step, read_steps
from layerimp.surgery.removal import prepare

GREEDY = "greedy"
"""The pruner of that name with the scorer `perplexity` (SLEB)."""


@dataclass
class Found:
    """What came out for one scorer, by draw."""

    gone: list[str] = field(default_factory=list)
    losses: dict[str, list[list[float]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)


def main(
    model: Annotated[str, typer.Option(help="Model directory, hub id or shipped name.")],
    held_out: Annotated[list[Path], typer.Option(help="Text to measure on; repeatable.")],
    calibration: Annotated[str, typer.Option(help="Text to score and to heal on.")],
    count: Annotated[int, typer.Option(help="How many blocks go.")] = 3,
    blocks: Annotated[str, typer.Option(help="What goes, such as 12,17/18, in place of scorers.")] = "",
    scorer: Annotated[list[str] | None, typer.Option(help="Scorers, or greedy; repeatable.")] = None,
    healer: Annotated[list[str] | None, typer.Option(help="Healers; repeatable.")] = None,
    draws: Annotated[int, typer.Option()] = 5,
    samples: Annotated[int, typer.Option(help="Rows to heal on.")] = 64,
    max_length: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    rows: Annotated[int, typer.Option(help="Rows to measure on, of each file.")] = 16,
    packing: Annotated[Literal["windows", "rows"], typer.Option(help="As in layerimp run.")] = "windows",
) -> None:
    loaded, tokenizer = layerimp.load(model)
    stack = find_blocks(loaded)

    def drawn(source: str, amount: int, seed: int) -> CalibrationSet:
        size = {"samples": amount, "max_length": max_length}
        return load_calibration(source, tokenizer, **size, seed=seed, packing=packing)

    others = [drawn(str(path), rows, 0) for path in held_out]
    measures = [HeldOutLoss(stack, list(other)) for other in others]
    intact = [one.of(stack) for one in measures]
    found: dict[str, Found] = {}
    for seed in range(draws):
        text = drawn(calibration, samples, seed)
        if any(text.documents & other.documents for other in others):
            raise typer.BadParameter("a document of the calibration text is also held out")
        for name, gone in _chosen(stack, text, blocks, scorer or [], count):
            one = found.setdefault(name, Found())
            one.gone.append(ranges(gone))
            for healing in ("", *(healer or ["rescale", "linear"])):
                began = time.monotonic()
                rest = find_blocks(prepare(stack, gone).beside())
                if healing:
                    heal_beside(stack, rest, gone, text, registry().create("healer", healing, {}))
                one.seconds.setdefault(healing, []).append(time.monotonic() - began)
                one.losses.setdefault(healing, []).append([each.of(rest) for each in measures])
                recovered = "" if not healing else f", recovered {_recovered(one, intact, healing, -1):.1%}"
                print(
                    f"draw {seed}, {name} ({one.gone[-1]}) {healing or 'unhealed'}: perplexity "
                    f"{_perplexity(one.losses[healing][-1]):.2f}{recovered}, {one.seconds[healing][-1]:.0f} s",
                    flush=True,
                )
    _show(found, intact, draws)


def _chosen(
    stack: BlockStack, text: CalibrationSet, blocks: str, scorers: Sequence[str], count: int
) -> Iterator[tuple[str, list[Step]]]:
    """What goes, by scorer."""
    if blocks:
        yield f"blocks {blocks}", read_steps(blocks)
        return
    plain = [name for name in scorers if name != GREEDY]
    made = {name: registry().create("scorer", name, {}, len(stack)) for name in plain}
    importance = measure(stack, text, made) if made else {}
    for name in plain:
        yield name, importance[name].weakest_first()[:count]
    if GREEDY in scorers:

        def scoring(removed: Sequence[Step]) -> Importance:
            one = registry().create("scorer", "perplexity", {}, len(stack) - len(set(removed)))
            return measure(stack, text, {"one": one}, removed=removed)["one"]

        pruner = registry().create("pruner", GREEDY, {})
        yield GREEDY, pruner.within_budget(scoring, Budget.exactly(count, len(stack))).blocks


def _perplexity(losses: Sequence[float]) -> float:
    return math.exp(sum(losses) / len(losses))


def _recovered(one: Found, intact: Sequence[float], healing: str, draw: int) -> float:
    pruned, healed = sum(one.losses[""][draw]), sum(one.losses[healing][draw])
    return (pruned - healed) / (pruned - sum(intact))


def _show(found: dict[str, Found], intact: Sequence[float], draws: int) -> None:
    print(f"intact perplexity {_perplexity(intact):.2f}, {draws} draws")
    table = Table("scorer", "healer", "perplexity", "recovered", "seconds", "removed (times)")
    for name, one in found.items():
        for healing, losses in one.losses.items():
            mean = interval([sum(each) / len(each) for each in losses]).mapped(math.exp)
            shown = "" if mean.low is None or mean.high is None else f" ({mean.low:.2f} to {mean.high:.2f})"
            shares = [_recovered(one, intact, healing, draw) for draw in range(len(losses))]
            back = interval(shares)
            half = "" if back.high is None else f" ± {back.high - back.mean:.1%}"
            went = "; ".join(f"{g} ({one.gone.count(g)})" for g in dict.fromkeys(one.gone)) if not healing else ""
            seconds = sum(one.seconds[healing]) / len(losses)
            table.add_row(
                name if not healing else "",
                healing or "none",
                f"{mean.mean:.2f}{shown}",
                f"{back.mean:.1%}{half}" if healing else "",
                f"{seconds:.0f}",
                went,
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
