"""Blocks only against all cuts: the loss of a model if seams may be removed as well.

    python benchmarks/seams_worth.py --model starter --model SMOLLM2 --model GEMMA \
        --calibration FILE --held-out FILE --results seams_worth.jsonl

For each draw of calibration text and each method there are two plans, with only whole blocks and with seams as well.
Both models are measured on the same held-out documents, unhealed and healed. A method is a scorer, and may name a
pruner with options: `perplexity:greedy,exchange=2`. The starter reads its own text, other models read the given files.

The output has means over the draws. The difference of the losses (below 0: seams are better) has a 95 % interval for
two sources of chance, the draws and the documents, both paired; *better* and *worse* are significant at the 5 % level
as single comparisons, and with a star after Holm's correction over all comparisons of the model. Finished work is kept
in --results, a JSON line for each model, so that the same command continues.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import layerimp_starter
import options as o
import typer
import yaml
from cuts_compared import CUTS, Line, show
from finished import Finished

import layerimp
from layerimp.calibration.sampling import CalibrationSet, Packing, load_calibration
from layerimp.defaults import STARTER
from layerimp.errors import LayerimpError
from layerimp.healing.engine import heal_beside
from layerimp.healing.loss import HeldOutLoss
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.resolve import create_pruner
from layerimp.pipeline.scores import Rescoring
from layerimp.progress import SILENT
from layerimp.pruner import Budget, count_of
from layerimp.recipe import ComponentSpec, Recipe, validated
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure
from layerimp.scoring.selection import Selection
from layerimp.steps import Cuts, Step, removed_by
from layerimp.surgery.removal import prepare

STARTER_DOCUMENTS = Path(layerimp_starter.__file__).parent / "data" / "stories.jsonl"
CACHE = "kv_bytes_per_token"


@dataclass
class Bench:
    """One model with its text.

    Attributes:
        name: The model, as it was named.
        model: The loaded model.
        counts: How many steps to take, by label.
        held_out: The text to measure on, one document per row.
    """

    name: str
    model: Any
    counts: Mapping[str, int]
    held_out: list[Any]
    known: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stack = find_blocks(self.model)

    def unhealed(self, text: CalibrationSet, few: CalibrationSet, draw: int, method: str, cuts: Cuts) -> Iterator[Line]:
        """Return the results of one method on one draw, at every count; searches read only a few rows of the text."""
        began = time.monotonic()
        searches = method.partition(":")[2] not in ("", "lowest")
        plans = dict(self._plans(few if searches else text, method, cuts))
        seconds = time.monotonic() - began
        for count, steps in plans.items():
            line: Line = {"model": Path(self.name).name, "draw": draw, "method": method, "cuts": cuts, "count": count}
            outcome = self._outcome(text, draw, steps, "")
            yield {**line, "healer": "", "steps": steps, "seconds": seconds, "outcome": outcome}

    def healed(self, text: CalibrationSet, line: Line, healer: str) -> Line:
        """Return the results of a healed model."""
        began = time.monotonic()
        outcome = self._outcome(text, line["draw"], line["steps"], healer)
        return {**line, "healer": healer, "outcome": outcome, "seconds": time.monotonic() - began}

    def _plans(self, text: CalibrationSet, method: str, cuts: Cuts) -> Iterator[tuple[str, list[Step]]]:
        """Return the steps that a method takes, by count; the longest of nested plans serves all counts."""
        scorer, pruner_spec = read_method(method)
        pruner = create_pruner(pruner_spec, cuts)
        selection = Selection.of(validated(Recipe, {"scorers": [scorer]}), SILENT)
        scorers, beside = selection.create(cuts, len(self.stack), scorer)
        first = measure(self.stack, text, scorers, beside=beside)[scorer]
        scoring = Rescoring(self.stack, text, first, selection, scorer, cuts)
        budgets = {name: Budget.exactly(count, len(self.stack), cuts=cuts) for name, count in self.counts.items()}
        longest = pruner.within_budget(scoring, max(budgets.values(), key=lambda budget: budget.count))
        for name, budget in budgets.items():
            short = budget.count < len(longest.blocks) and not pruner.nested
            plan = pruner.within_budget(scoring, budget) if short else longest
            yield name, plan.blocks[: budget.count]

    def _outcome(self, text: CalibrationSet, draw: int, steps: Sequence[Step], healer: str) -> dict[str, Any]:
        """A pruned model, unhealed or healed: its loss by document, and its costs."""
        key = removed_by(steps), healer, draw if healer else None
        if key not in self.known:
            try:
                self.known[key] = self._measured(text, steps, healer)
            except LayerimpError as error:
                self.known[key] = {"error": str(error)}
        return self.known[key]

    def _measured(self, text: CalibrationSet, steps: Sequence[Step], healer: str) -> dict[str, Any]:
        rest = find_blocks(prepare(self.stack, steps).beside())
        if healer:
            heal_beside(self.stack, rest, steps, text, registry().create("healer", healer, {}))
        loss = HeldOutLoss(self.stack, self.held_out).of(rest)
        outcome = {"totals": list(loss.totals), "counts": list(loss.counts)}
        return outcome if healer else {**outcome, **self._costs(rest.model)}

    def _costs(self, model: Any) -> dict[str, float]:
        """The costs: parameters, bytes of the cache per token, and the latency as a share of the intact model's."""
        before, after = costs_of(self.model), costs_of(model)
        return {
            "parameters": after["parameters"],
            "cache": after.get(CACHE, math.nan),
            "latency": after["latency_ms"] / before["latency_ms"],
        }


