"""The cost of each scorer, the blocks that it removes first, and the perplexity without them.

    python benchmarks/scorers.py --model DIR --calibration FILE.jsonl --held-out FILE.jsonl

Each scorer has a separate pass here, whose time is given in bare passes of the backbone over the same tokens, run just
before; it includes the head if a scorer needs it. The perplexity is that of the held-out text. `random` is drawn five
times. Block influence is compared with a computation from the hidden states that Transformers itself returns.

The last rows are for greedy removal by `perplexity`: by the pruner, and by a loop that actually removes every candidate
and runs the whole model with the loss of Transformers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from layerimp_baselines import Perplexity
from layerimp_greedy import Greedy
from torch.nn.functional import cosine_similarity

import layerimp
from layerimp.blocks import BlockStack, run
from layerimp.blocks.head import Head
from layerimp.calibration import load_calibration
from layerimp.calibration.validation import Checked
from layerimp.pruner import Budget
from layerimp.registry.catalog import registry
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.sweep.cache import BlockCache

DRAWS = 5


def perplexity(stack: BlockStack, text: Any) -> float:
    """The perplexity per token, from a full pass and the head."""
    head, total, count = Head(stack), 0.0, 0
    with torch.inference_mode():
        for batch in Checked(text, stack):
            output = run(head.backbone, batch)
            targets = head.targets(batch, output)
            total -= float(head.log_probs(output, targets).sum(dtype=torch.float64))
            count += int(targets.mask.sum())
    return math.exp(total / count)


def block_influence(stack: BlockStack, text: Any) -> torch.Tensor:
    """The scores of all blocks but the last, whose output Transformers returns only after the final norm."""
    turned, count = torch.zeros(len(stack) - 1, dtype=torch.float64), 0
    with torch.inference_mode():
        for batch in Checked(text, stack):
            output = stack.backbone(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                use_cache=False,
                output_hidden_states=True,
            )
            mask = batch["attention_mask"].bool()
            states = [hidden[mask].double() for hidden in output.hidden_states[:-1]]
            turned += torch.stack([(1 - cosine_similarity(a, b, dim=-1)).sum() for a, b in pairwise(states)])
            count += int(mask.sum())
    return turned / count


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def scorers(num_blocks: int) -> dict[str, Callable[[int], Scorer]]:
    """The functions that make each scorer for a number of blocks, by label."""
    makers: dict[str, Callable[[int], Any]] = {n: registry().get("scorer", n) for n in registry().names("scorer")}
    random = makers.pop("random")
    for seed in range(DRAWS):
        makers[f"random {seed}"] = lambda blocks, seed=seed: random(blocks, random.Config(seed=seed))
    return makers


def greedily(stack: BlockStack, text: Any, count: int) -> list[int]:
    """Remove greedily by the pruner."""
    cache = BlockCache(stack)

    def scoring(removed: Sequence[int]) -> Importance:
        scorer = {"perplexity": Perplexity(len(stack) - len(removed))}
        return measure(stack, text, scorer, removed=removed, cache=cache)["perplexity"]

    return Greedy().plan(scoring, Budget(len(stack), count)).blocks


def plain_loss(model: Any, text: Any, stack: BlockStack) -> float:
    """Return the mean loss per token that Transformers itself computes."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in Checked(text, stack):
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
            here = int((labels[:, 1:] != -100).sum())
            total, count = total + float(loss) * here, count + here
    return total / count


def naively(stack: BlockStack, text: Any, count: int) -> list[int]:
    """Remove greedily by a loop that actually removes every candidate and runs the whole model."""
    removed: list[int] = []
    for _ in range(count):
        left: dict[int, float] = {}
        for block in set(range(len(stack))) - set(removed):
            with pruned(stack.model, [*removed, block]):
                left[block] = plain_loss(stack.model, text, stack)
        removed.append(min(left, key=lambda block: left[block]))
    return removed


def main(
    model: Annotated[str, typer.Option()],
    calibration: Annotated[Path, typer.Option()],
    held_out: Annotated[Path, typer.Option()],
    samples: Annotated[int, typer.Option(help="Rows of calibration text.")] = 6,
    held_out_samples: Annotated[int, typer.Option()] = 12,
    max_length: Annotated[int, typer.Option()] = 128,
    # typer accepts only lists, and this one is never changed.
    remove: Annotated[list[int], typer.Option(help="How many blocks to remove.")] = [3, 4],  # noqa: B006 - typer only reads it
    threads: Annotated[int, typer.Option()] = 2,
) -> None:
    torch.set_num_threads(threads)
    loaded, tokenizer = layerimp.load(model, dtype="float32")
    stack = layerimp.find_blocks(loaded)
    text = load_calibration(calibration, tokenizer, samples=samples, max_length=max_length)
    other = load_calibration(held_out, tokenizer, samples=held_out_samples, max_length=max_length)
    rows: list[tuple[str, float, list[int]]] = []

    def bare() -> None:
        with torch.inference_mode():
            for batch in Checked(text, stack):
                run(stack.backbone, batch)

    def left(blocks: Sequence[int]) -> float:
        with pruned(loaded, blocks):
            return perplexity(layerimp.find_blocks(loaded), other)

    bare()
    print(f"intact: perplexity {perplexity(stack, other):.4g}")
    for label, make in scorers(len(stack)).items():
        unit, _ = timed(bare)
        cost, importance = timed(lambda make=make: measure(stack, text, {"it": make(len(stack))})["it"])
        rows.append((label, cost / unit, importance.weakest_first()[: max(remove)]))
        print(f"{label} {cost:.1f} s: " + " ".join(f"{score:.4g}" for score in importance.scores), flush=True)
        if label == "block-influence":
            expected = block_influence(stack, text)
            gap = (torch.tensor(importance.scores[:-1], dtype=torch.float64) / expected - 1).abs().max()
            print(f"block-influence from hidden states: relative difference at most {gap:.1e}")
    for label, way in (("greedy", greedily), ("greedy, naively", naively)):
        unit, _ = timed(bare)
        cost, blocks = timed(lambda way=way: way(stack, text, max(remove)))
        rows.append((label, cost / unit, blocks))
        print(f"{label} {cost:.1f} s", flush=True)
    print("| scorer | cost | first removed | " + " | ".join(f"-{count}" for count in remove) + " |")
    print("|---" * (3 + len(remove)) + "|")
    for label, cost, blocks in rows:
        values = " | ".join(f"{left(blocks[:count]):.4g}" for count in remove)
        print(f"| {label} | {cost:.1f} | {', '.join(map(str, blocks))} | {values} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
