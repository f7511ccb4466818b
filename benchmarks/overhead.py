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

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import options as o
import torch
import typer
from costs import Clock, peak, shown, timed

import layerimp
from layerimp.blocks import BlockStack, run
from layerimp.blocks.head import Head
from layerimp.calibration import CalibrationSet, load_calibration
from layerimp.calibration.validation import Checked
from layerimp.registry.catalog import registry
from layerimp.sweep import Backward


def kinds(
    stack: BlockStack, text: CalibrationSet, names: Sequence[str], *, each: bool
) -> dict[str, Callable[[], None]]:
    """The bare passes that the scorers' sweeps are made of, and the scored one, ready to run."""
    model, batches = stack.model, list(Checked(text, stack))
    scorers = [registry().get("scorer", name)(len(stack)) for name in names]
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
        embedding = model.get_input_embeddings()
        with embedding.register_forward_hook(lambda _module, _args, hidden: hidden.detach().requires_grad_()):
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
        layerimp.score(model, text, names)
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
        functions["back"] = back
    if any(sweep is not None and sweep.predicts for sweep in sweeps):
        whole = Head(stack)
        with torch.no_grad():
            outputs = [run(whole.backbone, batch) for batch in batches]
        predicted = [(output, whole.targets(batch, output)) for batch, output in zip(batches, outputs, strict=True)]
        functions["head"] = head
    if each:
        functions |= {"scout": scout} | {name: partial(scored, name) for name in names}
    return {**functions, "scored": partial(scored, *names)}


def peak_apart(kind: str, amount: str) -> float:
    """Return the peak of one kind on one text, in a separate process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", kind, "--text", amount]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(
    model: o.Model,
    calibration: o.Calibration,
    scorer: Annotated[list[str] | None, typer.Option(help="Repeatable; by default avss.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="ROWSxTOKENS; repeatable; by default 32x256.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows of a batch.")] = 8,
    rounds: Annotated[int, typer.Option(help="How often all is timed.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 2,
    dtype: o.Dtype = "float32",
    each: Annotated[bool, typer.Option(help="Time each scorer alone as well, and the search for sites.")] = False,
    clock: Clock = "wall",
    memory: Annotated[bool, typer.Option(help="Measure memory, which needs another run of each kind.")] = True,
    peak_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    names, amounts = scorer or ["avss"], text or ["32x256"]
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    for parameter in loaded.parameters():
        parameter.sum()  # weights are mapped from their file until they are read
    for amount in amounts[-1:] if peak_of else amounts:
        rows, tokens = map(int, amount.split("x"))
        drawn = load_calibration(calibration, tokenizer, samples=rows, max_length=tokens, batch_size=batch_size)
        work = kinds(layerimp.find_blocks(loaded), drawn, names, each=each)
        if peak_of is not None:
            print(peak(work[peak_of]))
            return
        peaks = {kind: peak_apart(kind, amount) for kind in work} if memory else {}
        times = timed(work, rounds, clock)
        machine = f"{threads} threads, {clock} time, {torch.backends.cpu.get_cpu_capability()}"
        print(f"{', '.join(names)} on {amount} tokens, {dtype}, {machine}")
        for kind, line in zip(times, shown(times, "bare"), strict=True):
            print(line + (f"; peak +{peaks[kind]:.0f} MiB over the loaded model" if peaks else ""))
        if "head" in times:
            medians = {kind: statistics.median(seconds) for kind, seconds in times.items()}
            print(f"(scored - head) / bare: {(medians['scored'] - medians['head']) / medians['bare']:.3f}")
        if peaks:
            print(f"memory: {peaks['scored'] - peaks['bare']:+.0f} MiB over a bare pass")


if __name__ == "__main__":
    typer.run(main)
