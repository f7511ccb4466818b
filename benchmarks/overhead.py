r"""The cost of scoring relative to a bare forward pass of the backbone over the same tokens, in the same run.

    python benchmarks/overhead.py --model DIR --calibration FILE.jsonl
    python benchmarks/overhead.py --model DIR --calibration FILE.jsonl --each --clock cpu --threads 1 \
        --scorer avss --scorer block-influence --scorer angular --scorer relative-magnitude
    python benchmarks/overhead.py --model DIR --calibration FILE.jsonl --no-memory --text 8x256 --text 1x16

The last command shows the costs that do not depend on the amount of text: on a single batch, and on a single short row.
Several scorers are measured together (`scored`), and with `--each` also one by one, as well as the search for the sites
that they read (`scout`), which happens once per run for any amount of text. To measure as on a CPU with AVX2 only, set
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2`.

In addition to the bare pass (`bare`), a scorer that reads gradients is compared with a bare forward and backward pass
(`back`: parameters frozen, from the last hidden state), and a scorer that reads predictions with the head alone, once
over the tokens (`head`).

Time: all kinds are interleaved after a warm-up. Ratios are those of the medians; the median and the range of the ratios
within a round are also shown. On a machine with other programs running, `--clock cpu` counts the time that this process
computed, without waiting. Memory: each kind runs in a separate process, and the peak is counted above the memory of the
process after model and text were loaded and every weight was read.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import layerimp
from layerimp.blocks import run
from layerimp.blocks.head import Head
from layerimp.calibration import load_calibration
from layerimp.calibration.validation import Checked
from layerimp.registry.catalog import registry
from layerimp.sweep import Backward


def sizes(text: str) -> tuple[int, int]:
    """Read the rows and the tokens per row of a text."""
    rows, tokens = map(int, text.split("x"))
    return rows, tokens


PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--model", required=True)
PARSER.add_argument("--calibration", required=True)
PARSER.add_argument("--scorer", action="append", help="default: avss")
PARSER.add_argument(
    "--text", action="append", type=sizes, metavar="ROWSxTOKENS", help="how much text; repeatable; default: 32x256"
)
PARSER.add_argument("--batch-size", type=int, default=8)
PARSER.add_argument("--rounds", type=int, default=5)
PARSER.add_argument("--threads", type=int, default=2)
PARSER.add_argument("--dtype", default="float32")
PARSER.add_argument("--each", action="store_true", help="measure each scorer alone as well, and the search for sites")
PARSER.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: the computing time of all threads")
PARSER.add_argument(
    "--no-memory", action="store_true", help="do not measure memory, which needs another run of each kind"
)
PARSER.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)


def kinds(args: argparse.Namespace, rows: int, tokens: int) -> dict[str, Callable[[], None]]:
    """The bare passes that the scorers' sweeps are made of, and the scored one, ready to run."""
    torch.set_num_threads(args.threads)
    model, tokenizer = layerimp.load(args.model, dtype=args.dtype)
    calibration = load_calibration(
        args.calibration, tokenizer, samples=rows, max_length=tokens, batch_size=args.batch_size
    )
    for parameter in model.parameters():
        parameter.sum()  # weights are mapped from their file until they are read
    stack = layerimp.find_blocks(model)
    batches = list(Checked(calibration, stack))
    scorers = [registry().get("scorer", name)(len(stack)) for name in args.scorer]
    sweeps = [scorer.sweep for scorer in scorers]

    def settle() -> None:
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                run(stack.backbone, batch)
        settle()

    def back() -> None:
        for batch in batches:
            run(stack.backbone, batch).last_hidden_state.sum().backward()
        settle()

    def head() -> None:
        for output, targets in predicted:
            if gradients:
                whole.gradient(output, targets, gradients[0].target)
            else:
                with torch.inference_mode():
                    whole.log_probs(output, targets)
        settle()

    def scored(*names: str) -> None:
        layerimp.score(model, calibration, names)
        settle()

    def scout() -> None:
        with torch.no_grad():
            for scorer, sweep in zip(scorers, sweeps, strict=True):
                if sweep is not None:
                    sweep.scout(stack, scorer.observes)
        settle()

    functions: dict[str, Callable[[], None]] = {"bare": bare}
    gradients = [sweep for sweep in sweeps if isinstance(sweep, Backward)]
    if gradients:
        model.requires_grad_(False)
        embedding = model.get_input_embeddings()
        embedding.register_forward_hook(lambda _module, _args, hidden: hidden.detach().requires_grad_())
        functions["back"] = back
    if any(sweep is not None and sweep.predicts for sweep in sweeps):
        whole = Head(stack)
        with torch.no_grad():
            outputs = [run(whole.backbone, batch) for batch in batches]
        predicted = [(output, whole.targets(batch, output)) for batch, output in zip(batches, outputs, strict=True)]
        functions["head"] = head
    if args.each:
        functions |= {"scout": scout} | {name: partial(scored, name) for name in args.scorer}
    return {**functions, "scored": partial(scored, *args.scorer)}


def timed(function: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start


def peak_of(function: Callable[[], None]) -> float:
    """Return how far this process's resident memory rises above its current value, in MiB. Linux only."""
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which was reached while loading the model

    def kibibytes(name: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))

    before = kibibytes("VmRSS")
    function()
    return (kibibytes("VmHWM") - before) / 1024


def main() -> None:
    args = PARSER.parse_args()
    args.scorer = args.scorer or ["avss"]
    if args.peak_of:
        kind, text = args.peak_of
        print(peak_of(kinds(args, *sizes(text))[kind]))
        return
    for rows, tokens in args.text or [(32, 256)]:
        measure(args, rows, tokens)


def measure(args: argparse.Namespace, rows: int, tokens: int) -> None:
    """Measure all kinds on one text, and print the figures."""
    run_by_kind = kinds(args, rows, tokens)
    peaks = {} if args.no_memory else {kind: peak_apart(kind, f"{rows}x{tokens}") for kind in run_by_kind}
    for function in run_by_kind.values():
        function()
    times: dict[str, list[float]] = {kind: [] for kind in run_by_kind}
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    for _ in range(args.rounds):
        for kind, function in run_by_kind.items():
            times[kind].append(timed(function, clock))
    print(
        f"{', '.join(args.scorer)} on {rows}x{tokens} tokens, {args.dtype}, {args.threads} threads, "
        f"{args.clock} time, {torch.backends.cpu.get_cpu_capability()}"
    )
    report(times, peaks)


def peak_apart(kind: str, text: str) -> float:
    """Run `peak_of` for one kind on one text in a separate process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", kind, text]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def report(times: dict[str, list[float]], peaks: dict[str, float]) -> None:
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, values in times.items():
        pairs = [value / bare for bare, value in zip(times["bare"], values, strict=True)]
        peak = f"; peak +{peaks[kind]:.0f} MiB over the loaded model" if peaks else ""
        print(
            f"{kind:>20}: median {medians[kind]:.3f} s ({min(values):.3f} to {max(values):.3f}), "
            f"{medians[kind] / medians['bare']:.3f} of bare; "
            f"pairs {statistics.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f}){peak}"
        )
    if "head" in times:
        print(f"(scored - head) / bare: {(medians['scored'] - medians['head']) / medians['bare']:.3f}")
    if peaks:
        print(f"memory: {peaks['scored'] - peaks['bare']:+.0f} MiB over a bare pass")


if __name__ == "__main__":
    main()
