"""What a search by `divergence` costs, in bare passes over the rows that it measures, and beside one by `perplexity`.

    python benchmarks/search_cost.py --model DIR --count 7 --calibration FILE.jsonl

A bare pass runs the backbone, without the head, over as many rows as are measured; it is timed before and after. Both
searches are `greedy`: that by perplexity scores all blocks again after each removal, on as many rows, and that by
divergence those that may be next. Fits and solves are counted. Times are of one process on a quiet machine.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import torch
import typer

import layerimp
from layerimp.blocks import run
from layerimp.calibration import load_calibration
from layerimp.pruner import Budget
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure
from layerimp.steps import Step, untouched
from layerimp.sweep.cache import BlockCache


def searched(stack: Any, text: Any, scorer: str, options: dict[str, Any], count: int) -> tuple[list[Step], float, int]:
    """Search greedily by a scorer; return the steps, the seconds, and how many blocks were scored in all."""
    cls = registry().get("scorer", scorer)
    cache, memory, scored = BlockCache(stack), dict[Any, Any](), 0

    def scoring(removed: Sequence[Step], among: Collection[Step] | None = None) -> layerimp.Importance:
        nonlocal scored
        steps = [step for step in untouched(removed, len(stack)) if among is None or step in among]
        scored += len(steps)
        scorers = {scorer: cls(len(steps))}
        importances = measure(stack, text, scorers, removed=removed, among=among, cache=cache, memory=memory)
        return importances[scorer]

    pruner = registry().create("pruner", "greedy", options)
    start = time.perf_counter()
    plan = pruner.plan(scoring, Budget.exactly(count, len(stack)))
    return plan.blocks, time.perf_counter() - start, scored


def main(
    model: Annotated[str, typer.Option(help="Model directory, hub id or shipped name.")],
    count: Annotated[int, typer.Option(help="How many blocks to remove.")],
    calibration: Annotated[str, typer.Option(help="Calibration text.")],
    max_length: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    dtype: Annotated[str, typer.Option(help="The model's dtype.")] = "float32",
    threads: Annotated[int, typer.Option(help="The threads of torch.")] = 2,
    rescored: Annotated[int, typer.Option(help="The steps that are scored again after each removal.")] = 3,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    stack = layerimp.find_blocks(loaded)
    text = load_calibration(calibration, tokenizer, samples=64, max_length=max_length)
    rows = 12  # the default of `divergence`

    def bare() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            for batch in text.first(rows):
                run(stack.backbone, batch)
        return time.perf_counter() - start

    bare()
    times = [bare(), bare()]
    ours, seconds, scored = searched(stack, text, "divergence", {"rescored": rescored}, count)
    times += [bare(), bare()]
    theirs, theirs_seconds, theirs_scored = searched(stack, text.first(rows), "perplexity", {}, count)
    times += [bare(), bare()]
    median = sorted(times)[len(times) // 2]
    print(f"a bare pass over {rows} rows: {median:.2f} s ({', '.join(f'{each:.2f}' for each in times)})")
    for name, blocks, took, number in (
        ("divergence", ours, seconds, scored),
        ("perplexity", theirs, theirs_seconds, theirs_scored),
    ):
        print(f"{name}: {blocks}, {number} scores, {took:.0f} s, {took / median:.1f} passes")
    print(f"divergence / perplexity: {seconds / theirs_seconds:.2f}")


if __name__ == "__main__":
    typer.run(main)
