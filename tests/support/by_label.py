"""The results of a run by label, in which tests look up single numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.published import checked

from layerimp.report.document import Results
from layerimp.report.results.comparison import ModelResults


def by_label(text: str) -> dict[str, Any]:
    """The results of a run, from the document that a command printed or wrote, which is checked.

    Plain values: `scorers`, `baselines`, `parameters`, `bytes`, `metrics`, `footprint`, `retained`, `retained_worst`,
    `targets`, `order`, `best` and the fields of the model. A part that the command does not produce is missing.
    """
    document = checked(text)
    assert document["cells"] == {}
    (model,) = Results.model_validate(document).models.values()
    (plain,) = document["models"].values()
    removals = {removal.label: removal for removal in model.removals}
    models = {label: removal.models[0] for label, removal in removals.items()}
    sizes = {label: pruned.size for label, pruned in models.items() if pruned.size is not None}
    scorers = {label: _scorer(plain, model, label) for label in (*model.scored, *removals) if "+" not in label}
    baselines = {label: scorers.pop(label) for label in document["design"]["added"] if label in scorers}
    kept = {label: removal.retained for label, removal in removals.items() if removal.retained}
    measured = {label: _plain(pruned.metrics) for label, pruned in models.items() if pruned.metrics}
    results = {
        "num_blocks": model.num_blocks,
        "calibration": plain["calibration"],
        "parameters": {
            "original": model.size and model.size.parameters,
            "pruned": {label: size.parameters for label, size in sizes.items()},
        },
        "bytes": {
            "original": model.size and model.size.bytes,
            "pruned": {label: size.bytes for label, size in sizes.items()},
        },
        "scorers": scorers,
        "baselines": baselines,
        "left_out": document["left_out"],
        "failed": {failure["what"]: failure["error"] for failure in document["failures"]},
        "metrics": {"original": plain["metrics"], **measured} if plain["metrics"] else {},
        "footprint": {
            label: {name: cost.value for name, cost in costs.items()}
            for label, costs in {
                "original": model.footprint,
                **{k: pruned.footprint for k, pruned in models.items()},
            }.items()
            if costs
        },
        "retained": {
            label: {task: share and share.mean for task, share in retained.tasks.items()}
            for label, retained in kept.items()
        },
        "retained_worst": {label: retained.worst and retained.worst.mean for label, retained in kept.items()},
        "order": model.order,
        "best": {f"{row.task} {row.metric}": row.best for row in model.rows},
        "targets": {
            quantity: {
                **target.model_dump(),
                "reached": {
                    label: pruned.targets[quantity].model_dump()
                    for label, pruned in models.items()
                    if quantity in pruned.targets and "+" not in label
                },
            }
            for quantity, target in model.targets.items()
        },
        "search": plain["search"],
        "notes": model.all_notes,
        "output": document["output"],
    }
    return {name: value for name, value in results.items() if value not in ({}, [], None)} | {"scorers": scorers}


def results_in(directory: Path) -> dict[str, Any]:
    """The results of a run by label, from its output directory."""
    return by_label((directory / "results.json").read_text())


def _plain(metrics: Any) -> dict[str, Any]:
    return {
        task: {name: metric.model_dump(mode="json") for name, metric in named.items()}
        for task, named in metrics.items()
    }


def _scorer(plain: dict[str, Any], model: ModelResults, label: str) -> dict[str, Any]:
    """The scores of a scorer, what was removed by them, and the healed models."""
    scorer: dict[str, Any] = {}
    if label in model.scored:
        scored = plain["scored"][label]
        scorer |= {"scores": scored["scores"][0], "blocks": scored["blocks"]}
        scorer |= {name: scored[name] for name in ("columns", "notes", "spans")}
    for removal in plain["removals"]:
        (pruned,) = removal["models"]
        if removal["scorer"] == label and not removal["healer"]:
            scorer |= {"removed": pruned["plan"]["blocks"], "checkpoint": pruned["checkpoint"]}
        elif removal["scorer"] == label:
            healed = scorer.setdefault("healed", {})
            healed[removal["healer"]] = {**pruned["healing"], "checkpoint": pruned["checkpoint"]}
    return scorer
