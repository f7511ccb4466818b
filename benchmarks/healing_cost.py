"""What a healer computes, in bare passes of the pruned model over the text that it reads, and how long that takes.

    python benchmarks/healing_cost.py --model DIR --calibration FILE.jsonl --blocks 3,6,13,17,25

A bare pass runs all blocks of the pruned model, without the head, over the rows to fit to and the rows to choose by. It
is timed before and after the healing; the ratio is to the mean. The blocks that a healer runs are counted by the tokens
that their first linear map reads, so that stored outputs do not count.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Annotated, Any

import options as o
import torch
import typer
from torch import nn
from transformers.pytorch_utils import Conv1D

import layerimp
from layerimp.blocks import BlockStack, run
from layerimp.calibration import load_calibration
from layerimp.healer import Case, Healer, Repair
from layerimp.healing.engine import heal_beside
from layerimp.registry.catalog import registry
from layerimp.steps import read_steps
from layerimp.surgery.removal import prepare


class Counted(Healer):
    """Another healer, whose work is counted and timed, and a bare pass before and after it.

    Attributes:
        tokens: How many tokens the blocks have read, summed over the blocks: of the intact and of the pruned model, and
            in a bare pass.
        seconds: How long the first bare pass, the healing and the second bare pass took.
    """

    name = "counted"

    def __init__(self, healer: Healer) -> None:
        super().__init__()
        self._healer = healer
        self.tokens, self.seconds = Counter[str](), list[float]()

    def heal(self, case: Case) -> list[Repair]:
        """Heal between two bare passes."""

        def bare() -> None:
            with torch.no_grad():
                for batch in (*case.batches, *case.held_out):
                    run(case.pruned.backbone, batch)

        with self._counting(case.pruned, "bare"):
            self._timed(bare)
        with self._counting(case.pruned, "pruned"), self._counting(case.intact, "intact"):
            repairs: list[Repair] = self._timed(partial(self._healer.heal, case))
        self._timed(bare)
        return repairs

    def _timed(self, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        self.seconds.append(time.perf_counter() - start)
        return result

    @contextmanager
    def _counting(self, stack: BlockStack, name: str) -> Iterator[None]:
        """A context in which the tokens that blocks read are counted."""

        def read(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self.tokens[name] += args[0].shape[:-1].numel()

        with ExitStack() as hooks:
            for block in stack:
                first = next(module for module in block.modules() if isinstance(module, nn.Linear | Conv1D))
                hooks.enter_context(first.register_forward_pre_hook(read))
            yield


def main(
    model: o.Model,
    calibration: Annotated[str, typer.Option(help="Text to heal on.")],
    blocks: Annotated[str, typer.Option(help="The blocks to remove, such as 12,13.")],
    healer: Annotated[list[str] | None, typer.Option(help="HEALER; repeatable.")] = None,
    samples: Annotated[int, typer.Option(help="Rows of text; a quarter of them is held out.")] = 32,
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int, typer.Option(help="The threads of torch.")] = 1,
    max_length: o.MaxLength = 256,
    packing: o.Packing = "windows",
    field: o.Field = "text",
    label_field: o.LabelField = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    loaded, tokenizer = layerimp.load(model)
    stack, steps = layerimp.find_blocks(loaded), read_steps(blocks)
    form: dict[str, Any] = {"field": field, "label_field": label_field, "packing": packing}
    text = load_calibration(calibration, tokenizer, samples=samples, max_length=max_length, seed=seed, **form)
    for name in healer or ["rescale", "linear"]:
        cls = registry().get("healer", name)
        assert issubclass(cls, Healer)
        counted = Counted(cls())
        rest = layerimp.find_blocks(prepare(stack, steps).beside())
        healed = heal_beside(stack, rest, steps, text, counted)
        before, taken, after = counted.seconds
        bare, tokens = (before + after) / 2, counted.tokens
        run_of = {model: tokens[model] / tokens["bare"] for model in ("intact", "pruned")}
        done = Counter(repair.done for repair in healed.repairs)
        print(
            f"{name}, {len(healed.repairs)} gaps ({', '.join(f'{number} {what}' for what, number in done.items())}): "
            f"{taken:.1f} s, {taken / bare:.1f} bare passes of {bare:.1f} s; blocks were run as in "
            f"{run_of['pruned']:.2f} bare passes, and those of the intact model as in {run_of['intact']:.2f}"
        )


if __name__ == "__main__":
    typer.run(main)
