"""Measures what the page "Which metric" shows of one model, part by part, and keeps the figures as JSON.

    python benchmarks/which_metric.py starter --output DIR
    python benchmarks/which_metric.py smollm2-135m --model DIR --calibration C4.jsonl --heal-text MORE.jsonl \
        --data-dir DATA --output DIR

The name is that of a recipe in `benchmarks/grids`, which lists the scorers, amounts, tasks and text. The parts are this
grid, unhealed and healed by `linear`, and variations of it: more draws of `random`, other pruners, seams for the best
four scorers, and training for the best two, `avss` and `random`. What is best is what retains most at the largest
amount, healed.

Finished cells are kept in --output, so that the same command continues. Each finished part is written to
`benchmarks/results/which_metric`, with a hash of what was asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from layerimp_harness.lm_eval_names import load_yaml

import layerimp
from layerimp.cli.display import Screen
from layerimp.cli.grid_progress import watching
from layerimp.defaults import RANDOM
from layerimp.recipe.reading import read_recipe, validated
from layerimp.registry.catalog import registry
from layerimp.report.document import Results
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.measures import Difference
from layerimp.report.results.rows import Entry, Row

Values = dict[str, Any]
PARTS = ("unhealed", "healed", "chance", "window", "greedy", "seams", "trained")
HERE = Path(__file__).parent
GRIDS, RESULTS = HERE / "grids", HERE / "results" / "which_metric"
HEALER, BLIND = "linear", {RANDOM, "depth"}
LEVEL = 0.95
"""The share of the quality that is to be retained, for the number of blocks that may be removed."""
CHANCES = 20
"""How many random choices show the spread of chance."""
DIGITS = 4


@dataclass(frozen=True)
class Extent:
    """What is done with a model besides its grid.

    Attributes:
        training: The options of `distill`.
        heal_text: The text that the training reads; None if it is named on the command line.
        greedy: The options of the greedy search.
        amounts: The amounts of all parts but the first; empty for those of the grid.
    """

    training: Values
    heal_text: str | None = None
    greedy: Values = field(default_factory=dict)
    amounts: Values = field(default_factory=dict)


QUARTER = {"counts": [], "ratios": [0.25]}
EXTENTS = {
    "starter": Extent({"minutes": 3, "learns": "all"}, "starter"),
    "minilm-sst2": Extent({"minutes": 5, "learns": "all", "rate": 1e-4, "rows": 16}, "task:layerimp_sst2"),
    "smollm2-135m": Extent({"minutes": 15, "learns": "all"}, greedy={"rows": 2}, amounts=QUARTER),
    "gemma-3-270m": Extent({"minutes": 20, "loss": "hidden"}, greedy={"rows": 2}, amounts=QUARTER),
}


def parts(name: str, known: Mapping[str, Values]) -> dict[str, Values]:
    """Return a model's grids by part; those that need the best scorers only if the healed part is known."""
    grid, extent = read_recipe(GRIDS / f"{name}.yaml"), EXTENTS[name]

    def only(labels: Sequence[str]) -> Values:
        return {label: grid["scorers"].get(label) for label in labels}

    healed = grid | extent.amounts | {"healers": [HEALER]}
    found = {
        "unhealed": grid,
        "healed": healed,
        "chance": grid | extent.amounts | {"scorers": [RANDOM], "baselines": {}, "repeats": CHANCES},
        "window": healed | {"scorers": only(["angular"]), "pruners": ["window"], "baselines": {}},
        "greedy": healed
        | {"scorers": only(["perplexity"]), "pruners": {"greedy": {"options": extent.greedy}}, "baselines": {}},
    }
    if "healed" in known:
        order = by_retained(known["healed"])
        trained = healed | {"counts": [], "ratios": [max(grid["ratios"])], "repeats": 1, "baselines": [RANDOM]}
        training = {"distill": {"options": {"first": HEALER} | extent.training}}
        best = list(dict.fromkeys([*order[:2], "avss"]))
        found |= {
            "seams": healed | {"scorers": only(seams_among(grid, order)[:4]), "cuts": "all", "baselines": {}},
            "trained": trained | {"scorers": only(best), "healers": training, "heal_text": extent.heal_text},
        }
    return found


def by_retained(healed: Values) -> list[str]:
    """Return the scorers that look at the model, from the one that retains most at the largest amount, healed."""
    row = max(healed["rows"], key=lambda one: one["removed"])
    means = {
        label.removesuffix(f"+{HEALER}"): sum(entry["values"]) / len(entry["values"])
        for label, entry in row["entries"].items()
        if label.endswith(f"+{HEALER}")
    }
    return sorted(means.keys() - BLIND, key=lambda label: (-means[label], label))


def seams_among(grid: Values, labels: Sequence[str]) -> list[str]:
    """Return the scorers that can score seams."""

    def can(label: str) -> bool:
        spec = grid["scorers"].get(label) or {}
        scorer = registry().create("scorer", spec.get("name", label), spec.get("options", {}), 1)
        return bool(scorer.refusal("seam") is None)

    return [label for label in labels if can(label)]


def asked(values: Values) -> str:
    """Return a hash of a grid and its own tasks as they are committed, without what differs between machines."""
    own = {task: _content(Path(task)) for task in values.get("tasks", ()) if task.endswith(".yaml")}
    return hashlib.blake2b(json.dumps(values | own, sort_keys=True).encode(), digest_size=8).hexdigest()


