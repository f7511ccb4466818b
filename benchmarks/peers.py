"""Smaller models by the recipes of other tools, to stand beside those of `layerimp shrink`.

    python benchmarks/peers.py --model DIR --calibration FILE --heal-text FILE --count 7 --minutes 30 --output FOLDER

FOLDER gets a checkpoint for each recipe, which `benchmarks/shrink.py --beside NAME=FOLDER/NAME` measures. A recipe that
trains has the same minutes as layerimp, its own default options, and as much of the same text. Only the schedules are
fitted to the minutes: a few steps are timed first.

- `optipfair` needs the package of that name: it removes the blocks with the lowest cosine distance, and distils.
- `short-transformers` removes the window with the least angular distance at the last token. The package reads the
  outputs of blocks as tuples, which Transformers 5 no longer gives, so the recipe is written out here.
- `llm-streamline` (arXiv:2403.19135, github.com/RUCKBReasoning/LLM-Streamline) replaces the window with the highest
  cosine similarity, which is one block longer, by its first block, trained on the mean squared error of the states.
- `replaceme` (arXiv:2505.02819, github.com/mts-ai/ReplaceMe) folds a linear map, fitted by least squares, into the
  last projection before the window with the least angular distance at the last token. It does not train.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss
from transformers import PreTrainedModel

import layerimp
from layerimp.blocks import run
from layerimp.blocks.forward import hidden_states
from layerimp.blocks.stack import BlockStack
from layerimp.calibration import load_calibration
from layerimp.errors import LayerimpError

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What a recipe is given.

    Attributes:
        intact: The model, which a recipe leaves as it is.
        calibration: Text to choose by, in batches.
        training: Text to train on, in batches.
        count: How many blocks to remove.
        minutes: How long to train.
    """

    intact: PreTrainedModel
    calibration: list[Batch]
    training: list[Batch]
    count: int
    minutes: float


