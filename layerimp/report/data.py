"""The report of a run, as data and as JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp._table import Table, Tabular
from layerimp.defaults import ORIGINAL
from layerimp.evaluator import Metric, retention
from layerimp.models.dtypes import stored_bytes
from layerimp.models.origin import model_name
from layerimp.recipe import Recipe
from layerimp.report import conversion, cuts, documents
from layerimp.report.healing import Healing
from layerimp.report.overview import overview
from layerimp.report.search import Search
from layerimp.report.search_documents import SearchResults
from layerimp.report.statistics.comparison import Comparison, small
from layerimp.report.statistics.retained import counting
from layerimp.sizes.targets import Reached

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import Calibration
    from layerimp.pruner import PrunePlan
    from layerimp.scorer import Importance

MARKER = "recipe.json"
PAGE = "report.html"
ENTRIES = frozenset({MARKER, "scores.json", "plan.json", "metrics.json", PAGE, "checkpoints"})
"""The files and directories that an output directory can hold."""


@dataclass(frozen=True)
class Size:
    """The size of a model, or of a part of one; bytes are those of the weights in the stored dtype."""

    blocks: int
    parameters: int
    bytes: int

    @classmethod
    def of(cls, stack: BlockStack) -> Size:
        """Return the size of a whole model; tied weights count once."""
        parameters = list(stack.model.parameters())
        return cls(len(stack), sum(p.numel() for p in parameters), stored_bytes(stack.model))

    def __sub__(self, other: Size) -> Size:
        return Size(self.blocks - other.blocks, self.parameters - other.parameters, self.bytes - other.bytes)

    def share_of(self, whole: Size) -> dict[str, float]:
        """Return each number as a share of the number for `whole`."""
        return {name: value / asdict(whole)[name] for name, value in asdict(self).items()}


@dataclass
class Report(Tabular):
    """The results of a run. Parts that a command does not produce stay empty.

    Attributes:
        recipe: The recipe as it was given.
        num_blocks: The number of blocks of the intact model.
        loader: The stock `Auto` class that loads the checkpoints.
        calibration: The text that was drawn, with its fingerprint; None if none was.
        sizes: The sizes of the models, by label; the intact model's under `original`.
        importance: The importance, by scorer label.
        plans: The plans, by scorer label.
        reached: By scorer label, the values that the plan reaches beside the targets, if targets were given.
        healed: What healers did, by label of the healed model, which is `SCORER+HEALER`.
        checkpoints: The checkpoints, by label.
        metrics: The metrics of kind `quality`, by label; the intact model's under `original`.
        footprint: The metrics of kind `cost`, by label.
        search: The result of a search for the most blocks that may be removed; None if there was none.
        resolved: Recipe fields as the run resolved them: absolute paths, and the values of defaults.
        baselines: The labels of the baselines, which were measured only for comparison.
        left_out: By label, why a scorer that was not requested by name was left out.
        failed: By label, why a scorer or an evaluator that was requested failed while the others went on.
        output: The output directory.
    """

    recipe: Recipe
    num_blocks: int
    loader: str
    calibration: Calibration | None = None
    sizes: dict[str, Size] = field(default_factory=dict)
    importance: dict[str, Importance] = field(default_factory=dict)
    plans: dict[str, PrunePlan] = field(default_factory=dict)
    reached: dict[str, list[Reached]] = field(default_factory=dict)
    healed: dict[str, Healing] = field(default_factory=dict)
    checkpoints: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    footprint: dict[str, list[Metric]] = field(default_factory=dict)
    search: Search | None = None
    resolved: dict[str, Any] = field(default_factory=dict)
    baselines: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    output: Path | None = None

    def __repr__(self) -> str:
        found = {label: cuts.ranges(plan.blocks) for label, plan in self.plans.items()}
        gone = "; ".join(f"{label} without {blocks or 'nothing'}" for label, blocks in found.items())
        tasks = dict.fromkeys(metric.task for metric in self.metrics.get(ORIGINAL, []))
        told = filter(None, (gone, f"measured on {', '.join(tasks)}" if tasks else ""))
        return f"Report({'; '.join((f'{self.recipe.model}, {self.num_blocks} blocks', *told))})"

    def _table(self) -> Table:
        return overview(self.to_dict())

    def retention(self, label: str) -> dict[tuple[str, str], float | None]:
        """Return by task and metric the plain ratio of the value of `label` to the intact model's value."""
        before = {(metric.task, metric.name): metric for metric in self.metrics.get(ORIGINAL, [])}
        after = {(metric.task, metric.name): metric for metric in self.metrics.get(label, [])}
        return {key: retention(before[key], after[key]) for key in before if key in after}

    def comparison(self) -> Comparison:
        """Compare the pruned models.

        After a search, models are ordered by the number of removable blocks, and none is called the best, since models
        with different numbers of blocks cannot be ranked by what they retain.
        """
        found = Comparison.of(self.metrics)
        if self.search is None:
            return found
        order = [label for label in self.search.order if label in found.labels]
        return replace(found, labels=order, best=dict.fromkeys(found.best, frozenset()), best_retained=frozenset())

    @property
    def notes(self) -> list[str]:
        """Notes for a reader of the metrics."""
        if len(self.metrics) > 1:
            return list(self.comparison().notes)
        return list(small(counting(self.metrics.get(ORIGINAL, [])).values()))

    @property
    def intact_name(self) -> str:
        """The name of the intact model in tables: `original` beside pruned models, its own name if it stands alone."""
        return ORIGINAL if self.sizes.keys() - {ORIGINAL} else model_name(self.recipe.model)

    def plan_of(self, label: str) -> PrunePlan:
        """Return the plan by which a model, healed or not, was pruned."""
        if self.search is not None and (found := self.search.removable[label].plan) is not None:
            return found
        return self.plans[self.healed[label].scorer if label in self.healed else label]

    def removed(self, label: str) -> Size:
        """Return the size of what the plan under `label` removed."""
        return self.sizes[ORIGINAL] - self.sizes[label]

    def standing(self, label: str) -> list[Reached]:
        """Return the values of the pruned model under `label` beside the targets; empty if there are no targets.

        Parameters and bytes are counted on the pruned model itself.
        """
        size, scorer = self.sizes.get(label), self.healed[label].scorer if label in self.healed else label
        real = {} if size is None else {"parameters": size.parameters, "bytes": size.bytes}
        return [replace(one, value=real.get(one.target.quantity, one.value)) for one in self.reached.get(scorer, ())]

    def to_dict(self) -> documents.Report:
        """Return the report as one JSON document."""
        return {
            "schema_version": "layerimp.report/2",
            **self._header(),
            **self._size_changes(),
            **self._targets(),
            **self._scorer_results(),
            **self._measurements(),
            **self._search(),
            "output": None if self.output is None else str(self.output),
        }

    def _header(self) -> documents.Header:
        header: documents.Header = {"model": self.recipe.model, "num_blocks": self.num_blocks}
        if self.calibration:
            header["calibration"] = self.calibration.copy()
        return header

    def _size_changes(self) -> documents.SizeChanges:
        if not self.sizes:
            return {}
        intact = self.sizes[ORIGINAL]
        pruned = {label: size for label, size in self.sizes.items() if label != ORIGINAL}
        return {
            "parameters": {
                "original": intact.parameters,
                "pruned": {label: size.parameters for label, size in pruned.items()},
            },
            "bytes": {"original": intact.bytes, "pruned": {label: size.bytes for label, size in pruned.items()}},
        }

    def _targets(self) -> documents.Targets:
        reached = {label: self.standing(label) for label in self.plans if label in self.reached}
        return {"targets": conversion.targets(reached)} if reached else {}

    def _scorer_results(self) -> documents.ScorerResults:
        results: documents.ScorerResults = {}
        entries = {
            label: conversion.scorer(
                self.importance.get(label),
                self.plans.get(label),
                self.checkpoints.get(label),
                {one.healer: (one, self.checkpoints.get(f)) for f, one in self.healed.items() if one.scorer == label},
            )
            for label in self.importance | self.plans
        }
        if entries:
            baselines = {label: entries.pop(label) for label in self.baselines}
            results["scorers"] = entries
            if baselines:
                results["baselines"] = baselines
        if self.left_out:
            results["left_out"] = dict(self.left_out)
        if self.failed:
            results["failed"] = dict(self.failed)
        return results

    def _search(self) -> SearchResults:
        return {} if self.search is None else {"search": conversion.search(self.search)}

    def _measurements(self) -> documents.Measurements:
        found: documents.Measurements = {}
        if self.metrics:
            found["metrics"] = {label: conversion.by_task(metrics) for label, metrics in self.metrics.items()}
            found["retention"] = {label: self._retention(label) for label in self.metrics if label != ORIGINAL}
        if self.metrics.get(ORIGINAL) and len(self.metrics) > 1:
            found |= conversion.compared(self.comparison())
        elif self.metrics.get(ORIGINAL):
            found["notes"] = self.notes
        if self.footprint:
            found["footprint"] = {label: conversion.costs(metrics) for label, metrics in self.footprint.items()}
        return found

    def _retention(self, label: str) -> dict[str, dict[str, float | None]]:
        tasks: dict[str, dict[str, float | None]] = {}
        for (task, name), share in self.retention(label).items():
            tasks.setdefault(task, {})[name] = share
        return tasks

    def _scores_file(self) -> documents.ScoresFile:
        scorers = {label: conversion.scores(importance) for label, importance in self.importance.items()}
        baselines = {label: scorers.pop(label) for label in self.baselines}
        file: documents.ScoresFile = {
            "schema_version": "layerimp.scores/1",
            **self._header(),
            "scorers": scorers,
            "baselines": baselines,
        }
        if not baselines:
            del file["baselines"]
        return file

    def write(self, directory: Path) -> None:
        """Write the parts of the report that are not empty as JSON files, each with a schema version."""
        recipe = self.recipe.model_dump(mode="json", exclude={"overwrite"}) | self.resolved
        write_json(directory / MARKER, recipe)
        if self.importance:
            write_json(directory / "scores.json", self._scores_file())
        if self.plans:
            write_json(directory / "plan.json", conversion.plan_file(self.plans, self.baselines))
        if self.metrics or self.sizes:
            metrics: documents.MetricsFile = {
                "schema_version": "layerimp.metrics/2",
                **self._size_changes(),
                **self._targets(),
                **self._measurements(),
                **self._search(),
            }
            write_json(directory / "metrics.json", metrics)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def why_not_ours(directory: Path) -> str | None:
    """Tell why a directory is not an output of layerimp, or holds other files as well; None if it is an output."""
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