def costs_of(model: Any) -> dict[str, float]:
    """Return the costs of a model, by name."""
    evaluator = registry().create("evaluator", "footprint", {})
    return {metric.name: metric.value for metric in evaluator.evaluate(model, None)}


def _place(line: Line) -> tuple[int, str, str, str, str]:
    return line["draw"], line["method"], line["cuts"], line["count"], line["healer"]


def read_method(method: str) -> tuple[str, ComponentSpec]:
    """Read the scorer and the pruner of a method: `SCORER`, or `SCORER:PRUNER,OPTION=VALUE`."""
    scorer, _, rest = method.partition(":")
    name, *options = (rest or "lowest").split(",")
    values = (option.partition("=") for option in options)
    return scorer, ComponentSpec(name=name, options={option: yaml.safe_load(value) for option, _, value in values})


def main(
    model: Annotated[list[str], typer.Option(help="Models; repeatable.")],
    results: Annotated[Path, typer.Option(help="The file for finished work, as JSON lines.")],
    calibration: Annotated[str, typer.Option(help="Text to score and heal on; not for the starter.")] = "prose",
    held_out: Annotated[list[Path] | None, typer.Option(help="Text to measure on; repeatable.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="SCORER[:PRUNER[,OPTION=VALUE]]; repeatable.")] = None,
    count: Annotated[list[int] | None, typer.Option(help="Steps to take; repeatable. Default: 1, 2, 3.")] = None,
    ratio: Annotated[list[float] | None, typer.Option(help="Shares; repeatable. Default: 0.12, 0.25.")] = None,
    healer: Annotated[list[str] | None, typer.Option(help="Healers; repeatable. Default: none.")] = None,
    heal_count: Annotated[list[str] | None, typer.Option(help="Counts to heal at, as shown; default: all.")] = None,
    draws: Annotated[int, typer.Option()] = 5,
    samples: Annotated[int, typer.Option(help="Rows of a draw.")] = 64,
    search_samples: Annotated[int, typer.Option(help="Rows for searches; 0: all.")] = 0,
    max_length: o.MaxLength = 256,
    documents: Annotated[int, typer.Option(help="Documents to measure on, of each file.")] = 100,
    dtype: Annotated[str | None, typer.Option(help="What the models compute in; default: as in layerimp run.")] = None,
) -> None:
    methods, healers = method or ["perplexity:greedy", "block-influence", "lrp"], healer or []
    for name in model:
        own = name == STARTER
        source, others = (STARTER, [STARTER_DOCUMENTS]) if own else (calibration, held_out or [])
        if not others:
            raise typer.BadParameter(f"{name} needs text to measure on (--held-out)")
        loaded, tokenizer = layerimp.load(name, dtype=dtype)
        form: dict[str, Any] = {"max_length": max_length}
        texts = [load_calibration(str(o), tokenizer, samples=documents, packing="rows", **form) for o in others]
        bench = Bench(name, loaded, {}, [batch for text in texts for batch in text])
        bench.counts = _counts(len(bench.stack), count or [1, 2, 3], ratio or [0.12, 0.25])
        used = [Path(path).name for path in (name, source, *others)]  # where they lie decides nothing
        settings = [*used, samples, search_samples, max_length, documents, *[dtype] * (dtype is not None)]
        finished = Finished(results, settings)
        counts, heal_counts = list(bench.counts), heal_count or list(bench.counts)
        for draw in range(draws):
            packing: Packing = "rows" if own else "windows"  # the starter was trained on single documents
            form |= {"seed": draw, "packing": packing}
            text, few = (
                load_calibration(source, tokenizer, samples=n, **form) for n in (samples, search_samples or samples)
            )
            if any(text.documents & other.documents for other in texts):
                raise typer.BadParameter("a document of the calibration text is also held out")
            for place in itertools.product(methods, CUTS):
                known = {_place(line): line for line in finished.lines}
                if any((draw, *place, count, "") not in known for count in counts):
                    for line in bench.unhealed(text, few, draw, *place):
                        known[_place(line)] = line
                        finished.add(line)
                        print(f"{name}, draw {draw}, {place}, {line['count']}: {line['seconds']:.0f} s", flush=True)
                for count, healing in itertools.product(heal_counts, healers):
                    if (draw, *place, count, healing) not in known:
                        line = bench.healed(text, known[draw, *place, count, ""], healing)
                        finished.add(line)
                        print(f"{name}, draw {draw}, {place}, {count}, {healing}: {line['seconds']:.0f} s", flush=True)
        lines = [line for line in finished.lines if line["draw"] < draws and line["method"] in methods]
        intact = HeldOutLoss(bench.stack, bench.held_out).of(bench.stack)
        costs = costs_of(loaded)
        print(
            f"{name}: {len(bench.stack)} blocks, {costs['parameters']:,.0f} parameters, "
            f"{costs.get(CACHE, math.nan):,.0f} bytes of cache per token; perplexity {math.exp(intact.mean):.2f} on "
            f"{len(intact.totals)} documents"
        )
        show(methods, counts, ("", *healers), lines)


def _counts(num_blocks: int, counts: Sequence[int], ratios: Sequence[float]) -> dict[str, int]:
    """Return how many steps to take, by label, each number once."""
    by_label = {str(count): count for count in counts}
    for ratio in ratios:
        if (count := count_of(ratio, num_blocks)) not in by_label.values():
            by_label[f"{count} ({ratio:.0%})"] = count
    return by_label


if __name__ == "__main__":
    typer.run(main)