def boundaries(model: PreTrainedModel, batch: Batch) -> list[Tensor]:
    """Return what enters each block, and what leaves the last one [batch, position, hidden]."""
    states: list[Tensor] = []
    blocks = list(layerimp.find_blocks(model))

    def enters(_block: nn.Module, arguments: tuple[Any, ...]) -> None:
        states.append(arguments[0].detach())

    def leaves(_block: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        states.append(hidden_states(output).detach())

    with ExitStack() as hooks, torch.no_grad():
        for block in blocks:
            hooks.enter_context(block.register_forward_pre_hook(enters))
        hooks.enter_context(blocks[-1].register_forward_hook(leaves))
        run(layerimp.find_blocks(model).backbone, batch)
    return states


def at_last_token(before: Tensor, after: Tensor, mask: Tensor) -> float:
    """Return the mean angular distance of two states at the last token of each row, in units of pi."""
    last, rows = mask.sum(-1) - 1, torch.arange(len(mask))
    cosine = cosine_similarity(before[rows, last].float(), after[rows, last].float(), dim=-1)
    return float(cosine.clamp(-1, 1).acos().mean() / math.pi)


def at_all_tokens(before: Tensor, after: Tensor, mask: Tensor) -> float:
    """Return the mean cosine distance of two states."""
    kept = mask.bool()
    return 1 - float(cosine_similarity(before[kept].float(), after[kept].float(), dim=-1).mean())


def nearest_window(task: Task, length: int, distance: Callable[[Tensor, Tensor, Tensor], float]) -> range:
    """Return the window of blocks whose input and output are nearest to one another over the calibration text."""
    sums: list[float] = []
    for batch in task.calibration:
        states, mask = boundaries(task.intact, batch), batch["attention_mask"]
        apart = [distance(entering, leaving, mask) for entering, leaving in zip(states, states[length:], strict=False)]
        sums = [total + each for total, each in zip(sums or [0.0] * len(apart), apart, strict=True)]
    start = sums.index(min(sums))
    return range(start, start + length)


def without(model: PreTrainedModel, blocks: range) -> PreTrainedModel:
    """Return a copy of a model without a window of blocks."""
    return layerimp.prune(copy.deepcopy(model), list(blocks))


def optipfair(task: Task) -> PreTrainedModel:
    """Prune and distil with the package, by its defaults."""
    from optipfair import distill_model, prune_model
    from optipfair.pruning.depth import analyze_layer_importance

    scores = analyze_layer_importance(task.intact, task.calibration, show_progress=False)
    lowest = sorted(scores, key=scores.__getitem__)[: task.count]
    small = prune_model(copy.deepcopy(task.intact), pruning_type="DEPTH", layer_indices=lowest, show_progress=False)
    assert isinstance(small, PreTrainedModel)
    if task.minutes:
        trial, few, seconds = copy.deepcopy(small), task.training[:4], 0.0  # one step of its accumulation
        for _ in range(2):  # the first warms up
            start = time.monotonic()
            distill_model(trial, task.intact, few, epochs=1, show_progress=False)
            seconds = time.monotonic() - start
        batches = 4 * max(1, int(60 * task.minutes / seconds))
        rows = list(itertools.islice(itertools.cycle(task.training), batches))
        distill_model(small, task.intact, rows, epochs=1, show_progress=False)
    return small


def short_transformers(task: Task) -> PreTrainedModel:
    """Remove the window with the least angular distance at the last token."""
    return without(task.intact, nearest_window(task, task.count, at_last_token))


def replaceme(task: Task) -> PreTrainedModel:
    """Fold a least-squares map of the MLP's output into the block before the window."""
    window, gram, cross = nearest_window(task, task.count, at_last_token), 0.0, 0.0
    before = list(layerimp.find_blocks(task.intact))[window.start - 1]
    if hasattr(before, "post_feedforward_layernorm"):  # as in Gemma
        raise typer.BadParameter("replaceme has no form for a model with a norm after the projection that it changes")
    mlp: Any = before.mlp
    for batch in task.calibration:
        written: list[Tensor] = []
        with mlp.register_forward_hook(lambda _mlp, _given, output, into=written: into.append(output.detach())):
            around = boundaries(task.intact, batch)
        kept = batch["attention_mask"].bool()
        start, end, own = (each[kept].double() for each in (around[window.start], around[window.stop], written[0]))
        gram += own.T @ own
        cross += own.T @ (end + own - start)  # what the MLP writes, and what it would have to write
    fitted = torch.linalg.solve(gram, cross)
    small = without(task.intact, window)
    block: Any = layerimp.find_blocks(small)[window.start - 1]
    weight = block.mlp.down_proj.weight
    with torch.no_grad():
        weight.copy_(fitted.T @ weight.double())
    return small


class _ReachedError(LayerimpError):
    """A forward has come to the block that it was to come to."""


def work_of(stack: BlockStack, window: range, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """Run a model as far as the end of a window of blocks.

    Returns:
        The arguments of the first block, its named arguments, and what the last one puts out [batch, position, hidden].
    """
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    outputs: list[Tensor] = []

    def enters(_block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        arguments.append((given, named))

    def leaves(_block: nn.Module, _given: tuple[Any, ...], output: Any) -> None:
        outputs.append(hidden_states(output))
        raise _ReachedError

    into = stack[window.start].register_forward_pre_hook(enters, with_kwargs=True)
    with into, stack[window.stop - 1].register_forward_hook(leaves), suppress(_ReachedError), torch.no_grad():
        run(stack.backbone, batch)
    return *arguments[0], outputs[0]


def llm_streamline(task: Task) -> PreTrainedModel:
    """Train the first block of the window, as the published script does, to do the work of the window."""
    window = nearest_window(task, task.count + 1, at_all_tokens)
    small, intact = without(task.intact, window[1:]), layerimp.find_blocks(task.intact)
    light = layerimp.find_blocks(small)[window.start]
    optimizer = torch.optim.AdamW(light.parameters(), lr=2e-4, weight_decay=1e-3)
    accumulated, lowest, start = 16, 5e-5 / 2e-4, time.monotonic()
    for number, batch in enumerate(itertools.cycle(task.training)):
        done = (time.monotonic() - start) / max(60 * task.minutes, 1e-9)
        if done >= 1:
            break
        given, named, aim = work_of(intact, window, batch)
        kept, own = batch["attention_mask"].bool(), hidden_states(light(*given, **named))
        (mse_loss(own[kept], aim[kept]) / accumulated).backward()
        if number % accumulated == accumulated - 1:
            rate = lowest + (1 - lowest) * (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = 2e-4 * rate
            nn.utils.clip_grad_norm_(light.parameters(), 5)
            optimizer.step()
            optimizer.zero_grad()
    return small


RECIPES: dict[str, Callable[[Task], PreTrainedModel]] = {
    "optipfair": optipfair,
    "short-transformers": short_transformers,
    "llm-streamline": llm_streamline,
    "replaceme": replaceme,
}


def precision(*, mixed: bool) -> torch.autocast:
    """Compute in bfloat16, each time with the weights of now: a cache would keep those from before the training."""
    return torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False)


def main(
    model: Annotated[Path, typer.Option(help="A model directory, of Llama's layout.")],
    calibration: Annotated[str, typer.Option(help="Text to choose by.")],
    output: Annotated[Path, typer.Option(help="The folder for the checkpoints.")],
    count: Annotated[int, typer.Option(help="How many blocks to remove.")],
    heal_text: Annotated[str | None, typer.Option(help="Text to train on; by default that to choose by.")] = None,
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 30,
    recipe: Annotated[list[str] | None, typer.Option(help="Only this recipe; repeatable.")] = None,
    samples: Annotated[int, typer.Option(help="Rows to choose by.")] = 64,
    training_rows: Annotated[int, typer.Option(help="Rows to train on, again and again.")] = 2400,
    max_length: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Rows of a batch; fewer where a large vocabulary needs memory.")] = 8,
    mixed: Annotated[bool, typer.Option(help="Compute in bfloat16; the parameters are float32.")] = False,
) -> None:
    """Make a checkpoint by each recipe that has none in the folder yet."""
    for name in recipe or RECIPES:
        if (output / name).exists():
            continue
        intact, tokenizer = layerimp.load(model, dtype="float32")
        assert tokenizer is not None
        chosen_by, trained_on = (
            list(load_calibration(source, tokenizer, samples=rows, max_length=max_length, batch_size=batch_size))
            for source, rows in ((calibration, samples), (heal_text or calibration, training_rows))
        )
        with precision(mixed=mixed):
            small = RECIPES[name](Task(intact, chosen_by, trained_on, count, minutes))
        small.save_pretrained(output / name)
        tokenizer.save_pretrained(output / name)
        print(f"{output / name}: {len(layerimp.find_blocks(small))} blocks", flush=True)


if __name__ == "__main__":
    typer.run(main)