def _content(task: Path) -> list[Any]:
    """Return what a task file and the files that it includes say, and the documents that are kept beside the file."""
    config = load_yaml(HERE.parent / task, resolve_func=False)
    beside = (HERE.parent / task.parent / file for file in config["dataset_kwargs"]["data_files"].values())
    return [config, [file.read_text(encoding="utf-8") for file in beside if file.exists()]]


def told(found: Results) -> Values:
    """Return the figures of a part as plain data."""
    (model,) = found.models.values()
    (pruner,) = found.design.pruners
    labels = found.design.contenders
    return {
        "num_blocks": model.num_blocks,
        "documents": model.documents,
        "intact": {
            f"{row.task} {row.metric}": round(row.original.value, DIGITS)
            for row in model.rows
            if row.original is not None
        },
        "cost": {label: one.cost and round(one.cost, 1) for label, one in model.scored.items()},
        "removable": {
            label: {"counts": list(level.counts), "at_least": level.at_least}
            for label in labels
            if (one := model.removable.get((pruner, label))) and (level := one.levels[LEVEL])
        },
        "rows": [_row(model, row) for row in model.headlines],
        "minutes": round(found.seconds / 60, 1),
        "versions": list(found.versions),
    }


def _row(model: ModelResults, row: Row) -> Values:
    """Return what all contenders retain without a number of blocks."""
    return {
        "removed": round(row.removed_blocks * model.num_blocks),
        "share": row.amount if isinstance(row.amount, float) else None,
        "parameters": [round(share, DIGITS) for share in row.removed_parameters],
        "baselines": dict(row.baselines),
        "entries": {label: _entry(model, row, entry) for label, entry in row.entries.items()},
    }


def _entry(model: ModelResults, row: Row, entry: Entry) -> Values:
    """Return what the models of one contender retain, on the whole and by task, and what was removed."""
    place = row.pruner, row.amount
    removal, stability = model.removed[*place, entry.label], model.removed[*place, entry.scorer].stability
    known, retained = removal.models, removal.retained
    assert retained is not None
    return {
        "values": [round(value, DIGITS) for value in entry.values],
        "error": entry.ends and round((entry.ends[1] - entry.ends[0]) / 2, DIGITS),
        "tasks": {task: None if found is None else round(found.mean, DIGITS) for task, found in retained.tasks.items()},
        "likelihood": _by_draw(model, row, "likelihood", entry.label),
        "accuracy": _by_draw(model, row, "accuracy", entry.label),
        "to_random": _difference(entry.to_random),
        "to_baseline": _difference(entry.to_baseline),
        "to_unhealed": _difference(entry.to_unhealed),
        "stable": stability and round(stability.same, 2),
        "removed": [list(pruned.blocks) for pruned in known],
    }


def _by_draw(model: ModelResults, row: Row, kind: str, label: str) -> list[float] | None:
    """Return the mean over one kind of tasks for each draw; None if there are no such tasks."""
    place = row.pruner, row.amount, row.counts, row.task
    kinds = [
        one for one in model.rows if (one.pruner, one.amount, one.counts, one.task) == place and one.metric == kind
    ]
    return [round(value, DIGITS) for value in kinds[0].entries[label].values] if kinds else None


def _difference(found: Difference | None) -> list[Any] | None:
    """Return a difference, and its p-value with Holm's correction."""
    return None if found is None else [round(found.mean, DIGITS), found.p and round(found.p, DIGITS)]


def results(name: str) -> dict[str, Values]:
    """Return the kept figures of a model, by part."""
    file = RESULTS / f"{name}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {line.pop("part"): line for line in map(json.loads, lines)}


def keep(name: str, part: str, figures: Values) -> None:
    """Put the figures of a part in place of older ones."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"part": each, **one}) + "\n" for each, one in (results(name) | {part: figures}).items()]
    (RESULTS / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main(
    name: Annotated[str, typer.Argument(help="The name of a recipe in benchmarks/grids.")],
    output: Annotated[Path, typer.Option(help="The directory of the finished cells.")],
    model: Annotated[str | None, typer.Option(help="Where the model is, if not where the recipe says.")] = None,
    calibration: Annotated[str | None, typer.Option(help="The text to score and heal on.")] = None,
    heal_text: Annotated[str | None, typer.Option(help="The text to train on.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the tasks' files are.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="A part to measure; repeatable. Default: all.")] = None,
    workers: Annotated[int, typer.Option(help="Worker processes; 0: compute in this process.")] = 0,
) -> None:
    if name not in EXTENTS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(EXTENTS)}", param_hint="NAME")
    for one in part or PARTS:
        values = parts(name, results(name)).get(one)
        if values is None:
            why = "needs the part healed first" if one in PARTS else f"is not one of {', '.join(PARTS)}"
            raise typer.BadParameter(f"{one!r} {why}", param_hint="--part")
        grid = values | {"data_dir": data_dir}
        if model is not None:
            ((label, spec),) = layerimp.Grid.model_validate({"models": values["models"]}).models.items()
            grid["models"] = {label: spec.model_dump() | {"model": model}}
        if calibration is not None:
            grid["calibration"] = values["calibration"] | {"source": calibration}
        if one == "trained" and heal_text is not None:
            grid["heal_text"] = heal_text
        with watching(Screen()) as watcher:
            found = layerimp.run_grid(validated(layerimp.Grid, grid), output, workers=workers, watcher=watcher)
        if not found.complete:
            raise SystemExit(f"{one} is not complete: {dict(found.cells)}, {found.failures}")
        keep(name, one, {"asked": asked(values), **told(found)})
        print(f"{name}, {one}: {found.seconds / 60:.0f} minutes of cells", flush=True)


if __name__ == "__main__":
    typer.run(main)
