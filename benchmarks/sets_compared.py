r"""Which set of blocks is farthest from harm: searches by `divergence`, and sets that cheaper ideas propose.

    python benchmarks/sets_compared.py --model DIR --count 7 --calibration C4.jsonl --text OTHER.jsonl --dtype bfloat16
    python benchmarks/sets_compared.py --model CLASSIFIER --count 2 --calibration SST2/train.jsonl \
        --text SST2/dev.jsonl --field sentence --packing rows --max-length 64 --samples 512

Every set is chosen on one text and judged on another: by the divergence from the intact model without the set, its gaps
repaired, at new and at copied tokens. Finished sets are kept in --results, a JSON line for each. There are searches,
some of which save time:

- `raced`: a third of the rows decides which blocks are scored on all of them;
- `without the head`: the distance of the last hidden states in the metric of the head, instead of the divergence.

If there are few sets, all are tried. The others are those of single scorers, and of

- `tournament`: of those the one that is judged best on the text that they were chosen on;
- `maximum of two`: block influence and `taylor`, each standardised;
- `unexplained`: one minus the held-out R squared of the best linear map across a block;
- `fisher`: gates on blocks; the second order of the loss in them, with interactions, from the gradients of single rows,
  as Kwon et al. 2022 (arXiv:2204.09656) have it for heads and filters;
- `gradients where the head reads`, for classifiers: what a block adds times its gradient, where a token counts as much
  as the gradient of its last state.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any
from unittest.mock import patch

import options as o
import torch
import typer
from finished import Finished
from torch import Tensor

import layerimp
from layerimp.blocks import BlockStack
from layerimp.blocks.head import Head
from layerimp.calibration import load_calibration
from layerimp.fidelity import Intact
from layerimp.pruner import Budget
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure, scored_blocks
from layerimp.sweep.cache import BlockCache

SINGLE = {
    "block-influence": {},
    "angular": {},
    "relative-magnitude": {},
    "taylor": {},
    "gbis": {},
    "avss": {},
    "avss (block_delta)": {"site": "block_delta"},
}
"""Scorers that read a text once, with their options."""
MOST = 300
"""So many sets are tried one by one."""


class Judge:
    """Scores by `divergence` on one text, and keeps what depends on the intact model alone.

    Args:
        stack: The blocks of the model.
        text: The text.
        rows: The rows to measure on; None for what the scorer does by default.
    """

    def __init__(self, stack: BlockStack, text: Any, rows: int | None = None) -> None:
        self._stack, self._text, self._cache, self._memory = stack, text, BlockCache(stack), dict[Any, Any]()
        self._options = {"rows": rows}

    def __call__(self, removed: Sequence[int], among: Collection[int] | None = None) -> layerimp.Importance:
        """Score the blocks that are left; see `layerimp.pruner.Scoring`."""
        cls = registry().get("scorer", "divergence")
        scorer = cls(len(scored_blocks(removed, len(self._stack), among)), cls.Config(**self._options))
        memory = {"removed": removed, "among": among, "cache": self._cache, "memory": self._memory}
        return measure(self._stack, self._text, {"divergence": scorer}, **memory)["divergence"]

    def distance(self, blocks: Sequence[int]) -> tuple[float, ...]:
        """Return the divergences without some blocks, their gaps repaired: at new tokens, and at copied ones."""
        *others, last = sorted(blocks)
        columns = self(others, {last}).columns
        return tuple(columns[name][0] for name in ("divergence", "divergence_copying") if name in columns)


def raced(few: Judge, judge: Callable[..., layerimp.Importance], finalists: int) -> Callable[..., layerimp.Importance]:
    """Return what scores on few rows, and the best so many blocks again on all."""

    def scoring(removed: Sequence[int], among: Collection[int] | None = None) -> layerimp.Importance:
        if among is not None and len(among) <= finalists:
            return judge(removed, among)
        quick = few(removed, among)
        known = dict(zip(quick.blocks, quick.scores, strict=True))
        again = judge(removed, sorted(known, key=known.__getitem__)[:finalists])
        known |= dict(zip(again.blocks, again.scores, strict=True))
        return layerimp.Importance(scores=list(known.values()), blocks=list(known))

    return scoring


@contextmanager
def without_head() -> Iterator[None]:
    """Let the distance of the last hidden states in the metric of the head stand for the divergence.

    The metric is the mean covariance of the unembedding's rows under the predictions of the intact model on a batch.
    """
    metrics: dict[Intact, Tensor] = {}

    def compared(intact: Any, number: int, head: Head, outputs: Sequence[Any]) -> list[Any]:
        expected, mask = intact._batches[number].values.float(), intact.targets(number).mask
        if intact not in metrics:
            weight = head.unembedding(outputs[0]).weight.float()
            probable = (expected @ weight.T).softmax(-1)
            mean = probable @ weight
            metrics[intact] = ((weight.T * probable.sum(0)) @ weight - mean.T @ mean) / len(mean)
        away = [output[head.field][mask].float() - expected for output in outputs]
        return [SimpleNamespace(divergences=((each @ metrics[intact]) * each).sum(-1).double() / 2) for each in away]

    with patch.object(Intact, "compared", compared):
        yield


def planned(scoring: Callable[..., layerimp.Importance], pruner: str, count: int, blocks: int, **options: Any) -> Any:
    """Return what a pruner removes."""
    return registry().create("pruner", pruner, options).plan(scoring, Budget.exactly(count, blocks)).blocks


def lowest(scores: Sequence[float], count: int) -> list[int]:
    """Return the blocks with the lowest scores."""
    return sorted(sorted(range(len(scores)), key=scores.__getitem__)[:count])


def standardised(scores: Sequence[float]) -> list[float]:
    """Return scores with a mean of 0 and a variance of 1."""
    mean, spread = statistics.mean(scores), statistics.pstdev(scores)
    return [(score - mean) / spread for score in scores]


def unexplained(stack: BlockStack, text: Any, ridge: float = 1e-3) -> list[float]:
    """Return for each block the held-out share of its output's variance that no linear map of its input explains."""
    ends: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(len(stack))]
    with ExitStack() as hooks, torch.no_grad():
        for block, kept in zip(stack, ends, strict=True):

            def keep(_block: Any, args: Any, output: Any, kept: Any = kept) -> None:
                kept.append((args[0], output[0] if isinstance(output, tuple) else output))

            hooks.callback(block.register_forward_hook(keep).remove)
        for batch in text:
            stack.model(**batch)
    masks = torch.cat([batch["attention_mask"].flatten().bool() for batch in text])
    shares = []
    for kept in ends:
        into, out = (
            torch.cat([state.flatten(0, 1) for state in part])[masks].double() for part in zip(*kept, strict=True)
        )
        half = len(into) // 2
        x, y = into - into[:half].mean(0), out - out[:half].mean(0)
        gram = x[:half].T @ x[:half]
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        rest = y[half:] - x[half:] @ torch.linalg.solve(gram, x[:half].T @ y[:half])
        shares.append(float(rest.square().sum() / y[half:].square().sum()))
    return shares


