"""What scoring costs beside a bare forward pass of the backbone over the same tokens, in the same run.

    python benchmarks/overhead.py --model DIR --calibration FILE.jsonl

Time: bare and scored passes are interleaved after a warm-up; the ratio is that of the medians, and the range of the
ratios of neighbouring pairs is shown with it. Memory: each kind runs in a process of its own, and its peak is
counted above what the process held when model and text were loaded.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

import layerimp
from layerimp.calibration import load_calibration

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--model", required=True)
PARSER.add_argument("--calibration", required=True)
PARSER.add_argument("--scorer", action="append", help="default: avss")
PARSER.add_argument("--samples", type=int, default=32)
PARSER.add_argument("--max-length", type=int, default=256)
PARSER.add_argument("--batch-size", type=int, default=8)
PARSER.add_argument("--rounds", type=int, default=5)
PARSER.add_argument("--threads", type=int, default=2)
PARSER.add_argument("--dtype", default="float32")
PARSER.add_argument("--peak-of", choices=("bare", "scored"), help=argparse.SUPPRESS)


def kinds(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The bare and the scored pass, ready to run."""
    torch.set_num_threads(args.threads)
    model, tokenizer = layerimp.load(args.model, dtype=args.dtype)
    calibration = load_calibration(
        args.calibration, tokenizer, samples=args.samples, max_length=args.max_length, batch_size=args.batch_size
    )
    backbone = layerimp.find_blocks(model).backbone

    def bare() -> None:
        with torch.inference_mode():
            for batch in calibration:
                backbone(input_ids=batch["input_ids"].to(model.device), use_cache=False)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    def scored() -> None:
        layerimp.score(model, calibration, args.scorer)

    return {"bare": bare, "scored": scored}


def timed(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def resident() -> float:
    """The peak of this process's resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    args = PARSER.parse_args()
    args.scorer = args.scorer or ["avss"]
    if args.peak_of:
        run = kinds(args)[args.peak_of]
        before = resident()
        run()
        print(resident() - before)
        return
    peaks = {}
    for kind in ("bare", "scored"):
        command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", kind]
        peaks[kind] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    run = kinds(args)
    for function in run.values():
        function()
    times: dict[str, list[float]] = {"bare": [], "scored": []}
    for _ in range(args.rounds):
        for kind, function in run.items():
            times[kind].append(timed(function))
    pairs = [scored / bare for bare, scored in zip(times["bare"], times["scored"], strict=True)]
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    print(f"{', '.join(args.scorer)} on {args.samples}x{args.max_length} tokens, {args.dtype}, {args.threads} threads")
    for kind in times:
        seconds = ", ".join(f"{value:.2f}" for value in times[kind])
        print(f"{kind:>7}: median {medians[kind]:.2f} s ({seconds}); peak +{peaks[kind]:.0f} MiB over the loaded model")
    print(
        f"ratio {medians['scored'] / medians['bare']:.3f} of the medians; pairs {min(pairs):.3f} to {max(pairs):.3f}; "
        f"memory {peaks['scored'] - peaks['bare']:+.0f} MiB"
    )


if __name__ == "__main__":
    main()
