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
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import options as o
import torch
import typer
from finished import Finished
from layerimp_distill import Distill
from layerimp_distill.course import Check
from layerimp_distill.learning import Learner
from layerimp_distill.text import Text
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import layerimp
from layerimp.blocks import join_rows
from layerimp.blocks.stack import BlockStack
from layerimp.calibration.documents import Reader
from layerimp.calibration.further_text import FurtherText
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import CalibrationSet, Corpus, read_corpus
from layerimp.calibration.splits import for_judging
from layerimp.cli.set_options import setting
from layerimp.evaluator import unigram
from layerimp.fidelity import Distance
from layerimp.healer import Case, Repair
from layerimp.healing.engine import heal_beside
from layerimp.healing.loss import HeldOutLoss
from layerimp.models.discovery import find_blocks
from layerimp.models.traits import classifies
from layerimp.steps import Sublayer, read_steps
from layerimp.surgery.removal import prepare

CONTROL = "control"


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


class Watched(Distill):
    """Distillation that is measured on other text at each check, and its speed beside the bare cost of a step."""

    def __init__(self, config: Any, measures: list[HeldOutLoss]) -> None:
        super().__init__(config)
        self._measures, self._judged = measures, dict[int, float]()
        self.curve: list[dict[str, Any]] = []
        self._bare = list[float]()

    def heal(self, case: Case) -> list[Repair]:
        """Heal the case."""
        return super().heal(dataclasses.replace(case, distance=partial(self._timed, case.distance)))

    def _timed(self, distance: Callable[[], Distance]) -> Distance:
        began = time.monotonic()
        measured = distance()
        self._judged[id(measured)] = time.monotonic() - began
        return measured

    def watch(self, case: Case, learner: Learner, check: Check) -> None:
        """Measure the model as it would be if the training ended now."""
        self._bare.append(bare_seconds(case, learner, self.config.rows or 4))
        with learner.settled():
            outcome = dataclasses.asdict(Outcome.of(case.pruned, self._measures))
        self.curve.append(
            {
                **{"minutes": check.seconds / 60, "steps": check.steps, "tokens": check.tokens, "rate": check.rate},
                **{"judging": self._judged[id(check.distance)], **check.distance.numbers("now"), **outcome},
            }
        )

    @property
    def bare(self) -> float:
        """The seconds for a token of a plain step, timed at every check; their median."""
        return statistics.median(self._bare)

    @property
    def speed(self) -> float | None:
        """Tokens per second between checks; the time before the first one may have trials in it."""
        seconds = sum(
            60 * (after["minutes"] - before["minutes"]) - before["judging"] for before, after in pairwise(self.curve)
        )
        return (self.curve[-1]["tokens"] - self.curve[0]["tokens"]) / seconds if seconds > 0 else None


def bare_seconds(case: Case, learner: Learner, rows: int) -> float:
    """Return the seconds for a token of a step that is written plainly; the parameters stay as they are.

    The intact model runs forward, the pruned one forward and back, both with their heads, and the optimizer steps.
    """
    (batch,) = join_rows(next(Text(case.batches, (), rows, 0).steps()), rows)
    optimizer = torch.optim.AdamW(learner.parameters, lr=0.0, weight_decay=0.0)
    half = case.pruned.model.dtype in (torch.float16, torch.bfloat16)
    seconds = 0.0
    for _ in range(2):  # the first warms up
        began = time.monotonic()
        with torch.autocast(case.pruned.device.type, case.pruned.model.dtype) if half else nullcontext():
            with torch.no_grad():
                aim = case.intact.model(**batch).logits.float().log_softmax(-1)
            own = case.pruned.model(**batch).logits.float().log_softmax(-1)
        functional.kl_div(own, aim, reduction="batchmean", log_target=True).backward()
        del own, aim
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.monotonic() - began
    return seconds / int(batch["attention_mask"].sum())


class Control(Watched):
    """Trains the blocks of the intact model that surround the end of each gap, on the text's own loss."""

    def heal(self, case: Case) -> list[Repair]:
        """Train a copy of the intact model; the pruned one stays as it is."""
        twin = find_blocks(copy.deepcopy(case.intact.model))
        gaps = [dataclasses.replace(gap, position=Sublayer(gap.end.block, "attn")) for gap in case.gaps]
        loss = HeldOutLoss(case.intact, case.held_out)

        def distance() -> Distance:
            return Distance(loss.of(twin))

        super().heal(dataclasses.replace(case, pruned=twin, gaps=gaps, distance=distance))
        return [Repair(gap, "nothing") for gap in case.gaps]


