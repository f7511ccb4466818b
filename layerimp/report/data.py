"""The output of a run, as data and as JSON files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.defaults import ORIGINAL
from layerimp.evaluator import Metric, retention
from layerimp.models.dtypes import stored_bytes
from layerimp.recipe import Recipe
from layerimp.report.comparison import Comparison

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.pruner import PrunePlan
    from layerimp.scorer import Importance

MARKER = "recipe.json"
ENTRIES = frozenset({MARKER, "scores.json", "plan.json", "metrics.json", "checkpoints"})
"""What an output directory can hold."""


@dataclass(frozen=True)
class Size:
    """What a model, or a part of one, amounts to; bytes are those of the weights as they are stored."""

    blocks: int
    parameters: int
    bytes: int

    @classmethod
    def of(cls, stack: BlockStack) -> Size:
        """The size of a whole model; tied weights count once."""
        parameters = list(stack.model.parameters())
        return cls(len(stack), sum(p.numel() for p in parameters), stored_bytes(stack.model))

    def __sub__(self, other: Size) -> Size:
        return Size(self.blocks - other.blocks, self.parameters - other.parameters, self.bytes - other.bytes)

    def share_of(self, whole: Size) -> dict[str, float]:
        """Each number as a share of the whole's."""
        return {name: value / asdict(whole)[name] for name, value in asdict(self).items()}


