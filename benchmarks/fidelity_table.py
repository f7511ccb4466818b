"""What is a lot: the fidelity of pruned models, unhealed and healed, and of weights rounded to 8 bits.

    python benchmarks/fidelity_table.py --model starter --count 1 --count 3
    python benchmarks/fidelity_table.py --model SMOLLM2 --count 4 --count 7 --calibration FILE.jsonl
    python benchmarks/fidelity_table.py --model GEMMA --count 2 --count 4 --calibration FILE.jsonl
    python benchmarks/fidelity_table.py --model MINILM --count 1 --count 2 --calibration task:layerimp_sst2 \
        --data-dir DIR --max-length 64 --samples 512 --rows 512

Each call measures one model, and adds a JSON line to --results in place of an older one for the same model; the page
"How far from the intact model" shows them all. The pruned models are those of `layerimp run`, and all are compared by
`layerimp compare` on the text that these runs kept apart. The rounded weights are those of all linear layers but the
head: each row of a matrix is divided by its largest magnitude / 127, rounded and multiplied back, which is what
weight-only int8 computes with.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from finished import replace

import layerimp
from layerimp.cli.display import Screen
from layerimp.fidelity import Fidelity
from layerimp.report.tables.fidelity_figures import figures

RESULTS = Path(__file__).parent / "results" / "fidelity.jsonl"
ROUNDED = "int8 weights"


def rounded(model: Any) -> Any:
    """Round the weights of a model's linear layers to 8 bits per row, in place; the head stays as it is."""
    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not head:
                scale = module.weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
                module.weight.copy_((module.weight / scale).round() * scale)
    return model


def measured(recipe: dict[str, Any], scorer: str, counts: list[int], folder: Path) -> list[dict[str, Any]]:
    """Prune and heal a model, round its weights, and compare all with it.

    Args:
        recipe: The model, its dtype, its text, and the evaluator of fidelity.
        scorer: What chooses the blocks.
        counts: How many blocks to remove.
        folder: Where to keep the models.

    Returns:
        The fidelity of each: how many blocks are removed, by what, and what was measured.
    """
    models, rows = {}, []
    # The runs keep the text of fidelity apart; what they measure is measured once more by the comparison.
    silent = {"name": "fidelity", "options": recipe["evaluators"]["fidelity"]["options"] | {"prompts": 0}}
    for count in counts:
        output = folder / str(count)
        chosen = {"count": count, "scorers": [scorer], "baselines": [], "tasks": [], "healers": ["linear"]}
        chosen["evaluators"] = {"fidelity": silent}
        layerimp.run(layerimp.Recipe.model_validate(recipe | chosen | {"output": str(output)}), progress=Screen())
        for label in (scorer, f"{scorer}+linear"):
            models[f"{count}-{label}"] = str(output / "checkpoints" / label)
            rows.append((count, label, f"{count}-{label}"))
    intact, tokenizer = layerimp.load(recipe["model"], dtype=recipe["dtype"])
    rounded(intact).save_pretrained(folder / "int8")
    tokenizer.save_pretrained(folder / "int8")
    del intact
    models["int8"] = str(folder / "int8")
    compared = layerimp.compare(layerimp.Recipe.model_validate(recipe), models, progress=Screen())
    return [
        {"removed": count, "by": by, "fidelity": compared.fidelity[label].model_dump(mode="json")}
        for count, by, label in [*rows, (0, ROUNDED, "int8")]
    ]


def main(
    model: Annotated[str, typer.Option(help="Model directory, hub id or shipped name.")],
    count: Annotated[list[int], typer.Option(help="How many blocks to remove; repeatable.")],
    calibration: Annotated[str | None, typer.Option(help="Calibration text.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Directory of a task's files.")] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    scorer: Annotated[str, typer.Option(help="What chooses the blocks.")] = "block-influence",
    samples: Annotated[int, typer.Option(help="Rows of calibration text.")] = 64,
    rows: Annotated[int, typer.Option(help="Rows of text for fidelity.")] = 32,
    dtype: Annotated[str, typer.Option(help="The models' dtype.")] = "float32",
    results: Annotated[Path, typer.Option(help="The file of all results, as JSON lines.")] = RESULTS,
) -> None:
    """Measure one model, and add it to the results."""
    text: dict[str, Any] = {"samples": samples, "max_length": max_length}
    recipe = {
        "model": model,
        "dtype": dtype,
        "data_dir": data_dir,
        "calibration": text | ({"source": calibration} if calibration else {}),
        "evaluators": {"fidelity": {"name": "fidelity", "options": {"rows": rows}}},
    }
    with tempfile.TemporaryDirectory() as folder:
        fidelity = measured(recipe, scorer, count, Path(folder))
    line = {"model": Path(model).name, "blocks": len(layerimp.find_blocks(layerimp.load(model)[0])), "rows": fidelity}
    replace(results, line)
    for row in fidelity:
        print(f"{row['removed']}, {row['by']}: {figures(Fidelity.model_validate(row['fidelity']))}")


if __name__ == "__main__":
    typer.run(main)
