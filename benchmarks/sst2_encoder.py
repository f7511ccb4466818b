"""The paper's smallest experiment on a real encoder: SST-2 accuracy with one and two of six blocks removed.

    python benchmarks/sst2_encoder.py --encoder DIR --data-dir DIR --output DIR

The encoder gets a new head and is fine-tuned on the training split, once: a second run finds it in the output
directory. Then every scorer removes one block (16.67 %, as in the paper's row for DistilBERT) and two, each time for
five calibration sets with labels, drawn from the training split with different seeds. The accuracy is that of
`layerimp_sst2`, as measured by layerimp on the whole validation split. The output has the means over the seeds with
their 95 % confidence intervals (Student's t), and how often each block was removed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import layerimp
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import Corpus
from layerimp.registry.catalog import registry
from layerimp.report.statistics import interval
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned

TASK = "layerimp_sst2"
BATCH, POOL, RATE, WARM_SHARE, REPORT_EVERY = 32, 50, 5e-5, 0.06, 200
DECAY = 0.999
"""The decay of the moving average."""
ROWS, LENGTH = 64, 64
"""The number of rows of a calibration set."""


def fine_tune(encoder: Path, documents: list[tuple[str, int]], output: Path, epochs: int, seed: int) -> None:
    """Train a new head and all weights by AdamW with linear decay, and keep the moving average of the weights."""
    torch.manual_seed(seed)
    names = {0: "negative", 1: "positive"}
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=2, id2label=names, label2id={name: number for number, name in names.items()}
    ).train()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rng, steps = random.Random(seed), epochs * (len(documents) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    started, losses, step = time.monotonic(), [0.0], 0
    for _ in range(epochs):
        for batch in batches(documents, rng):
            texts, labels = zip(*batch, strict=True)
            inputs = tokenizer(list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
            share = min((step + 1) / (WARM_SHARE * steps), (steps - step) / ((1 - WARM_SHARE) * steps))
            for group in optimizer.param_groups:
                group["lr"] = RATE * share
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**inputs, labels=torch.tensor(labels)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.update_parameters(model)
            losses.append(float(loss.detach()))
            step += 1
            if step % REPORT_EVERY == 0:
                left = (steps - step) * (time.monotonic() - started) / step / 60
                mean = statistics.mean(losses[-REPORT_EVERY:])
                print(f"step {step} of {steps}: loss {mean:.3f}, {left:.0f} min left", flush=True)
    average.module.eval().save_pretrained(output)
    tokenizer.save_pretrained(output)


def batches(documents: list[tuple[str, int]], rng: random.Random) -> list[list[tuple[str, int]]]:
    """Yield all documents in new batches, each of similar lengths, to keep padding low."""
    rng.shuffle(documents)
    pools = [documents[start : start + POOL * BATCH] for start in range(0, len(documents), POOL * BATCH)]
    ordered = [document for pool in pools for document in sorted(pool, key=lambda pair: len(pair[0]))]
    groups = [ordered[start : start + BATCH] for start in range(0, len(ordered) - BATCH + 1, BATCH)]
    rng.shuffle(groups)
    return groups


def main(
    encoder: Annotated[Path, typer.Option(help="A directory with a pre-trained encoder of six blocks.")],
    data_dir: Annotated[Path, typer.Option(help="Holds sst2/train.jsonl and sst2/dev.jsonl.")],
    output: Annotated[Path, typer.Option(help="Where the fine-tuned encoder is kept.")],
    epochs: Annotated[int, typer.Option()] = 3,
    seeds: Annotated[int, typer.Option(help="Calibration sets per scorer.")] = 5,
) -> None:
    harness = registry().get("evaluator", "harness")
    evaluator = harness(harness.Config(tasks=(TASK,), data_dir=data_dir, batch_size=32))
    if not (output / "config.json").exists():
        plain = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        documents: Any = evaluator.training_documents(plain, tokenizer)[:]
        fine_tune(encoder, documents, output, epochs, seed=0)
    model, tokenizer = layerimp.load(output)
    stack = layerimp.find_blocks(model)
    training = evaluator.training_documents(model, tokenizer)
    known: dict[tuple[int, ...], float] = {}

    def accuracy(blocks: list[int]) -> float:
        key = tuple(sorted(blocks))
        if key not in known:
            with pruned(model, blocks):
                (metric,) = evaluator.evaluate(model, tokenizer)
            known[key] = metric.value
        return known[key]

    (whole,) = evaluator.evaluate(model, tokenizer)
    print(f"intact: {whole.value:.2%} ± {whole.stderr:.2%} (standard error over the documents)")
    by_scorer: dict[str, list[list[int]]] = {}
    form = RowFormat(tokenizer, LENGTH, batch_size=16, packing="rows")
    for seed in range(seeds):
        text = Corpus(training, TASK, form).draw(ROWS, seed)
        scorers = {}
        for name in registry().names("scorer"):
            cls = registry().get("scorer", name)
            options = {"seed": seed} if "seed" in cls.Config.model_fields else {}
            scorers[name] = cls(len(stack), cls.Config(**options))
        for name, importance in measure(stack, text, scorers).items():
            by_scorer.setdefault(name, []).append(importance.weakest_first())
    for count in (1, 2):
        print(f"\nwithout {count} of {len(stack)} blocks, {seeds} calibration sets of {ROWS} sentences\n")
        print("| scorer | accuracy | retained | removed (times) |\n|---|---|---|---|")
        for name, orders in by_scorer.items():
            values = [accuracy(order[:count]) for order in orders]
            went = Counter(tuple(sorted(order[:count])) for order in orders).most_common()
            blocks = "; ".join(f"{', '.join(map(str, blocks))} ({times})" for blocks, times in went)
            kept = statistics.mean(values) / whole.value
            mean = interval(values)
            half = mean.high - mean.mean
            print(f"| {name} | {mean.mean:.2%} ± {half:.2%} | {kept:.1%} | {blocks} |", flush=True)
        if count == 1:
            every = {block: accuracy([block]) for block in range(len(stack))}
            print("each block alone: " + ", ".join(f"{block}: {value:.2%}" for block, value in every.items()))


if __name__ == "__main__":
    typer.run(main)
