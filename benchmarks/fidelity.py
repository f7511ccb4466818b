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

import argparse
import statistics
import time
from collections.abc import Callable, Iterable

import torch

import layerimp
from layerimp.blocks import BlockStack, run
from layerimp.blocks.head import Head
from layerimp.calibration import load_calibration
from layerimp.calibration.validation import Checked
from layerimp.fidelity import Comparer, Intact, continuations, end_tokens, prompts, repeated
from layerimp.fidelity.divergence import CHUNK_LOGITS
from layerimp.models import longest_row
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare
from layerimp.sweep import Batch

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--model", required=True)
PARSER.add_argument("--calibration", required=True)
PARSER.add_argument("--remove", type=int, default=1, help="how many blocks to remove")
PARSER.add_argument("--rows", type=int, default=Comparer.Config.model_fields["rows"].default)
PARSER.add_argument("--max-length", type=int, default=256)
PARSER.add_argument("--batch-size", type=int, default=8)
PARSER.add_argument("--rounds", type=int, default=5)
PARSER.add_argument("--threads", type=int, default=2)
PARSER.add_argument("--dtype", default="float32")
PARSER.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: the computing time of all threads")


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


def kinds(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The kinds of work, ready to run."""
    torch.set_num_threads(args.threads)
    model, tokenizer = layerimp.load(args.model, dtype=args.dtype)
    text = load_calibration(
        args.calibration, tokenizer, samples=args.rows, max_length=args.max_length, batch_size=args.batch_size
    )
    for parameter in model.parameters():
        parameter.sum()  # weights are mapped from their file until they are read
    stack = find_blocks(model)
    removed = range(len(stack) - 1 - args.remove, len(stack) - 1)
    other = find_blocks(prepare(stack, list(removed)).beside())
    batches = list(Checked(text, stack))
    rows, masks = zip(*repeated(batches, tokenizer.all_special_ids, longest_row(model)), strict=True)
    asked, ends, classes = prompts(batches, tokenizer), end_tokens(model, tokenizer), len(tokenizer)
    return {
        "forwards": lambda: forwards((stack, other), batches),
        "divergence": lambda: Intact(stack, batches, classes=classes).divergence(other),
        "copying": lambda: Intact(stack, rows, classes=classes, masks=masks).divergence(other),
        "generation": lambda: [continuations(each, asked, ends) for each in (stack, other)],
    }


def main() -> None:
    args = PARSER.parse_args()
    work = kinds(args)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {kind: [] for kind in work}
    for number in range(1 + args.rounds):
        for kind, function in work.items():
            start = clock()
            function()
            if number:  # the first round warms up
                times[kind].append(clock() - start)
    print(
        f"{args.model}: {args.rows}x{args.max_length} tokens, {args.dtype}, {args.threads} threads, {args.clock} time, "
        f"{torch.backends.cpu.get_cpu_capability()}"
    )
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, values in times.items():
        pairs = [value / bare for bare, value in zip(times["forwards"], values, strict=True)]
        print(
            f"{kind:>12}: median {medians[kind]:.3f} s ({min(values):.3f} to {max(values):.3f}), "
            f"{medians[kind] / medians['forwards']:.3f} of forwards; pairs {min(pairs):.3f} to {max(pairs):.3f}"
        )
    rest = medians["divergence"] + medians["copying"]
    print(f"generation / (divergence + copying): {medians['generation'] / rest:.3f}")


if __name__ == "__main__":
    main()
