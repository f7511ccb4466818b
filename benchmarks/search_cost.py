"""What the recommended method costs in bare passes: its search, one by `perplexity`, and the repair by `linear`.

    python benchmarks/search_cost.py --model DIR --count 7 --calibration FILE.jsonl --results FILE

A bare pass runs the backbone, without the head: for a search over as many rows as it measures, for the repair over all
rows. It is timed before and after each. Both searches are `greedy`: that by perplexity scores all blocks again after
each removal, on as many rows, and that by divergence those that may be next. Fits, solves and judging are counted.
Times are of one process on a quiet machine. The line of a model takes the place of an older one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import options as o
import torch
import typer
from finished import replace

import layerimp
from layerimp.blocks import run
from layerimp.calibration import load_calibration
from layerimp.pruner import Budget
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure, scored_blocks
from layerimp.sweep.cache import BlockCache

ROWS = 12
"""What `divergence` measures by default."""


def searched(stack: Any, text: Any, scorer: str, options: dict[str, Any], count: int) -> tuple[list[int], float, int]:
    """Search greedily by a scorer; return the removed blocks, the seconds, and how many blocks were scored in all."""
    cls = registry().get("scorer", scorer)
    cache, memory, scored = BlockCache(stack), dict[Any, Any](), 0

    def scoring(removed: Sequence[int], among: Collection[int] | None = None) -> layerimp.Importance:
        nonlocal scored
        count = len(scored_blocks(removed, len(stack), among))
        scored += count
        scorers = {scorer: cls(count)}
        importances = measure(stack, text, scorers, removed=removed, among=among, cache=cache, memory=memory)
        return importances[scorer]

    pruner = registry().create("pruner", "greedy", options)
    start = time.perf_counter()
    plan = pruner.plan(scoring, Budget.exactly(count, len(stack)))
    return plan.blocks, time.perf_counter() - start, scored


def main(
    model: o.Model,
    count: Annotated[int, typer.Option(help="How many blocks to remove.")],
    calibration: o.Calibration,
    results: Annotated[Path, typer.Option(help="The file for the costs, a JSON line for each model.")],
    max_length: o.MaxLength = 256,
    dtype: o.Dtype = "float32",
    threads: Annotated[int, typer.Option(help="The threads of torch.")] = 2,
    rescored: Annotated[int, typer.Option(help="The blocks that are scored again after each removal.")] = 3,
) -> None:
    """Measure, keep and print."""
    torch.set_num_threads(threads)
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    stack = layerimp.find_blocks(loaded)
    text = load_calibration(calibration, tokenizer, samples=64, max_length=max_length)
    rows = text.first(ROWS)

    def bare(batches: Any) -> float:
        start = time.perf_counter()
        with torch.no_grad():
            for batch in batches:
                run(stack.backbone, batch)
        return time.perf_counter() - start

    line: dict[str, Any] = {"model": Path(model).name, "count": count}
    for scorer, batches, options in (("perplexity", rows, {}), ("divergence", text, {"rescored": rescored})):
        bare(rows)
        before = [bare(rows), bare(rows)]
        blocks, seconds, scores = searched(stack, batches, scorer, options, count)
        line[scorer] = {"passes": seconds / statistics.median([*before, bare(rows), bare(rows)]), "scores": scores}
    before = [bare(text), bare(text)]
    start = time.perf_counter()
    healed = layerimp.heal(loaded, blocks, text, "linear")
    seconds = time.perf_counter() - start
    passes = seconds / statistics.median([*before, bare(text), bare(text)])
    line["linear"] = {"passes": passes, "gaps": len(healed.repairs)}
    replace(results, line)
    print(line)


if __name__ == "__main__":
    typer.run(main)
