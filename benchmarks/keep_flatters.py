"""How much better a model looks on the documents that were used to choose the number of removed blocks.

    python benchmarks/keep_flatters.py --documents 60 --draws 12

The starter is pruned by several scorers and by random draws, by 1 to --most blocks, and measured on the first
--documents of its tasks. The documents are then divided into two random halves, many times: on one half, the largest
number of blocks is found such that it and all smaller ones retain --keep, and what is retained at this number is
compared with the other half, which was not used for the choice. The output has means over divisions and methods for
which at least one block is removed: for each method separately, and for the method that can remove most blocks (among
equal ones the one that retains most), as in a comparison of methods.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import typer

from layerimp.evaluator import Metric
from layerimp.metric import by_key
from layerimp.pipeline.prepare import prepare
from layerimp.pipeline.pruning import prune_by_amount
from layerimp.pipeline.run import Run
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, Recipe, validated
from layerimp.report.retained import counting, kind_of

SCORERS = ("avss", "block-influence", "relative-magnitude", "depth")
Models = Mapping[str, Sequence[Mapping[str, Metric]]]
"""By method, the metrics of each task without 1, 2, ... blocks."""


def measured(documents: int, draws: int, most: int) -> tuple[Mapping[str, Metric], Models]:
    """The metrics by which each task counts: of the intact model, and of the pruned ones."""
    scorers = dict.fromkeys(SCORERS) | {f"random-{n}": {"name": "random", "options": {"seed": n}} for n in range(draws)}
    intact: dict[str, Metric] = {}
    models: dict[str, list[Mapping[str, Metric]]] = {}
    for count in range(1, most + 1):
        fields = {"scorers": scorers, "baselines": {}, "evaluators": ["harness"], "limit": documents, "count": count}
        prepared = prepare("run", validated(Recipe, fields), Permissions(), SILENT)
        stages = prune_by_amount(Run.of(prepared, None))
        intact = counting(stages.metrics)
        for label, model in stages.models.items():
            table = by_key(model.metrics)
            models.setdefault(label, []).append({task: table[task, metric.name] for task, metric in intact.items()})
    return intact, models


def parting(intact: Mapping[str, Metric], rng: random.Random) -> dict[str, np.ndarray]:
    """By task, whether each document is in the half that searches."""
    halves = {}
    for task, metric in intact.items():
        half = [number % 2 == 0 for number in range(metric.count or 0)]
        rng.shuffle(half)
        halves[task] = np.array(half)
    return halves


def share(intact: Mapping[str, Metric], pruned: Mapping[str, Metric], half: Mapping[str, np.ndarray]) -> float:
    """Return what is retained on some documents: the lower of the two means."""
    kinds: dict[str, list[float]] = {}
    for task, metric in intact.items():
        chosen = half[task]
        if metric.likelihood is not None and metric.likelihood.unigram is not None:
            after = pruned[task].likelihood
            assert after is not None
            nothing = np.array(metric.likelihood.unigram)
            left, best = np.array(after.totals) - nothing, np.array(metric.likelihood.totals) - nothing
        else:
            floor = metric.floor or 0.0
            left, best = np.array(pruned[task].documents) - floor, np.array(metric.documents) - floor
        kinds.setdefault(kind_of(metric), []).append(max(0.0, left[chosen].sum() / best[chosen].sum()))
    return min(sum(each) / len(each) for each in kinds.values())


def main(
    documents: Annotated[int, typer.Option(help="Documents of each task.")] = 60,
    draws: Annotated[int, typer.Option(help="Random draws, in addition to the scorers.")] = 12,
    most: Annotated[int, typer.Option(help="The largest number of blocks to remove.")] = 5,
    keep: Annotated[float, typer.Option(help="The share to retain.")] = 0.95,
    partings: Annotated[int, typer.Option(help="How often to divide the documents.")] = 400,
) -> None:
    """Print how much better models look because of the choice."""
    intact, models = measured(documents, draws, most)
    rng = random.Random(0)
    each: list[tuple[float, float]] = []
    best: list[tuple[float, float]] = []
    for _ in range(partings):
        search = parting(intact, rng)
        other = {task: ~half for task, half in search.items()}
        by_method = {}
        for label, pruned in models.items():
            shares = [share(intact, metrics, search) for metrics in pruned]
            count = next((n for n, kept in enumerate(shares) if kept < keep), len(shares))
            if count:
                by_method[label] = count, shares[count - 1], share(intact, pruned[count - 1], other)
        each += [shares for _, *shares in by_method.values()]
        if by_method:
            best.append(max(by_method.values())[1:])
    for name, pairs in (("each method", each), ("the method by which most may go", best)):
        chosen, others = np.array(pairs).T
        print(
            f"{name}: {chosen.mean():.1%} retained on the half that chose, {others.mean():.1%} on the other, "
            f"{100 * (chosen - others).mean():+.1f} points; the other half is below {keep:.0%} in "
            f"{(others < keep).mean():.0%} of {len(pairs)} cases"
        )


if __name__ == "__main__":
    typer.run(main)
