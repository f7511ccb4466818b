"""How much of the loss training recovers, by time and tokens: a curve for each way to train.

    python benchmarks/training.py --model DIR --calibration FILE --heal-text FILE --held-out FILE --blocks 12-18 \
        --way divergence --way hidden --set hidden.loss=hidden --minutes 10 --results FILE

A way is a set of options of the healer `distill`. At each check of a training, the learned values are kept, and
measured afterwards on other files, so that measuring takes none of the training's time: *recovered* is the share of
the loss added by the removal that is taken away again, as a mean over the files. For a classifier, the files need
labels, and a second figure is for accuracy. The minutes include what another healer needs that goes `first`.

With --control, the intact model is trained in the same way on the text's own loss: what that lowers is what the text
alone teaches. Finished ways are kept in --results, a JSON line for each, so that the same command continues.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import options as o
import torch
import typer
from finished import Finished
from healing import Outcome
from layerimp_distill import Distill
from rich.console import Console
from rich.table import Table
from torch import Tensor

import layerimp
from layerimp.blocks.stack import BlockStack
from layerimp.calibration.further_text import FurtherText
from layerimp.calibration.sampling import CalibrationSet, load_calibration
from layerimp.cli.set_options import setting
from layerimp.evaluator import unigram
from layerimp.healer import Case, Loss, Repair
from layerimp.healing import replace, trying
from layerimp.healing.engine import heal_beside
from layerimp.healing.loss import HeldOutLoss
from layerimp.healing.parameters import changed, held_by, put
from layerimp.models.discovery import find_blocks
from layerimp.steps import Sublayer, read_steps
from layerimp.surgery.removal import prepare

Values = dict[str, Tensor]
CONTROL = "control"


class Watched(Distill):
    """Distillation that keeps what was learned at each check, and when."""

    def heal(self, case: Case) -> list[Repair]:
        """Heal the case."""
        self.began, self.kept = time.monotonic(), list[tuple[float, Values]]()
        self.watch(case)
        return super().heal(dataclasses.replace(case, loss=self.noting(case.pruned, case.loss)))

    def watch(self, case: Case) -> None:
        """Remember the parameters before the training."""
        self.trained, self.before = case.pruned, held_by(case.pruned.model)

    def noting(self, stack: BlockStack, loss: Callable[[], Loss]) -> Callable[[], Loss]:
        """Return a loss that also keeps the values which the model has when it is measured."""

        def noted() -> Loss:
            values = {path: new.detach().clone() for path, (_, new) in changed(self.before, stack.model).items()}
            self.kept.append((time.monotonic() - self.began, values))
            return loss()

        return noted

    def curve(self) -> list[dict[str, Any]]:
        """The minutes, steps and tokens at each check, and the values there; the first are those before it."""
        assert self.outcome is not None
        checks = self.outcome.checks
        # The loss is measured once before the training, at each check, and once after it if anything was learned.
        end = len(self.kept) - (self.outcome.best is not None)
        start, *kept = self.kept[end - len(checks) - 1 : end]
        points = [{"minutes": start[0] / 60, "steps": 0, "tokens": 0, "values": start[1]}]
        for check, (seconds, values) in zip(checks, kept, strict=True):
            points.append({"minutes": seconds / 60, "steps": check.steps, "tokens": check.tokens, "values": values})
        return points


class Control(Watched):
    """Trains the blocks of the intact model that surround the end of each gap, on the text's own loss."""

    def heal(self, case: Case) -> list[Repair]:
        """Train a copy of the intact model; the pruned one stays as it is."""
        twin = find_blocks(copy.deepcopy(case.intact.model))
        gaps = [dataclasses.replace(gap, position=Sublayer(gap.end.block, "attn")) for gap in case.gaps]
        loss = partial(HeldOutLoss(case.intact, case.held_out).of, twin)
        super().heal(dataclasses.replace(case, pruned=twin, gaps=gaps, loss=loss))
        return [Repair(gap, "nothing") for gap in case.gaps]


