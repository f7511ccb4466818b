"""What is a lot: the fidelity of pruned models, unhealed and healed, and of weights rounded to 8 bits.

    python benchmarks/fidelity_table.py --model starter --remove 3
    python benchmarks/fidelity_table.py --model SMOLLM2 --remove 7 --calibration FILE.jsonl
    python benchmarks/fidelity_table.py --model GEMMA --remove 4 --calibration FILE.jsonl

Each call measures one model, adds a JSON line to --results in place of an older one for the same model, and prints the
table of all models there. The rounded weights are those of all linear layers: each row of a matrix is divided by its
largest magnitude / 127, rounded and multiplied back, which is what weight-only int8 computes with.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from layerimp_fidelity import FidelityEvaluator

import layerimp
from layerimp.calibration.sampling import CalibrationSet
from layerimp.evaluation.comparing import Comparing
from layerimp.fidelity import Fidelity
from layerimp.pipeline import commands
from layerimp.progress import SILENT
from layerimp.report.tables.distances import FIGURES

RESULTS = Path(__file__).parent / "results" / "fidelity.jsonl"


def rounded(model: Any) -> Any:
    """Round the weights of a model's linear layers to 8 bits per row, in place; the head stays as it is."""
    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not head:
                scale = module.weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
                module.weight.copy_((module.weight / scale).round() * scale)
    return model


def measured(recipe: dict[str, Any]) -> tuple[dict[str, Fidelity], int]:
    """Return the fidelity of a run's models and of the rounded weights on the same rows, by label; and the blocks."""
    text: list[CalibrationSet] = []
    original = commands.measure_fidelity

    def noting(run: Any, models: Any) -> Any:
        text.append(run.reserved)
        return original(run, models)

    commands.measure_fidelity = noting
    try:
        results = layerimp.run(layerimp.Recipe.model_validate(recipe))
    finally:
        commands.measure_fidelity = original
    found = {removal.label: removal.models[0].fidelity for removal in results.model.removals}
    intact, tokenizer = layerimp.load(recipe["model"])
    other = rounded(copy.deepcopy(intact))
    comparing = Comparing("fidelity", FidelityEvaluator(), intact, tokenizer, SILENT)
    found["int8 weights"] = comparing.of(other, text[0], "int8 weights")
    return {label: each for label, each in found.items() if each is not None}, len(layerimp.find_blocks(intact))


def table(lines: list[dict[str, Any]]) -> str:
    """Return the table of all measured models in Markdown."""
    rows = [["model", "removed", "by", *FIGURES], ["---"] * 3 + ["---:"] * len(FIGURES)]
    for line in lines:
        for label, document in line["fidelity"].items():
            fidelity, cells = Fidelity.model_validate(document), []
            for figure in FIGURES.values():
                value, intact = figure.of(fidelity), figure.intact(fidelity)
                beside = "" if intact is None else f" (intact {figure.show(intact)})"
                cells.append("" if value is None else figure.show(value) + beside)
            what = "nothing" if label == "int8 weights" else f"{line['removed']} of {line['blocks']}"
            rows.append([line["model"], what, label, *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(
    model: Annotated[str, typer.Option(help="Model directory, hub id or shipped name.")],
    remove: Annotated[int, typer.Option(help="How many blocks to remove.")],
    calibration: Annotated[str | None, typer.Option(help="Calibration text.")] = None,
    scorer: Annotated[str, typer.Option(help="What chooses the blocks.")] = "block-influence",
    samples: Annotated[int, typer.Option(help="Rows of calibration text.")] = 64,
    results: Annotated[Path, typer.Option(help="The file of all results, as JSON lines.")] = RESULTS,
) -> None:
    """Measure one model, and print the table of all."""
    text: dict[str, Any] = {"samples": samples} | ({"source": calibration} if calibration else {})
    recipe = {"model": model, "count": remove, "scorers": [scorer], "baselines": [], "tasks": [], "healers": ["linear"]}
    found, blocks = measured(recipe | {"calibration": text})
    line = {
        "model": Path(model).name,
        "blocks": blocks,
        "removed": remove,
        "fidelity": {label: each.model_dump(mode="json") for label, each in found.items()},
    }
    lines = [json.loads(each) for each in results.read_text().splitlines()] if results.exists() else []
    lines = [each for each in lines if each["model"] != line["model"]] + [line]
    results.write_text("".join(json.dumps(each) + "\n" for each in lines))
    print(table(lines), end="")


if __name__ == "__main__":
    typer.run(main)