def main(
    model: o.Model,
    blocks: Annotated[str, typer.Option(help="The blocks to remove, such as 12-18.")],
    calibration: Annotated[str, typer.Option(help="Text to heal on, and to choose the best step by.")],
    held_out: Annotated[list[Path], typer.Option(help="Text to measure on; repeatable.")],
    heal_text: Annotated[str | None, typer.Option(help="More text to heal on.")] = None,
    minutes: Annotated[float, typer.Option(help="How long each way trains.")] = 10.0,
    way: Annotated[list[str] | None, typer.Option(help="A label for a set of options; repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="LABEL.OPTION=VALUE.")] = None,
    control: Annotated[bool, typer.Option(help="Train the intact model too.")] = False,
    dtype: Annotated[str | None, typer.Option(help="What the models compute in.")] = None,
    samples: o.Samples = 64,
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

    def read(source: str, amount: int) -> Corpus:
        return read_corpus(source, Reader(field, label_field), RowFormat(tokenizer, max_length, 8, packing), amount)

    def drawn(source: str, amount: int, seed: int) -> CalibrationSet:
        return read(source, amount).draw(amount, seed)

    corpus = read(calibration, samples)
    text = corpus.draw(samples, seed)
    others = [drawn(str(path), rows, 0) for path in held_out]
    measured_on = frozenset[str]().union(*(other.documents for other in others))
    if text.documents & measured_on:
        raise typer.BadParameter("a document of the calibration text is also held out")
    measures = [HeldOutLoss(stack, list(other)) for other in others]
    intact = Outcome.of(stack, measures)
    chance = [knowing_nothing(measure) for measure in measures]
    threads = torch.get_num_threads()
    texts = [Path(path).name for path in (model, calibration, heal_text or "", *held_out)]
    finished = Finished(results, [*texts, blocks, samples, seed, max_length, rows, packing, dtype, threads])
    ways: dict[str, dict[str, Any]] = {name: {} for name in way or ["distill"]}
    if control:
        ways[CONTROL] = {"loss": "text"}
    for assignment in set_ or []:
        label, option, value = setting(assignment, "hidden.loss=hidden")
        ways[label][option] = value
    for label, chosen in ways.items():
        options = {"minutes": minutes} | chosen
        config = Distill.Config(**options)
        if any(line["way"] == label and Distill.Config(**line["options"]) == config for line in finished.lines):
            continue
        healer = (Control if label == CONTROL else Watched)(config, measures)
        rest = find_blocks(prepare(stack, gone).beside())
        further = None
        left_out = text.documents | measured_on
        judging = for_judging(corpus, left_out, classifies=classifies(loaded))
        if heal_text is not None:
            further = FurtherText(
                *(heal_text, tokenizer),
                **{"max_length": max_length, "field": field, "packing": packing},
                without=left_out | judging.documents,
            )
        pruned = Outcome.of(rest, measures)
        began = time.monotonic()
        done = heal_beside(stack, rest, gone, text, healer, further=further, judging=judging)
        ends = {"intact": dataclasses.asdict(intact), "pruned": dataclasses.asdict(pruned), "chance": chance}
        ends["healed"] = dataclasses.asdict(Outcome.of(rest, measures, time.monotonic() - began))
        speed = {"tokens_per_second": healer.speed, "bare": 1 / healer.bare}
        what = {"model": Path(model).name, "blocks": blocks, "way": label, "options": options, "threads": threads}
        finished.add({**what, **ends, **speed, "done": done.repairs[0].done, "curve": healer.curve})
        print(
            f"{label}: {healer.curve[-1]['tokens']:,} tokens in {healer.curve[-1]['minutes']:.1f} minutes", flush=True
        )
    _show([line for line in finished.lines if line["way"] in ways])


def knowing_nothing(measure: HeldOutLoss) -> float:
    """Return the loss of a model that knows only how frequent tokens or labels are, in nats per prediction."""
    wanted = measure.wanted
    return -sum(unigram(wanted, measure.num_classes)) / sum(map(len, wanted))


def recovered(line: dict[str, Any], point: dict[str, Any], field: str = "losses") -> float:
    """Return the share of the removal's cost that is recovered at a point of a curve.

    For the control there is no such share; the figure is what the intact model gained, relative to the same cost.
    """
    intact, pruned, reached = (sum(outcome[field]) for outcome in (line["intact"], line["pruned"], point))
    start = intact if line["way"] == CONTROL else pruned
    return float((start - reached) / (pruned - intact))


def _show(lines: list[dict[str, Any]]) -> None:
    labelled = bool(lines and lines[0]["intact"]["accuracy"])
    for line in lines:
        speed = line["tokens_per_second"]
        pace = "" if speed is None else f", {speed:,.0f} tokens per second, {speed / line['bare']:.2f} of the bare cost"
        back = f"{recovered(line, line['healed']):.1%} recovered in {line['healed']['seconds'] / 60:.1f} minutes"
        title = f"{line['way']}: {line['done']}, {back}{pace}"
        table = Table("minutes", "steps", "tokens", "recovered", *["accuracy"] * labelled, title=title)
        for point in line["curve"]:
            cells = [f"{point['minutes']:.1f}", str(point["steps"]), f"{point['tokens']:,}"]
            accuracy = [f"{recovered(line, point, 'accuracy'):.1%}"] if labelled else []
            table.add_row(*cells, f"{recovered(line, point):.1%}", *accuracy)
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)
