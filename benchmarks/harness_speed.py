"""The time of the tasks of `zero-shot` beside `lm_eval --model hf`, on one model in memory and the same local rows.

    python benchmarks/harness_speed.py --model DIR --data-dir DATA --results FILE

Times are those of lm-eval's `evaluate` with either model class (see `harness_sides.py`), in CPU seconds of the process,
so that other work on the machine matters little. In the first round lm_eval runs at each batch size, and in later
rounds at its fastest, in turn with layerimp. A memory is the greatest resident memory of a run above that before it, at
equal batch size (Linux only).

Finished tasks are kept in --results, a JSON line for each, so that the same command continues.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from costs import peak
from finished import Finished
from harness_sides import Side, loaded, results

import layerimp

LIMITS = {
    "hellaswag": 200,
    "arc_easy": 24,
    "arc_challenge": 16,
    "winogrande": 32,
    "boolq": 12,
    "lambada_openai": 24,
    "blimp": 1,
}
"""How many documents are measured of each task; of BLiMP, of each of its 67 files."""
BLIMP_FILES = 67
FEW = 8
"""How many documents are enough for the memory, which depends on a batch."""


def seconds(side: Side, model: Any, tokenizer: Any, tasks: dict[str, Any], limit: int, batch_size: int) -> float:
    """Return the CPU time of one evaluation."""
    start = time.process_time()
    results(side, model, tokenizer, tasks, limit, batch_size)
    return time.process_time() - start


def main(
    model: Annotated[Path, typer.Option(help="A model directory.")],
    data_dir: Annotated[Path, typer.Option(help="The directory with the rows.")],
    results_file: Annotated[Path | None, typer.Option("--results", help="The file for finished tasks.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")] = None,
    hellaswag: Annotated[int, typer.Option(help="Documents of HellaSwag, the slowest task.")] = LIMITS["hellaswag"],
    rounds: Annotated[int, typer.Option(help="How often both sides are timed.")] = 2,
    batch_size: Annotated[list[int] | None, typer.Option(help="Batch sizes of lm_eval; repeatable.")] = None,
    own_batch_size: Annotated[int, typer.Option(help="The batch size of layerimp, and of both for the memory.")] = 8,
    dtype: Annotated[str, typer.Option(help="The dtype of both.")] = "float32",
    threads: Annotated[int, typer.Option(help="The threads of both.")] = 1,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    sizes = batch_size or [1, 8, 32]
    limits = LIMITS | {"hellaswag": hellaswag}
    done = Finished(results_file, [model.name, dtype, threads, rounds, sizes, own_batch_size, limits])
    known = {line["task"] for line in done.lines}
    ready = layerimp.load(model, dtype=dtype)
    for name in task or limits:
        if name in known:
            continue
        tasks, limit = loaded(data_dir, name), limits[name]
        results("layerimp", *ready, tasks, 1, own_batch_size)  # what only the first time takes
        memory = {
            side: peak(partial(results, side, *ready, tasks, min(limit, FEW), own_batch_size))
            for side in ("layerimp", "lm_eval")
        }
        first = {size: seconds("lm_eval", *ready, tasks, limit, size) for size in sizes}
        fastest = min(first, key=first.__getitem__)
        theirs, ours = [first[fastest]], [seconds("layerimp", *ready, tasks, limit, own_batch_size)]
        for _ in range(rounds - 1):
            ours.append(seconds("layerimp", *ready, tasks, limit, own_batch_size))
            theirs.append(seconds("lm_eval", *ready, tasks, limit, fastest))
        timed = {"by_batch_size": first, "fastest": fastest, "lm_eval": theirs, "layerimp": ours, "mib": memory}
        done.add({"model": model.name, "dtype": dtype, "task": name, "documents": limit} | timed)
    report(done.lines)


def report(lines: list[dict[str, Any]]) -> None:
    """Print each task."""
    for line in lines:
        name, count = line["task"], line["documents"] * (BLIMP_FILES if line["task"] == "blimp" else 1)
        middle = {side: statistics.median(line[side]) for side in ("lm_eval", "layerimp")}
        mib = line["mib"]
        print(
            f"{line['model']} {line['dtype']} {name}, {count} documents: lm_eval {middle['lm_eval']:.2f} s (batch size "
            f"{line['fastest']}), layerimp {middle['layerimp']:.2f} s, ratio "
            f"{middle['layerimp'] / middle['lm_eval']:.2f}; memory {mib['lm_eval']:.0f} and {mib['layerimp']:.0f} MiB"
        )


if __name__ == "__main__":
    typer.run(main)