def fisher(stack: BlockStack, text: Any, count: int) -> list[int]:
    """Return the set whose gates cost least: greedily by half of the square of the sum of a row's gradients."""
    gates = torch.ones(len(stack), requires_grad=True)

    def gated(number: int) -> Callable[[Any, Any, Any], Any]:
        def hook(_block: Any, args: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            mixed = args[0] + gates[number].to(first.dtype) * (first - args[0])
            return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

        return hook

    rows: list[Tensor] = []
    with ExitStack() as hooks:
        for number, block in enumerate(stack):
            hooks.callback(block.register_forward_hook(gated(number)).remove)
        for batch in text:
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                own = ids[mask.bool()][None]
                labels = {"labels": own} if stack.model.can_generate() else {"labels": _label(stack, own)}
                (gradient,) = torch.autograd.grad(stack.model(input_ids=own, **labels).loss, gates)
                rows.append(gradient.double())
    gradients, chosen = torch.stack(rows), list[int]()
    for _ in range(count):
        rest = [number for number in range(len(stack)) if number not in chosen]
        costs = [float(gradients[:, [*chosen, number]].sum(1).square().mean()) for number in rest]
        chosen.append(rest[costs.index(min(costs))])
    return sorted(chosen)


def where_head_reads(stack: BlockStack, text: Any) -> list[float]:
    """Return for each block the magnitude of what it adds times the gradient, averaged over the tokens by weight.

    The weight of a token is the norm of the gradient at the end of the last block.
    """
    ends: list[tuple[Tensor, Tensor]] = []
    totals = torch.zeros(len(stack), dtype=torch.float64)

    def begin(_block: Any, args: Any) -> Any:
        return args[0].detach().requires_grad_(), *args[1:]

    def keep(_block: Any, args: Any, output: Any) -> None:
        ends.append((args[0], output[0] if isinstance(output, tuple) else output))

    with ExitStack() as hooks:
        hooks.callback(stack[0].register_forward_pre_hook(begin).remove)
        for block in stack:
            hooks.callback(block.register_forward_hook(keep).remove)
        for batch in text:
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                row = ids[mask.bool()][None]
                labels = _label(stack, row)
                ends.clear()
                loss = stack.model(input_ids=row, labels=labels).loss
                gradients = torch.autograd.grad(loss, [out for _, out in ends])
                weights = gradients[-1].norm(dim=-1)
                added = [gradient * (out - into) for gradient, (into, out) in zip(gradients, ends, strict=True)]
                effects = torch.stack([part.sum(-1).abs() for part in added])
                totals += (effects * weights / weights.sum()).sum((1, 2)).double()
    return totals.tolist()


def _label(stack: BlockStack, ids: Tensor) -> Tensor:
    """Return the model's own label of a row."""
    with torch.no_grad():
        label: Tensor = stack.model(input_ids=ids).logits.argmax(-1)
    return label


def main(
    model: o.Model,
    count: Annotated[int, typer.Option(help="How many blocks to remove.")],
    calibration: Annotated[str, typer.Option(help="The text to choose by.")],
    text: Annotated[str, typer.Option(help="The text to judge on.")],
    samples: Annotated[int, typer.Option(help="Rows of each text.")] = 64,
    max_length: o.MaxLength = 256,
    dtype: o.Dtype = "float32",
    field: Annotated[str, typer.Option(help="The field of the documents.")] = "text",
    packing: Annotated[str | None, typer.Option(help="How rows are made of documents.")] = None,
    results: o.Results = None,
) -> None:
    """Choose, judge and print."""
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    stack, blocks = layerimp.find_blocks(loaded), len(layerimp.find_blocks(loaded))
    drawn: dict[str, Any] = {"samples": samples, "max_length": max_length, "field": field, "packing": packing}
    own, other = (load_calibration(source, tokenizer, **drawn) for source in (calibration, text))
    judge, elsewhere = Judge(stack, own), Judge(stack, other)

    def searched(pruner: str, finalists: int | None = None, **options: Any) -> list[int]:
        scoring: Callable[..., layerimp.Importance] = Judge(stack, own)
        if finalists is not None:
            scoring = raced(Judge(stack, own, rows=4), scoring, finalists)
        return planned(scoring, pruner, count, blocks, **options)

    def headless() -> list[int]:
        with without_head():
            return searched("greedy", rescored=3)

    scores = {
        name: layerimp.score(loaded, own, {"own": name.split()[0]}, options={"own": SINGLE[name]}) for name in SINGLE
    }
    single = {name: lowest(importance["own"].scores, count) for name, importance in scores.items()}
    two = [standardised(scores[name]["own"].scores) for name in ("block-influence", "taylor")]
    ideas: dict[str, Callable[[], Sequence[int]]] = {
        **{name: (lambda chosen=chosen: chosen) for name, chosen in single.items()},
        "tournament": lambda: min(single.values(), key=lambda chosen: statistics.mean(judge.distance(chosen))),
        "maximum of two": lambda: lowest([max(pair) for pair in zip(*two, strict=True)], count),
        "unexplained": lambda: lowest(unexplained(stack, own), count),
        "fisher": lambda: fisher(stack, own, count),
        "divergence, once": lambda: lowest(Judge(stack, own)([]).scores, count),
        "divergence, greedy, 3 rescored": lambda: searched("greedy", rescored=3),
        "divergence, greedy, 3 rescored, raced": lambda: searched("greedy", finalists=count + 3, rescored=3),
        "divergence, window": lambda: searched("window"),
        "divergence, greedy": lambda: searched("greedy"),
        "divergence, greedy with exchange": lambda: searched("greedy", exchange=2),
    }
    if loaded.can_generate():
        ideas["divergence, greedy, 3 rescored, without the head"] = headless
    else:
        ideas["gradients where the head reads"] = lambda: lowest(where_head_reads(stack, own), count)
    if math.comb(blocks, count) <= MOST:
        sets = list(itertools.combinations(range(blocks), count))
        ideas[f"best of all {len(sets)}"] = lambda: min(sets, key=lambda each: statistics.mean(judge.distance(each)))
    finished = Finished(results, [samples, max_length, dtype, packing])
    about = {"model": Path(model).name, "count": count}
    for name, choose in ideas.items():
        if any((about | {"by": name}).items() <= line.items() for line in finished.lines):
            continue
        start = time.process_time()
        chosen = sorted(choose())
        took = time.process_time() - start
        ends = {"own": judge.distance(chosen), "elsewhere": elsewhere.distance(chosen)}
        finished.add(about | {"by": name, "blocks": chosen, "seconds": took, **ends})
        shown = [" and ".join(f"{value:.3f}" for value in each) for each in ends.values()]
        print(f"{name}: {chosen}, {took:.0f} s; {shown[0]} on its text, {shown[1]} elsewhere", flush=True)


if __name__ == "__main__":
    typer.run(main)
