"""What the scores of each method in `choices.py` cost, in bare passes of the backbone over the same rows.

    python benchmarks/scorer_costs.py --model DIR --calibration FILE.jsonl --results FILE

Each scorer has a pass of its own over a batch of eight rows, right after a bare one; the median of several counts. A
search scores several times, and costs more (`search_cost.py`). The line of a model takes the place of an older one.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import options as o
import torch
import typer
from choices import METHODS
from finished import replace

import layerimp
from layerimp.blocks import BlockStack, run
from layerimp.blocks.timing import seconds_of
from layerimp.calibration import load_calibration
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure

TIMINGS = 3


def passes(stack: BlockStack, batch: Any, name: str) -> float:
    """Return how long a scorer takes, in bare passes over the same batch."""

    def bare() -> None:
        with torch.inference_mode():
            run(stack.backbone, batch)

    def scored() -> None:
        measure(stack, [batch], {name: registry().create("scorer", name, {}, len(stack))})

    bare()
    device = stack.device
    return statistics.median(seconds_of(scored, device) / seconds_of(bare, device) for _ in range(TIMINGS))


def main(
    model: o.Model,
    calibration: o.Calibration,
    results: Annotated[Path, typer.Option(help="The file for the costs, a JSON line for each model.")],
    max_length: o.MaxLength = 256,
    dtype: o.Dtype = "float32",
) -> None:
    """Measure and keep."""
    loaded, tokenizer = layerimp.load(model, dtype=dtype)
    stack = layerimp.find_blocks(loaded)
    batch = next(iter(load_calibration(calibration, tokenizer, samples=8, max_length=max_length)))
    names = dict.fromkeys(name for parts in METHODS.values() for name in parts["scorers"])
    line = {"model": Path(model).name, "costs": {name: round(passes(stack, batch, name), 1) for name in names}}
    replace(results, line)
    print(line["costs"])


if __name__ == "__main__":
    typer.run(main)
