"""Which text to train on, in equal time: how near training brings a pruned model to the intact one, by its text.

    python benchmarks/healing_texts.py --model DIR --blocks 4,6-7 --calibration FILE --heal-text FILE --text FILE \
        --minutes 30 --draws 3 --variant plain --variant own --results FILE

For each draw and variant a training text is made of the documents of --heal-text, as JSONL in --folder. The rest of the
minutes goes to `distill`, which repairs by `linear` first. Fidelity is measured on --text.

- `linear`: without training, to compare with;
- `plain`: the documents as they are;
- `longer`: the same in rows of twice the tokens, and so also the calibration text, in half as many rows;
- `mixed`: the documents, of whose rows `distill` makes some hold their first half twice, as by default;
- `repeated`: all rows do;
- `own`: the intact model's continuations of the first tokens of documents, sampled (arXiv:2410.09982);
- `chat`: the intact model's answers to these tokens as messages, sampled, in the chat template.

Only in `mixed` and `repeated` do rows hold a half twice. `own` and `chat` generate for a quarter of the minutes.
Finished lines are kept in --results, so that the same command continues. The table has means over draws, with 95 %
intervals (Student's t).
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any

import options as o
import torch
import typer
from finished import Finished, Line
from layerimp_harness import Harness
from rich.console import Console
from rich.table import Table
from training_texts import LONGER, OPTIONS, TEXTS, Source
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import layerimp
from layerimp.calibration import FurtherText, load_calibration
from layerimp.calibration.documents import Reader, documents_in
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import document_hash, read_corpus
from layerimp.calibration.splits import for_judging
from layerimp.cli.display import Screen
from layerimp.fidelity import Fidelity
from layerimp.indices import read_blocks
from layerimp.metric import by_key
from layerimp.registry.catalog import registry
from layerimp.report.retained import counting, shares, summed_up
from layerimp.report.statistics import interval

LINEAR = "linear"
GENERATING, DOCUMENTS = 0.25, 5000
"""At most this share of the minutes goes into generating, and so many documents make a text."""
COLUMNS = ("divergence", "agreement", "copying", "empty", "retained")


@dataclass(frozen=True)
class Trial:
    """What all variants have in common: the intact model, and the options.

    Attributes:
        measured: The hashes of the documents that are measured on.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    blocks: str
    calibration: str
    heal_text: str
    samples: int
    max_length: int
    minutes: float
    measured: frozenset[str]

    def healed(self, variant: str, draw: int, folder: Path) -> tuple[Line, PreTrainedModel]:
        """Make the text and train; return what was done, and the model."""
        times = 2 if variant == LONGER else 1
        form = RowFormat(self.tokenizer, times * self.max_length, 8, "windows")
        corpus = read_corpus(self.calibration, Reader("text"), form, self.samples // times)
        drawn = corpus.draw(self.samples // times, draw)
        judging = for_judging(corpus, drawn.documents | self.measured)
        how: dict[str, Any] = {"healer": LINEAR}
        making = count = 0
        if variant != LINEAR:
            path, began = folder / f"{variant}-{draw}.jsonl", time.monotonic()
            count = self._write(path, variant, draw, drawn.documents | judging.documents)
            making = (time.monotonic() - began) / 60
            if making >= self.minutes:
                raise SystemExit(f"making the text {variant} took {making:.1f} minutes, of {self.minutes:g}")
            further = FurtherText(str(path), self.tokenizer, max_length=form.max_length)
            how = {"healer": "distill", "further": further, "minutes": self.minutes - making, **OPTIONS[variant]}
        how |= {"judging": judging, "progress": Screen(json=True)}
        done = layerimp.heal(self.model, read_blocks(self.blocks), drawn, **how)
        repair = done.repairs[0]
        numbers = {"making": making, "documents": count, **repair.numbers}
        return {"done": repair.done, "why": repair.why, **numbers}, done.model

    def _write(self, path: Path, variant: str, draw: int, taken: frozenset[str]) -> int:
        """Write a training text, and return its number of documents."""
        read = (document for document, _ in documents_in(self.heal_text, Reader("text")))
        left = list(islice((text for text in read if document_hash(text) not in taken | self.measured), DOCUMENTS))
        random.Random(draw).shuffle(left)
        room = (2 if variant == LONGER else 1) * self.max_length - self.tokenizer.num_special_tokens_to_add()
        source = Source(left, self.model, self.tokenizer, room, GENERATING * 60 * self.minutes)
        with torch.random.fork_rng(), path.open("w", encoding="utf-8") as file:
            torch.manual_seed(draw)
            return sum(bool(file.write(json.dumps({"text": each}) + "\n")) for each in TEXTS[variant](source))


def main(
    model: o.Model,
    blocks: Annotated[str, typer.Option(help="What to remove, such as 4,6-7.")],
    calibration: Annotated[str, typer.Option(help="Text to repair by; training reads it too.")],
    heal_text: Annotated[str, typer.Option(help="Text to train on.")],
    text: Annotated[str, typer.Option(help="Other text, to measure on.")],
    variant: Annotated[list[str], typer.Option(help="A variant; repeatable.")],
    minutes: Annotated[float, typer.Option(help="The time for text and training.")] = 30.0,
    draws: Annotated[int, typer.Option(help="How many draws of text.")] = 1,
    dtype: Annotated[str | None, typer.Option(help="What the models compute in.")] = None,
    samples: Annotated[int, typer.Option(help="Rows of the calibration text.")] = 64,
    max_length: o.MaxLength = 256,
    rows: o.Rows = 32,
    tasks: Annotated[str, typer.Option(help="Tasks to measure too, as in layerimp run.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="As in layerimp run.")] = None,
    limit: o.Limit = None,
    folder: Annotated[Path | None, typer.Option(help="Where training texts stay; by default nowhere.")] = None,
    results: o.Results = None,
) -> None:
    if unknown := [each for each in variant if each not in {LINEAR, *TEXTS}]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join((LINEAR, *TEXTS))}")
    intact, tokenizer = layerimp.load(model, dtype=dtype)
    if "chat" in variant and not tokenizer.chat_template:
        raise typer.BadParameter(f"{model} has no chat template, which the variant 'chat' needs")
    measured_on = load_calibration(text, tokenizer, samples=rows, max_length=max_length)
    compare = registry().create("evaluator", "fidelity", {}).comparison(intact, tokenizer, measured_on)
    harness = Harness(Harness.Config(tasks=tuple(filter(None, tasks.split(","))), data_dir=data_dir, **o.limits(limit)))
    harness.prepare()
    known = by_key(harness.evaluate(intact, tokenizer))
    trial = Trial(
        *(intact, tokenizer, blocks, calibration, heal_text),
        *(samples, max_length, minutes, measured_on.documents),
    )
    names = [Path(each).name for each in (model, calibration, heal_text, text)]
    asked = [*names, blocks, minutes, dtype, samples, max_length, rows, tasks, limit]
    finished = Finished(results, [*asked, torch.get_num_threads()])
    for draw, each in product(range(draws), variant):
        wanted = {"draw": draw, "variant": each, "options": OPTIONS.get(each)}
        if not any(wanted.items() <= line.items() for line in finished.lines):
            with tempfile.TemporaryDirectory() as place:
                line, small = trial.healed(each, draw, folder or Path(place))
            line |= {"limit": limit} | figures(compare(small))
            if known:
                share = shares(summed_up(counting(known.values()), [by_key(harness.evaluate(small, tokenizer))])).worst
                line |= {"retained": share and share.mean, "retained_stderr": share and share.stderr}
            finished.add(wanted | line)
            print(f"draw {draw}, {each}: {line['done']}, divergence {line['divergence']:.4f}", flush=True)
    shown = [line for line in finished.lines if line["variant"] in variant and line["draw"] < draws]
    show([line for line in shown if line.get("options") == OPTIONS.get(line["variant"])])


def figures(fidelity: Fidelity) -> Line:
    """Return what is shown of the fidelity; copying is relative to the intact model."""
    assert fidelity.divergence is not None
    copying, texts = fidelity.copying, fidelity.generation
    return {
        "divergence": fidelity.divergence.mean,
        "agreement": fidelity.agreement,
        "copying": copying and copying.intact and copying.accuracy / copying.intact,
        "empty": texts and texts.empty,
        "fidelity": fidelity.model_dump(mode="json"),
    }


def show(lines: Sequence[Line]) -> None:
    """Print a row for each variant."""
    table = Table("text", "draws", *COLUMNS, "tokens", "making, min")
    for variant in dict.fromkeys(line["variant"] for line in lines):
        own = [line for line in lines if line["variant"] == variant]
        numbers = {name: [line.get(name) for line in own] for name in (*COLUMNS, "tokens", "making")}
        table.add_row(variant, str(len(own)), *(_cell(name, values) for name, values in numbers.items()))
    Console(width=140).print(table)


def _cell(name: str, values: list[float | None]) -> str:
    """Show the mean of the values that are known, and its interval."""
    form = {"divergence": "{:.4f}", "tokens": "{:,.0f}", "making": "{:.1f}"}.get(name, "{:.1%}")
    mean = interval([value for value in values if value is not None]) if set(values) != {None} else None
    if mean is None:
        return ""
    return form.format(mean.mean) + ("" if mean.high is None else f" ± {form.format(mean.high - mean.mean)}")


if __name__ == "__main__":
    typer.run(main)
