"""The report of a run: its results, its tables, and the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from layerimp._table import Table, Tabular
from layerimp.defaults import ORIGINAL
from layerimp.errors import OutputError
from layerimp.report import cuts
from layerimp.report.conversion import plan_file
from layerimp.report.document import Results
from layerimp.report.overview import overview
from layerimp.report.results.models import PrunedModel
from layerimp.report.run_data import RunData
from layerimp.report.run_results import run_results

MARKER = "recipe.json"
RESULTS = "results.json"
PAGE = "report.html"
ENTRIES = frozenset({MARKER, RESULTS, "plan.json", PAGE, "checkpoints"})
"""The files and directories that an output directory can hold."""


@dataclass
class Report(RunData, Tabular):
    """The report of a run; see `RunData` for its parts."""

    def __repr__(self) -> str:
        removed = {label: cuts.ranges(plan.blocks) for label, plan in self.plans.items()}
        plans = "; ".join(f"{label} without {blocks or 'nothing'}" for label, blocks in removed.items())
        tasks = dict.fromkeys(metric.task for metric in self.metrics.get(ORIGINAL, []))
        parts = filter(None, (plans, f"measured on {', '.join(tasks)}" if tasks else ""))
        return f"Report({'; '.join((f'{self.recipe.model}, {self.num_blocks} blocks', *parts))})"

    def _table(self) -> Table:
        return overview(self.results())

    def results(self) -> Results:
        """Return the results, with the comparison of all models."""
        return run_results(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as one JSON document."""
        return self.results().model_dump(mode="json")

    def write(self, directory: Path) -> Results:
        """Write the recipe with the values that the run resolved, the results, and the plans, as JSON files.

        Returns:
            The results.
        """
        recipe, results = self.recipe.model_dump(mode="json", exclude={"overwrite"}) | self.resolved, self.results()
        write_json(directory / MARKER, recipe)
        write_json(directory / RESULTS, movable(results).model_dump(mode="json"))
        if self.plans:
            write_json(directory / "plan.json", plan_file(self.plans, self.baselines))
        return results


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_results(directory: Path) -> Results:
    """Return the results in the output directory of a run, with the paths that its checkpoints have now.

    Raises:
        OutputError: the file cannot be read, or is of another version of layerimp.
    """
    path = directory / RESULTS
    try:
        results = Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError:
        raise OutputError(f"{path} holds no results of this version of layerimp; run the recipe again") from None
    place = directory.absolute()
    return _moved(results, str(place), lambda path: str(place / path))


def movable(results: Results) -> Results:
    """Return the results without the place of the output directory: checkpoints by their paths in it."""
    return _moved(results, None, lambda path: str(Path(path).relative_to(results.output or "")))


def _moved(results: Results, output: str | None, path_of: Callable[[str], str]) -> Results:
    """Return the results with other paths, of the output directory and of the checkpoints in it."""

    def moved(model: PrunedModel) -> PrunedModel:
        path = None if model.checkpoint is None else path_of(model.checkpoint)
        return model.model_copy(update={"checkpoint": path})

    models = {}
    for label, model in results.models.items():
        removals = [each.model_copy(update={"models": list(map(moved, each.models))}) for each in model.removals]
        models[label] = model.model_copy(update={"removals": removals})
    return results.model_copy(update={"models": models, "output": output})


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
