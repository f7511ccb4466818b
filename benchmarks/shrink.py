"""What `layerimp shrink` makes of models in so many minutes of training, beside 8-bit weights and other small models.

    python benchmarks/shrink.py --model smollm2=DIR --calibration FILE --heal-text FILE --tasks zero-shot \
        --data-dir DATA --minutes 0 --minutes 5 --minutes 30 --int8 --beside optipfair=DIR --results FILE

A row is the smaller model of one --model (LABEL=MODEL) after so many minutes, by one draw of text (--seed); all have
the same options otherwise. With --int8 the weights of the intact model are rounded to 8 bits: the speed is that of
torch's maps in 8 bits on the CPU, which also round what they read, and the rest is measured on the rounded weights
alone. --beside (LABEL=DIR) measures small models of other tools in the same way, on the same documents and rows; they
are compared with the first --model.

Finished rows are kept in --results, a JSON line for each, so that the same command continues; an interrupted shrinking
goes on as well. `docs/tools/shrunk.py` makes tables of them.
"""

from __future__ import annotations

import copy
import time
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import options as o
import torch
import typer
from fidelity_table import rounded
from finished import Finished, Line
from shrunk_figures import of_fidelity, of_report
from torch import nn
from transformers import PreTrainedModel

import layerimp
from layerimp.cli.display import Screen
from layerimp.evaluation.comparing import Comparing, comparer_of
from layerimp.evaluation.speed import speeds
from layerimp.metric import by_key
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.run import Run
from layerimp.pipeline.shrink import prepare_shrink, shrink_by
from layerimp.pipeline.shrink_recipe import completed, with_training
from layerimp.recipe import Permissions, Recipe, validated
from layerimp.report.retained import counting, shares, summed_up

INT8 = "int8 weights"


def main(
    model: Annotated[list[str], typer.Option(help="LABEL=MODEL; repeatable.")],
    minutes: Annotated[list[float], typer.Option(help="How long to train; repeatable.")],
    results: o.Results = None,
    output: Annotated[Path | None, typer.Option(help="A folder for the smaller models.")] = None,
    calibration: Annotated[str | None, typer.Option(help="Text to choose by.")] = None,
    heal_text: Annotated[str | None, typer.Option(help="Text to train on.")] = None,
    tasks: Annotated[str | None, typer.Option(help="As in layerimp run.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="As in layerimp run.")] = None,
    limit: o.Limit = None,
    ratio: Annotated[float, typer.Option(help="Share of the blocks to remove.")] = 0.25,
    samples: o.Samples = 64,
    dtype: Annotated[str | None, typer.Option(help="What the models compute in.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A draw of the text; repeatable.")] = None,
    int8: Annotated[bool, typer.Option(help="Measure the intact model with weights of 8 bits too.")] = False,
    beside: Annotated[list[str] | None, typer.Option(help="LABEL=DIR of another small model; repeatable.")] = None,
) -> None:
    models = dict(each.split("=", 1) for each in model)
    fields: dict[str, Any] = {"ratio": ratio, "dtype": dtype, "data_dir": data_dir, **o.limits(limit)}
    fields["calibration"] = {"source": calibration, "samples": samples}
    fields |= {} if tasks is None else {"tasks": [task for task in tasks.split(",") if task]}
    texts = [Path(each).name for each in (calibration or "", heal_text or "")]
    finished = Finished(results, [texts, ratio, samples, dtype, tasks, limit, torch.get_num_threads()])

    def known(label: str, by: str, draw: int = 0) -> bool:
        return any((line["model"], line["by"], line["seed"]) == (label, by, draw) for line in finished.lines)

    for label, name in models.items():
        for draw, each in product(seed or [0], minutes):
            if not known(label, by := f"{each:g} minutes", draw):
                recipe = recipe_of(name, fields | {"seed": draw}, heal_text if each else None, each)
                place = None if output is None else output / f"{label}-{each:g}-{draw}"
                report = shrink_by(recipe.model_copy(update={"output": place, "overwrite": True})).report
                row = {"model": label, "by": by, "seed": draw, **of_report(report)}
                finished.add(row | {"report": report.model_dump(mode="json")})
                print(f"{label}, {by}: {report.verdict}", flush=True)
        if int8 and not known(label, INT8):
            finished.add({"model": label, "by": INT8, "seed": 0, **measured(recipe_of(name, fields, None, 0), INT8)})
    first, name = next(iter(models.items()))
    for label, directory in (each.split("=", 1) for each in beside or ()):
        if not known(first, label):
            finished.add(
                {"model": first, "by": label, "seed": 0, **measured(recipe_of(name, fields, None, 0), directory)}
            )


def recipe_of(model: str, fields: dict[str, Any], heal_text: str | None, minutes: float) -> Recipe:
    """Return the recipe of a shrinking, as the command would make it."""
    recipe = validated(Recipe, {"model": model, "heal_text": heal_text, **fields})
    return completed(with_training(recipe), minutes)


def measured(recipe: Recipe, which: str) -> Line:
    """Measure another small model beside the intact one: with weights of 8 bits, or the checkpoint in a directory.

    The documents, and the rows for fidelity, are those of `layerimp shrink` with the same recipe.
    """
    began = time.monotonic()
    run = Run.of(prepare_shrink(recipe, Permissions(), Screen()), None)
    intact = run.loaded.model
    small = rounded(copy.deepcopy(intact)) if which == INT8 else layerimp.load(which, dtype=recipe.dtype)[0]
    theirs = by_key(run.evaluation.of(run.evaluators, "quality"))
    ours = by_key(run.evaluation.beside(small).of(run.evaluators, "quality", Path(which).name))
    fidelity = None
    if (comparer := comparer_of(run.evaluators)) is not None and run.reserved is not None:
        comparing = Comparing(*comparer, intact, run.loaded.tokenizer, run.progress)
        fidelity = comparing.of(small, run.reserved, which)
    own = find_blocks(in_int8(intact) if which == INT8 else small, quantised=True)
    fast = speeds({"intact": run.loaded.stack, "small": own})
    share = shares(summed_up(counting(theirs.values()), [ours])).worst if theirs else None
    parameters = sum(value.numel() for value in intact.parameters())
    return {
        "blocks": 1 - len(own) / len(run.loaded.stack),
        "parameters": 0.0 if which == INT8 else 1 - sum(value.numel() for value in small.parameters()) / parameters,
        **{name: list(fast["small"][name].times(fast["intact"][name])) for name in fast["small"]},
        "retained": share and [share.mean, share.stderr],
        **of_fidelity(fidelity),
        "seconds": time.monotonic() - began,
    }


def in_int8(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy whose linear maps but the head have weights of 8 bits, a scale for each row, as `rounded` does.

    The maps are those of torch's dynamic quantisation, which takes float32.
    """
    whole, head = copy.deepcopy(model).float(), model.get_output_embeddings()
    maps = {
        name: torch.ao.quantization.per_channel_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    small: PreTrainedModel = torch.ao.quantization.quantize_dynamic(whole, maps)
    return small


if __name__ == "__main__":
    typer.run(main)
