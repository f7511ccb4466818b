"""Fine-tune an encoder on SST-2, for `choices.py`.

    python benchmarks/sst2_encoder.py --encoder DIR --data-dir DIR --output DIR

The encoder gets a new head, and learns from the training split of `layerimp_sst2`.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from layerimp.registry.catalog import registry

BATCH, POOL, LENGTH = 32, 50, 64
RATE, WARM_SHARE, REPORT_EVERY = 5e-5, 0.06, 200
DECAY = 0.999
"""The decay of the moving average."""


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
    encoder: Annotated[Path, typer.Option(help="A directory with a pre-trained encoder.")],
    data_dir: Annotated[Path, typer.Option(help="Holds sst2/train.jsonl and sst2/dev.jsonl.")],
    output: Annotated[Path, typer.Option(help="Where the fine-tuned encoder is written.")],
    epochs: Annotated[int, typer.Option(help="How often all documents are read.")] = 1,
) -> None:
    """Fine-tune and write."""
    harness = registry().get("evaluator", "harness")
    evaluator = harness(harness.Config(tasks=("layerimp_sst2",), data_dir=data_dir))
    plain = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    documents: Any = evaluator.training_documents(plain, AutoTokenizer.from_pretrained(encoder))[:]
    fine_tune(encoder, documents, output, epochs, seed=0)


if __name__ == "__main__":
    typer.run(main)
