"""Whether the default rate of training is right: `distill` by default options beside fixed rates, in equal time.

    python benchmarks/rates.py --model DIR --blocks 4,6-7,12-15 --calibration FILE --heal-text FILE --held-out FILE \
        --minutes 5 --minutes 30 --rate 3e-5 --rate 3e-4 --results FILE

`linear` repairs first. Before and after the training the model is measured on other text: the likelihood that it
retains beyond a model that knows only how frequent tokens or labels are, its divergence from the intact model, and its
copying (of a classifier with labels: the accuracy beyond its most frequent label). Measuring takes none of the
training's time.
*Speed* is in tokens per second between checks, as a share of what plain steps reach that are timed at each check.
Finished trainings are kept in --results, a JSON line for each, so that the same command continues.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Any

import options as o
import torch
import typer
from finished import Finished, Line
from layerimp_distill import Distill
from layerimp_distill.course import Check
from layerimp_distill.learning import Learner
from layerimp_distill.memory import State
from layerimp_distill.room import Plan
from layerimp_distill.text import Text
from layerimp_fidelity import FidelityEvaluator
from rate_figures import copying, likelihood
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import layerimp
from layerimp.blocks import join_rows
from layerimp.blocks.stack import Batch, BlockStack
from layerimp.calibration.documents import Reader
from layerimp.calibration.further_text import FurtherText
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import Corpus, read_corpus
from layerimp.calibration.splits import for_judging
from layerimp.cli.display import Screen
from layerimp.evaluator import unigram
from layerimp.fidelity import Distance
from layerimp.healer import Case, Repair
from layerimp.healing.engine import heal_beside
from layerimp.healing.loss import HeldOutLoss
from layerimp.indices import read_blocks
from layerimp.models.discovery import find_blocks
from layerimp.models.traits import classifies
from layerimp.surgery.removal import prepare

HEADS = "minutes", "rate", "steps", "likelihood", "divergence", "copying", "speed"


class Watched(Distill):
    """Training whose start is measured, and whose checks are kept, beside the time of plain steps."""

    def __init__(self, config: Any, measure: Callable[[BlockStack], Line]) -> None:
        super().__init__(config)
        self._measure = measure
        self.start: Line = {}
        self.curve: list[Line] = []
        self._plain = list[tuple[float, int]]()
        self._judged = dict[int, float]()
        self._rows = 0

    def heal(self, case: Case) -> list[Repair]:
        """Heal the case, with the time that it takes to judge."""

        def timed() -> Distance:
            began = time.monotonic()
            distance = case.distance()
            self._judged[id(distance)] = time.monotonic() - began
            return distance

        return super().heal(dataclasses.replace(case, distance=timed))

    def _before(self, case: Case, start: Distance) -> tuple[list[Repair], Distance]:
        done, start = super()._before(case, start)
        self.start = self._measure(case.pruned)
        self.curve.append({"minutes": 0.0, "steps": 0, "tokens": 0, **start.numbers("now")})
        return done, start

    def _plan(self, case: Case, state: State | None) -> Plan:
        plan = super()._plan(case, state)
        self._rows = plan.rows
        return plan

    def watch(self, case: Case, learner: Learner, check: Check) -> None:
        """Keep how far the model is."""
        steps = Text(case.batches, (), self._rows, 0).steps(len(self._plain))
        self._plain.append(plain_step(case, learner, next(steps)))
        progress = {"minutes": check.seconds / 60, "steps": check.steps, "tokens": check.tokens, "rate": check.rate}
        progress["judging"] = self._judged[id(check.distance)]
        self.curve.append(progress | check.distance.numbers("now"))

    @property
    def speed(self) -> float | None:
        """The tokens per second between checks, as a share of what plain steps reach; None with a single check."""
        checks = [point for point in self.curve if point["steps"]]
        seconds = sum(
            60 * (after["minutes"] - before["minutes"]) - before["judging"] for before, after in pairwise(checks)
        )
        tokens = checks[-1]["tokens"] - checks[0]["tokens"]
        plain, read = map(sum, zip(*self._plain, strict=True))
        return plain / read * tokens / seconds if seconds > 0 else None


def plain_step(case: Case, learner: Learner, rows: list[Batch]) -> tuple[float, int]:
    """Return the seconds and the tokens of a step that is written plainly; the parameters stay as they are.

    The intact model runs forward, the pruned one forward and back, both with their heads, and the optimizer steps.
    """
    (batch,) = join_rows(rows, len(rows))
    optimizer = torch.optim.AdamW(learner.parameters, lr=0.0, weight_decay=0.0, fused=True)
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
    return seconds, int(batch["attention_mask"].sum())


def main(
    model: o.Model,
    blocks: Annotated[str, typer.Option(help="The blocks to remove, such as 12-18.")],
    minutes: Annotated[list[float], typer.Option(help="How long to train; repeatable.")],
    calibration: Annotated[str, typer.Option(help="Text to heal on.")],
    held_out: Annotated[Path, typer.Option(help="Text to measure on.")],
    heal_text: Annotated[str | None, typer.Option(help="More text to train on.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="A fixed rate to compare with; repeatable.")] = None,
    dtype: Annotated[str | None, typer.Option(help="What the models compute in.")] = None,
    samples: o.Samples = 64,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    max_length: o.MaxLength = 256,
    rows: o.Rows = 32,
    packing: o.Packing = "windows",
    field: o.Field = "text",
    label_field: o.LabelField = None,
    results: o.Results = None,
) -> None:
    """Train, measure and print."""
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    stack, removed = find_blocks(loaded), read_blocks(blocks)

    def read(source: str, amount: int, labels: str | None = None) -> Corpus:
        return read_corpus(source, Reader(field, labels), RowFormat(tokenizer, max_length, 8, packing), amount)

    corpus = read(calibration, samples)
    text = corpus.draw(samples, seed)
    other = read(str(held_out), rows, label_field).draw(rows, 0)
    if text.documents & other.documents:
        raise typer.BadParameter("a document of the calibration text is also held out")
    loss = HeldOutLoss(stack, list(other))
    quiet: Line = {"prompts": 0}
    comparison = FidelityEvaluator(FidelityEvaluator.Config(**quiet)).comparison(loaded, tokenizer, list(other))

    def measure(measured: BlockStack) -> Line:
        reached = loss.of(measured)
        fidelity = comparison(measured.model).model_dump(mode="json")
        return {"loss": reached.mean, "accuracy": reached.accuracy, "fidelity": fidelity}

    names = [Path(each).name for each in (model, calibration, heal_text or "", held_out)]
    settings = [samples, seed, max_length, rows, packing, field, label_field, dtype, torch.get_num_threads()]
    finished = Finished(results, [*names, blocks, *settings])
    before: Line = {}
    for limit, fixed in product(minutes, (None, *(rate or ()))):
        wanted = {"minutes": limit, "rate": fixed}
        if any(wanted.items() <= line.items() for line in finished.lines):
            continue
        healer = Watched(Distill.Config(**wanted), measure)
        left_out = text.documents | other.documents
        judging = for_judging(corpus, left_out, classifies=classifies(loaded))
        further: Iterable[Batch] | None = None
        if heal_text is not None:
            without = left_out | judging.documents
            further = FurtherText(
                heal_text, tokenizer, max_length=max_length, field=field, packing=packing, without=without
            )
        pruned = find_blocks(prepare(stack, removed).beside())
        before = before or {"intact": measure(stack), "unhealed": measure(pruned)}
        done = heal_beside(
            stack, pruned, removed, text, healer, further=further, judging=judging, progress=Screen(json=True)
        )
        ends = before | {"healed": healer.start, "trained": measure(pruned)}
        repair = done.repairs[0]
        how = {
            "speed": healer.speed,
            "done": repair.done,
            "why": repair.why,
            "numbers": repair.numbers,
            "curve": healer.curve,
        }
        what = {"model": Path(model).name, "blocks": blocks, "chance": chance(loss)}
        finished.add(what | wanted | ends | how)
        print(f"{limit:g} minutes, {'default' if fixed is None else fixed}: {repair.done}", flush=True)
    table = Table(*HEADS)
    for line in finished.lines:
        table.add_row(*cells(line))
    Console().print(table)


def chance(loss: HeldOutLoss) -> dict[str, float]:
    """Return the loss of a model that knows only how frequent tokens or labels are, and the share of the commonest."""
    wanted = loss.wanted
    ((_, most),) = Counter(wanted).most_common(1)
    entropy = -sum(unigram(wanted, loss.num_classes)) / sum(map(len, wanted))
    return {"loss": entropy, "accuracy": most / len(wanted)}


def cells(line: Line) -> list[str]:
    """Show a training: its start and its end."""
    ends = ("healed", "trained")
    copied = [f"{share:.1%}" for end in ends if (share := copying(line, end)) is not None]
    return [
        f"{line['minutes']:g}",
        "default" if line["rate"] is None else f"{line['rate']:g}",
        str(line["curve"][-1]["steps"]),
        " → ".join(f"{likelihood(line, end):.1%}" for end in ends),
        " → ".join(f"{line[end]['fidelity']['divergence']['mean']:.3f}" for end in ends),
        " → ".join(copied),
        "" if line["speed"] is None else f"{line['speed']:.2f}",
    ]


if __name__ == "__main__":
    typer.run(main)
