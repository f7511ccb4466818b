"""Costs that do not depend on the amount of text: 16-bit products, preparing and applying a removal, finding tasks.

    python benchmarks/fixed_costs.py --model DIR

Each figure is the median wall-clock time of several rounds, so the machine should be idle.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from layerimp_harness.builtin import entries

import layerimp
from layerimp.blocks.forward import called
from layerimp.blocks.timing import seconds_of
from layerimp.surgery.removal import prepare


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Return the median time of some work, after one round to warm up."""
    work()
    return statistics.median(once(work) for _ in range(rounds))


def once(work: Callable[[], object]) -> float:
    """Return the time of some work, which may be faster the second time."""
    return seconds_of(work, torch.device("cpu"))


def main(model: Annotated[Path, typer.Option(help="A model directory.")]) -> None:
    """Measure and print."""
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.randn(2048, 128).to(dtype), torch.randn(128, 512).to(dtype)
        product = partial(torch.matmul, left, right)
        print(f"a product of 2048x128 by 128x512 in {dtype}: {1000 * seconds(product, 50):.2f} ms")
    loaded, _ = layerimp.load(model, dtype="float32")
    stack = layerimp.find_blocks(loaded)
    gone = list(range(len(stack) // 2, len(stack) // 2 + 4))
    removal = prepare(stack, gone)

    def apply() -> None:
        with removal.applied():
            pass

    ids = torch.arange(1, 13)[None]
    with torch.no_grad():
        print(f"a pass of 12 tokens with the head: {seconds(lambda: called(loaded, input_ids=ids)):.3f} s")
    print(f"preparing the removal of blocks {gone}: {seconds(lambda: prepare(stack, gone)):.3f} s")
    print(f"applying it, with its proof: {seconds(apply):.3f} s")
    for name in ("wikitext", "mmlu"):
        print(f"finding the task {name}: {once(partial(entries, [name])):.2f} s")
    from lm_eval.tasks import TaskManager

    print(f"lm-eval's whole index: {once(TaskManager):.2f} s")


if __name__ == "__main__":
    typer.run(main)
