"""How much quality is lost with randomly drawn blocks: `python benchmarks/random_removal.py`."""

from __future__ import annotations

import random
import statistics
from typing import Annotated

import typer

import layerimp
from layerimp.defaults import STARTER, STARTER_TASKS
from layerimp.pipeline.document_halves import kept
from layerimp.registry.catalog import registry
from layerimp.surgery.removal import pruned


def main(
    model: Annotated[str, typer.Option(help="Model directory, hub id or shipped name.")] = STARTER,
    tasks: Annotated[str, typer.Option(help="Tasks, comma-separated.")] = ",".join(STARTER_TASKS),
    remove: Annotated[int, typer.Option(help="Blocks per draw.")] = 3,
    draws: Annotated[int, typer.Option(help="Draws.")] = 20,
    limit: Annotated[int | None, typer.Option(help="Documents per task.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
) -> None:
    loaded, tokenizer = layerimp.load(model)
    num_blocks = len(layerimp.find_blocks(loaded))
    harness = registry().get("evaluator", "harness")
    evaluator = harness(harness.Config(tasks=tuple(tasks.split(",")), limit=limit, batch_size=32))
    before = evaluator.evaluate(loaded, tokenizer)
    for metric in before:
        print(f"intact: {metric.task} {metric.name} {metric.value:.4g}")
    rng, lost = random.Random(seed), []
    for _ in range(draws):
        blocks = sorted(rng.sample(range(num_blocks), remove))
        with pruned(loaded, blocks):
            after = evaluator.evaluate(loaded, tokenizer)
        worst = kept(before, after)
        if worst is None:
            raise typer.BadParameter("the intact model knows too little of these tasks", param_hint="--tasks")
        lost.append(1 - worst.mean)
        values = ", ".join(f"{metric.name} {metric.value:.4g}" for metric in after)
        print(f"without {blocks}: loses {lost[-1]:.1%} ({values})", flush=True)
    print(f"median of what is lost over {draws} draws of {remove} blocks: {statistics.median(lost):.1%}")


if __name__ == "__main__":
    typer.run(main)
