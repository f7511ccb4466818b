"""How much of the loss healing recovers, by scorer, over draws of text.

    python benchmarks/healing.py --model DIR --calibration FILE --held-out FILE --held-out FILE --count 7

For each draw of calibration text, the blocks are scored, and the models without the blocks that each scorer would
remove (or without --blocks) are healed. The loss is measured on other files: *recovered* is the share of the added loss
that healing takes away again, over all tokens of the files; the perplexity is the geometric mean over the files. For a
classifier, the files need labels, and the figures are for accuracy. The output has means over the draws with their 95 %
intervals (Student's t). Scorers that remove the same blocks in a draw share the healed models. Finished work is kept in
--results, a JSON line for each draw, scorer and healer, so that the same command continues.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import options as o
import typer
from finished import Finished
from rich.console import Console
from rich.table import Table

import layerimp
from layerimp.blocks.stack import BlockStack
from layerimp.calibration.documents import Reader
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import CalibrationSet, Corpus, read_corpus
from layerimp.calibration.splits import for_judging
from layerimp.cli.set_options import setting
from layerimp.healing.engine import heal_beside
from layerimp.healing.loss import HeldOutLoss
from layerimp.models.discovery import find_blocks
from layerimp.models.traits import classifies
from layerimp.pruner import Budget
from layerimp.registry.catalog import registry
from layerimp.report.statistics import interval
from layerimp.report.words import ranges
from layerimp.scorer import Importance
from layerimp.scoring.engine import measure
from layerimp.steps import Step, read_steps, touched_by
from layerimp.surgery.removal import prepare
from layerimp.sweep.cache import BlockCache

GREEDY = "greedy"
"""The pruner `greedy` with the scorer `perplexity` (SLEB)."""


@dataclass(frozen=True)
class Outcome:
    """The losses of one model.

    Attributes:
        losses: Nats per prediction, by held-out file.
        accuracy: A classifier's accuracy, by held-out file; empty for a language model.
        seconds: How long pruning and healing took.
    """

    losses: tuple[float, ...]
    accuracy: tuple[float, ...] = ()
    seconds: float = 0.0

    @classmethod
    def of(cls, stack: BlockStack, measures: Sequence[HeldOutLoss], seconds: float = 0.0) -> Outcome:
        """Measure a model in its current state."""
        losses = [measure.of(stack) for measure in measures]
        accuracy = tuple(loss.accuracy for loss in losses if loss.accuracy is not None)
        return cls(tuple(loss.mean for loss in losses), accuracy, seconds)

    @property
    def cost(self) -> float:
        """The figure to minimise: the mean loss, or a classifier's mean error rate."""
        return -fmean(self.accuracy) if self.accuracy else fmean(self.losses)

    @property
    def shown(self) -> float:
        """The figure to show: the perplexity, or a classifier's accuracy in per cent."""
        return 100 * fmean(self.accuracy) if self.accuracy else math.exp(fmean(self.losses))


@dataclass
class Found:
    """The results for one scorer, by draw: the removed steps, and the outcomes by healer."""

    gone: dict[int, list[Step]] = field(default_factory=dict)
    outcomes: dict[str, dict[int, Outcome]] = field(default_factory=dict)

    def of(self, draw: int, healing: str) -> Outcome | None:
        """Return the results of a draw."""
        return self.outcomes.get(healing, {}).get(draw)

    def put(self, draw: int, gone: list[Step], healing: str, outcome: Outcome) -> None:
        """Record a result."""
        self.gone[draw] = gone
        self.outcomes.setdefault(healing, {})[draw] = outcome

    def recovered(self, intact: Outcome, healing: str, draw: int) -> float:
        """Return the share of the removal's cost that a healer recovers."""
        pruned, healed = self.outcomes[""][draw].cost, self.outcomes[healing][draw].cost
        return (pruned - healed) / (pruned - intact.cost) if pruned > intact.cost else math.nan


