r"""The cost of measuring fidelity relative to the two forward passes that it needs, in the same run.

    python benchmarks/fidelity.py --model SMOLLM2 --calibration FILE.jsonl --remove 7
    python benchmarks/fidelity.py --model GEMMA --calibration FILE.jsonl --remove 4 --dtype bfloat16

The last blocks but one are removed; which ones does not matter for the cost. The kinds of work:

- `forwards`: both models over the text, and the logits of both in chunks of the same size; nothing is compared;
- `divergence`: the same, with divergence and agreement;
- `copying`: the same on rows whose second half repeats the first;
- `generation`: greedy continuations by both models.

`divergence` should take at most 1.2 times as long as `forwards`, and `generation` no longer than the rest together. All
kinds are interleaved after a warm-up; ratios are those of the medians, and the range of the ratios within a round is
shown as well. On a machine with other programs running, `--clock cpu` counts the time that this process computed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Annotated

import options as o
import torch
import typer
from costs import Clock, shown, timed

import layerimp
from layerimp.blocks import BlockStack, run
from layerimp.blocks.head import Head
from layerimp.calibration import load_calibration
from layerimp.calibration.validation import Checked
from layerimp.fidelity import Intact, continuations, end_tokens, prompts, repeated
from layerimp.fidelity.comparer import ROWS
from layerimp.fidelity.intact import CHUNK_LOGITS
from layerimp.models import longest_row
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare
from layerimp.sweep import Batch


def forwards(stacks: Iterable[BlockStack], batches: Iterable[Batch]) -> None:
    """Run models over a text, and compute the logits of all predictions in chunks."""
    with torch.no_grad():
        for stack in stacks:
            head = Head(stack)
            for batch in batches:
                output = run(head.backbone, batch)
                rows = output[head.field][head.targets(batch, output).mask]
                for part in rows.split(max(1, CHUNK_LOGITS // head.num_classes)):
                    head.token_logits(output, part)


def main(
    model: o.Model,
    calibration: Annotated[str, typer.Option(help="The text.")],
    remove: Annotated[int, typer.Option(help="How many blocks to remove.")] = 1,
    rows: o.Rows = ROWS,
    max_length: o.MaxLength = 256,
    batch_size: Annotated[int, typer.Option(help="Rows of a batch.")] = 8,
    rounds: Annotated[int, typer.Option(help="How often all is timed.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 2,
    dtype: o.Dtype = "float32",
    clock: Clock = "wall",
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    text = load_calibration(calibration, tokenizer, samples=rows, max_length=max_length, batch_size=batch_size)
    for parameter in loaded.parameters():
        parameter.sum()  # weights are mapped from their file until they are read
    stack = find_blocks(loaded)
    other = find_blocks(prepare(stack, list(range(len(stack) - 1 - remove, len(stack) - 1))).beside())
    batches = list(Checked(text, stack))
    again, masks = zip(*repeated(batches, tokenizer.all_special_ids, longest_row(loaded)), strict=True)
    chosen, ends, classes = prompts(batches, tokenizer), end_tokens(loaded, tokenizer), len(tokenizer)
    work: dict[str, Callable[[], object]] = {
        "forwards": lambda: forwards((stack, other), batches),
        "divergence": lambda: Intact(stack, batches, classes=classes).divergence(other),
        "copying": lambda: Intact(stack, again, classes=classes, masks=masks).divergence(other),
        "generation": lambda: [continuations(each, chosen, ends) for each in (stack, other)],
    }
    times = timed(work, rounds, clock)
    machine = f"{threads} threads, {clock} time, {torch.backends.cpu.get_cpu_capability()}"
    print(f"{model}: {rows}x{max_length} tokens, {dtype}, {machine}", *shown(times, "forwards"), sep="\n")
    _forwards, *others, generation = map(statistics.median, times.values())
    print(f"generation / (divergence + copying): {generation / sum(others):.3f}")


if __name__ == "__main__":
    typer.run(main)