def main(
    model: o.Model,
    blocks: Annotated[str, typer.Option(help="The blocks to remove, such as 12-18.")],
    calibration: Annotated[str, typer.Option(help="Text to heal on, and to choose the best step by.")],
    held_out: o.HeldOut,
    heal_text: Annotated[str | None, typer.Option(help="More text to heal on.")] = None,
    minutes: Annotated[float, typer.Option(help="How long each way trains.")] = 10.0,
    way: Annotated[list[str] | None, typer.Option(help="A label for a set of options; repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="LABEL.OPTION=VALUE.")] = None,
    control: Annotated[bool, typer.Option(help="Train the intact model too.")] = False,
    dtype: Annotated[str | None, typer.Option(help="What the models compute in.")] = None,
    samples: Annotated[int, typer.Option(help="Rows of the calibration text.")] = 64,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    max_length: o.MaxLength = 256,
    rows: o.Rows = 16,
    packing: o.Packing = "windows",
    field: o.Field = "text",
    label_field: o.LabelField = None,
    results: o.Results = None,
) -> None:
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    stack, gone = find_blocks(loaded), read_steps(blocks)

    def drawn(source: str, amount: int, seed: int) -> CalibrationSet:
        form = {"field": field, "label_field": label_field, "packing": packing}
        return load_calibration(source, tokenizer, samples=amount, max_length=max_length, seed=seed, **form)

    text = drawn(calibration, samples, seed)
    others = [drawn(str(path), rows, 0) for path in held_out]
    measured_on = frozenset[str]().union(*(other.documents for other in others))
    if text.documents & measured_on:
        raise typer.BadParameter("a document of the calibration text is also held out")
    measures = [HeldOutLoss(stack, list(other)) for other in others]
    intact = Outcome.of(stack, measures)
    chance = [knowing_nothing(measure) for measure in measures]
    threads = torch.get_num_threads()
    texts = [Path(one).name for one in (model, calibration, heal_text or "", *held_out)]
    finished = Finished(results, [*texts, blocks, samples, seed, max_length, rows, packing, dtype, threads])
    ways: dict[str, dict[str, Any]] = {name: {} for name in way or ["distill"]}
    if control:
        ways[CONTROL] = {"loss": "text"}
    for one in set_ or []:
        label, option, value = setting(one, "hidden.loss=hidden")
        ways[label][option] = value
    for label, chosen in ways.items():
        options = {"minutes": minutes, "checks": 12} | chosen
        config = Distill.Config(**options)
        if any(line["way"] == label and Distill.Config(**line["options"]) == config for line in finished.lines):
            continue
        healer = (Control if label == CONTROL else Watched)(config)
        rest = find_blocks(prepare(stack, gone).beside())
        further = ()
        if heal_text is not None:
            left_out = text.documents | measured_on
            further = FurtherText(
                heal_text, tokenizer, max_length=max_length, field=field, packing=packing, without=left_out
            )
        pruned = Outcome.of(rest, measures)
        heal_beside(stack, rest, gone, text, healer, further=further)
        curve = []
        for point in healer.curve():
            with trying(healer.trained.model):
                put(healer.before)
                for path, value in point.pop("values").items():
                    replace(healer.trained.model, path, value)
                curve.append({**point, **dataclasses.asdict(Outcome.of(healer.trained, measures))})
        ends = {"intact": dataclasses.asdict(intact), "pruned": dataclasses.asdict(pruned), "chance": chance}
        what = {"model": Path(model).name, "blocks": blocks, "way": label, "options": options, "threads": threads}
        finished.add({**what, **ends, "curve": curve})
        print(f"{label}: {curve[-1]['tokens']:,} tokens in {curve[-1]['minutes']:.1f} minutes", flush=True)
    _show([line for line in finished.lines if line["way"] in ways])


def knowing_nothing(measure: HeldOutLoss) -> float:
    """Return the loss of a model that knows only how frequent tokens or labels are, in nats per prediction."""
    wanted = measure.wanted
    return -sum(unigram(wanted, measure.num_classes)) / sum(map(len, wanted))


def recovered(line: dict[str, Any], point: dict[str, Any], field: str = "losses") -> float:
    """Return the share of the removal's cost that is recovered at a point of a curve.

    For the control there is no such share; the figure is what the intact model gained, relative to the same cost.
    """
    intact, pruned, found = (sum(one[field]) for one in (line["intact"], line["pruned"], point))
    start = intact if line["way"] == CONTROL else pruned
    return float((start - found) / (pruned - intact))


def _show(lines: list[dict[str, Any]]) -> None:
    labelled = bool(lines and lines[0]["intact"]["accuracy"])
    for line in lines:
        table = Table("minutes", "steps", "tokens", "recovered", *["accuracy"] * labelled, title=line["way"])
        for point in line["curve"]:
            cells = [f"{point['minutes']:.1f}", str(point["steps"]), f"{point['tokens']:,}"]
            accuracy = [f"{recovered(line, point, 'accuracy'):.1%}"] if labelled else []
            table.add_row(*cells, f"{recovered(line, point):.1%}", *accuracy)
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)