def main(
    model: o.Model,
    held_out: o.HeldOut,
    calibration: Annotated[str, typer.Option(help="Text to score and to heal on.")],
    count: Annotated[int, typer.Option(help="How many blocks to remove.")] = 3,
    blocks: Annotated[str, typer.Option(help="The blocks to remove, such as 12,13, in place of scorers.")] = "",
    scorer: Annotated[list[str] | None, typer.Option(help="Scorers, or greedy; repeatable.")] = None,
    healer: Annotated[list[str] | None, typer.Option(help="HEALER, or LABEL=HEALER; repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="LABEL.OPTION=VALUE, for a healer.")] = None,
    draws: Annotated[int, typer.Option()] = 5,
    seed: Annotated[int, typer.Option(help="The first draw's seed.")] = 0,
    samples: Annotated[int, typer.Option(help="Rows to score and to heal on.")] = 64,
    greedy_samples: Annotated[int, typer.Option(help="Rows for the greedy search; 0: all.")] = 0,
    max_length: o.MaxLength = 256,
    rows: o.Rows = 16,
    packing: o.Packing = "windows",
    field: o.Field = "text",
    label_field: o.LabelField = None,
    results: o.Results = None,
) -> None:
    loaded, tokenizer = layerimp.load(model)
    stack = find_blocks(loaded)

    def read(source: str, amount: int) -> Corpus:
        return read_corpus(source, Reader(field, label_field), RowFormat(tokenizer, max_length, 8, packing), amount)

    def drawn(source: str, amount: int, seed: int) -> CalibrationSet:
        return read(source, amount).draw(amount, seed)

    healers = _healers(healer or ["rescale", "linear"], set_ or [])
    others = [drawn(str(path), rows, 0) for path in held_out]
    measures = [HeldOutLoss(stack, list(other)) for other in others]
    intact = Outcome.of(stack, measures)
    names = [f"blocks {blocks}"] if blocks else (scorer or [])
    texts = [Path(path).name for path in (model, calibration, *held_out)]  # where they lie decides nothing
    finished = Finished(results, [*texts, count, samples, greedy_samples, max_length, rows, packing])
    by_scorer = {name: Found() for name in names}
    for line in finished.lines:
        healing, *by = line["healer"]
        asked_for = line["scorer"] in by_scorer and line["draw"] in range(seed, seed + draws)
        if asked_for and by == list(healers.get(healing, ())):
            by_scorer[line["scorer"]].put(line["draw"], line["gone"], healing, Outcome(**line["outcome"]))
    for draw in range(seed, seed + draws):
        lacking = [
            name for name in names if any(by_scorer[name].of(draw, healing) is None for healing in ("", *healers))
        ]
        if not lacking:
            continue
        text = drawn(calibration, samples, draw)
        taken = text.documents.union(*(other.documents for other in others))
        judging = for_judging(read(calibration, samples), taken, classifies=classifies(loaded))
        few = text if not greedy_samples else drawn(calibration, greedy_samples, draw)
        if any(text.documents & other.documents for other in others):
            raise typer.BadParameter("a document of the calibration text is also held out")
        known: dict[tuple[frozenset[Step], str], Outcome] = {}
        chosen = {name: by_scorer[name].gone[draw] for name in lacking if draw in by_scorer[name].gone}
        chosen |= _chosen(stack, text, few, blocks, [name for name in lacking if name not in chosen], count)
        for name, gone in chosen.items():
            for healing in ("", *healers):
                if by_scorer[name].of(draw, healing):
                    continue
                key = frozenset(gone), healing
                if key not in known:
                    began = time.monotonic()
                    rest = find_blocks(prepare(stack, gone).beside())
                    if healing:
                        repairing = registry().create("healer", *healers[healing])
                        heal_beside(stack, rest, gone, text, repairing, judging=judging)
                    known[key] = Outcome.of(rest, measures, time.monotonic() - began)
                outcome = known[key]
                by_scorer[name].put(draw, gone, healing, outcome)
                line = {"draw": draw, "scorer": name, "gone": gone, "healer": [healing, *healers.get(healing, ())]}
                finished.add({**line, "outcome": dataclasses.asdict(outcome)})
                recovered = "" if not healing else f", recovered {by_scorer[name].recovered(intact, healing, draw):.1%}"
                print(
                    f"draw {draw}, {name} ({ranges(gone)}) {healing or 'unhealed'}: "
                    f"{outcome.shown:.2f}{recovered}, {outcome.seconds:.0f} s",
                    flush=True,
                )
    _show(by_scorer, intact)


def _healers(named: Sequence[str], settings: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The healers by label, each by its name and its options."""
    healers: dict[str, tuple[str, dict[str, Any]]] = {}
    for healer in named:
        label, _, name = healer.rpartition("=")
        healers[label or name] = name, {}
    for text in settings:
        label, option, value = setting(text, "distill.steps=60")
        healers[label][1][option] = value
    return healers


def _chosen(
    stack: BlockStack, text: CalibrationSet, few: CalibrationSet, blocks: str, scorers: Sequence[str], count: int
) -> Iterator[tuple[str, list[Step]]]:
    """Return the steps to take, by scorer; the greedy search reads only a few rows of the text."""
    if blocks:
        yield f"blocks {blocks}", read_steps(blocks)
        return
    plain = [name for name in scorers if name != GREEDY]
    made = {name: registry().create("scorer", name, {}, len(stack)) for name in plain}
    importance = measure(stack, text, made) if made else {}
    for name in plain:
        yield name, importance[name].weakest_first()[:count]
    if GREEDY in scorers:
        cache = BlockCache(stack)

        def scoring(removed: Sequence[Step]) -> Importance:
            scorer = registry().create("scorer", "perplexity", {}, len(stack) - len(touched_by(removed)))
            return measure(stack, few, {"one": scorer}, removed=removed, cache=cache)["one"]

        pruner = registry().create("pruner", GREEDY, {})
        yield GREEDY, pruner.within_budget(scoring, Budget.exactly(count, len(stack))).blocks


def _show(by_scorer: dict[str, Found], intact: Outcome) -> None:
    quality = "accuracy, %" if intact.accuracy else "perplexity"
    print(f"intact {quality} {intact.shown:.2f}")
    table = Table("scorer", "healer", quality, "recovered", "seconds", "removed (times)")
    for name, results in by_scorer.items():
        removed = [ranges(gone) for _, gone in sorted(results.gone.items())]
        went = "; ".join(f"{gone} ({removed.count(gone)})" for gone in dict.fromkeys(removed))
        for healing, by_draw in results.outcomes.items():
            outcomes = [by_draw[draw] for draw in sorted(by_draw)]
            mean = interval([outcome.shown if intact.accuracy else fmean(outcome.losses) for outcome in outcomes])
            mean = mean if intact.accuracy else mean.mapped(math.exp)
            shown = "" if mean.low is None or mean.high is None else f" ({mean.low:.2f} to {mean.high:.2f})"
            back = interval([results.recovered(intact, healing, draw) for draw in sorted(by_draw)])
            half = "" if back.high is None else f" ± {back.high - back.mean:.1%}"
            table.add_row(
                name if not healing else "",
                healing or "none",
                f"{mean.mean:.2f}{shown}",
                f"{back.mean:.1%}{half}" if healing else "",
                f"{fmean(outcome.seconds for outcome in outcomes):.0f}",
                went if not healing else "",
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