@dataclass
class Report:
    """What a run found. Parts that a command does not produce stay empty.

    Attributes:
        recipe: The run as it was asked for.
        num_blocks: The intact model's block count.
        loader: The stock `Auto` class that loads the checkpoints.
        calibration: What was drawn, with its fingerprint.
        sizes: By label; the intact model's under `original`.
        importance: By scorer label.
        plans: By scorer label.
        checkpoints: By scorer label.
        metrics: By label, those of kind `quality`; the intact model's under `original`.
        footprint: By label, those of kind `cost`.
        resolved: Recipe fields as the run settled them: absolute paths, and what defaults came to.
        baselines: The labels of those that were measured only to keep the scorers company.
        left_out: By label, why a scorer that nobody named takes no part.
        failed: By label, why a scorer or an evaluator that was asked for did not go on, while the others did.
        output: The directory that holds all this.
    """

    recipe: Recipe
    num_blocks: int
    loader: str
    calibration: Mapping[str, Any] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)
    importance: dict[str, Importance] = field(default_factory=dict)
    plans: dict[str, PrunePlan] = field(default_factory=dict)
    checkpoints: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    footprint: dict[str, list[Metric]] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    baselines: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    output: Path | None = None

    def retention(self, label: str) -> dict[tuple[str, str], float | None]:
        """By task and metric, how much of the intact model's value `label` keeps."""
        before = {(metric.task, metric.name): metric for metric in self.metrics.get(ORIGINAL, [])}
        after = {(metric.task, metric.name): metric for metric in self.metrics.get(label, [])}
        return {key: retention(before[key], after[key]) for key in before if key in after}

    def comparison(self) -> Comparison:
        """The pruned models side by side."""
        return Comparison.of(self.metrics)

    def removed(self, label: str) -> Size:
        """What the plan under `label` removed."""
        return self.sizes[ORIGINAL] - self.sizes[label]

    def to_dict(self) -> dict[str, Any]:
        """The report as one JSON document."""
        document: dict[str, Any] = {
            "schema_version": "layerimp.report/1",
            "model": self.recipe.model,
            "num_blocks": self.num_blocks,
        }
        if self.calibration:
            document["calibration"] = dict(self.calibration)
        if self.sizes:
            document |= {name: self._sizes(name) for name in ("parameters", "bytes")}
        if self.importance or self.plans:
            entries = {label: self._scorer(label) for label in dict.fromkeys([*self.importance, *self.plans])}
            document["scorers"] = {label: entry for label, entry in entries.items() if label not in self.baselines}
            if self.baselines:
                document["baselines"] = {label: entries[label] for label in self.baselines}
        if self.left_out:
            document["left_out"] = dict(self.left_out)
        if self.failed:
            document["failed"] = dict(self.failed)
        if self.metrics:
            document["metrics"] = {label: _by_task(metrics) for label, metrics in self.metrics.items()}
            document["retention"] = {label: self._retention(label) for label in self.metrics if label != ORIGINAL}
        if self.metrics.get(ORIGINAL) and len(self.metrics) > 1:
            document["comparison"] = self.comparison().to_dict()
        if self.footprint:
            document["footprint"] = {label: _costs(metrics) for label, metrics in self.footprint.items()}
        document["output"] = None if self.output is None else str(self.output)
        return document

    def _sizes(self, name: str) -> dict[str, Any]:
        pruned = {label: asdict(size)[name] for label, size in self.sizes.items() if label != ORIGINAL}
        return {"original": asdict(self.sizes[ORIGINAL])[name], "pruned": pruned}

    def _scorer(self, label: str) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        if importance := self.importance.get(label):
            entry |= {
                "scores": importance.scores,
                "columns": dict(importance.columns),
                "notes": list(importance.notes),
            }
            if importance.spans:
                entry["spans"] = {str(length): scores for length, scores in importance.spans.items()}
        if plan := self.plans.get(label):
            checkpoint = self.checkpoints.get(label)
            entry |= {"removed": plan.blocks, "checkpoint": None if checkpoint is None else str(checkpoint)}
        return entry

    def _retention(self, label: str) -> dict[str, dict[str, float | None]]:
        tasks: dict[str, dict[str, float | None]] = {}
        for (task, name), share in self.retention(label).items():
            tasks.setdefault(task, {})[name] = share
        return tasks

    def _plans(self) -> dict[str, dict[str, Any]]:
        """The plans, those of the baselines apart: who applies the plans of a run does not mean these."""
        plans = {label: plan.model_dump(mode="json") for label, plan in self.plans.items()}
        company = {label: plans.pop(label) for label in self.baselines}
        return {"plans": plans} | ({"baselines": company} if company else {})

    def placed(self) -> Report:
        """The report once its output directory has its name, with the paths of what lies there."""
        if self.recipe.output is not None:
            self.output = self.recipe.output.expanduser().absolute()
            self.checkpoints = {label: self.output / path for label, path in self.checkpoints.items()}
        return self

    def write(self, directory: Path) -> None:
        """Write the parts that there are as JSON files, each with a schema version."""
        document = self.to_dict()
        parts: dict[str, dict[str, Any]] = {
            "recipe": self.recipe.model_dump(mode="json", exclude={"overwrite"}) | dict(self.resolved),
            "scores": {
                "schema_version": "layerimp.scores/1",
                **{key: document[key] for key in ("model", "num_blocks", "calibration") if key in document},
                **{part: _scores(document[part]) for part in ("scorers", "baselines") if part in document},
            },
            "plan": {"schema_version": "layerimp.plans/1", **self._plans()},
            "metrics": {
                "schema_version": "layerimp.metrics/1",
                **{
                    key: document[key]
                    for key in ("parameters", "bytes", "metrics", "retention", "comparison", "footprint")
                    if key in document
                },
            },
        }
        present = {"recipe": True, "scores": self.importance, "plan": self.plans, "metrics": self.metrics or self.sizes}
        for name, part in parts.items():
            if present[name]:
                write_json(directory / f"{name}.json", part)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file that people can read."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def why_not_ours(directory: Path) -> str | None:
    """Why a directory is no output of layerimp, or not only that; None if it is."""
    names = {entry.name for entry in directory.iterdir()}
    if foreign := sorted(names - ENTRIES):
        return f"it holds {foreign[0]!r}, which layerimp did not write"
    try:
        recipe = json.loads((directory / MARKER).read_text(encoding="utf-8"))
        version = str(recipe["schema_version"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"it holds no {MARKER} of layerimp"
    ours = version.startswith("layerimp.recipe/") and len(names) > 1
    return None if ours else "layerimp did not write it"


def _scores(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries of scorers without what their plans said."""
    return {
        label: {key: value for key, value in entry.items() if key not in ("removed", "checkpoint")}
        for label, entry in entries.items()
    }


def _by_task(metrics: list[Metric]) -> dict[str, dict[str, dict[str, Any]]]:
    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in metrics:
        tasks.setdefault(metric.task, {})[metric.name] = {
            "value": _number(metric.value),
            "stderr": None if metric.stderr is None else _number(metric.stderr),
            "higher_is_better": metric.higher_is_better,
        }
    return tasks


def _costs(metrics: list[Metric]) -> dict[str, float | None]:
    """Costs by name, and their standard errors beside them."""
    values = {metric.name: _number(metric.value) for metric in metrics}
    errors = {f"{metric.name}_stderr": _number(metric.stderr) for metric in metrics if metric.stderr is not None}
    return values | errors


def _number(value: float) -> float | None:
    """A number that JSON has: an infinite perplexity becomes null."""
    return value if math.isfinite(value) else None
