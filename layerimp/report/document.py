"""The document of a run or a grid: all results, as tables for notebooks, as rows for pandas, and as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from layerimp._paths import write_whole
from layerimp.component import versioned
from layerimp.errors import OutputError
from layerimp.evaluator import DataFile
from layerimp.report.results.comparison import Compared
from layerimp.report.results.models import PrunedModel
from layerimp.report.results.part import Number, Part, Versioned

if TYPE_CHECKING:
    from pandas import DataFrame


RESULTS = "results.json"
"""The file of the results in an output directory."""

PAGE = "report.html"
"""The page beside it."""


class Failure(Part):
    """A cell of a grid, or a component of a run, that failed."""

    what: str
    """The cell in words, or the label of the component."""
    error: str
    """The error."""


class Results(Compared, Versioned):
    """The results of a run or of a grid: what commands print with `--json`, and the content of `results.json`.

    A run is a grid with one model and one repeat.
    """

    schema_version: Literal["layerimp.results/2"] = versioned("layerimp.results/2")
    request: dict[str, Any]
    """What was asked for, with the fields of its recipe file: a recipe, or a grid."""
    cells: dict[str, int]
    """How many cells of a grid are `done`, `failed` and `open`; empty for a run, which has no cells."""
    failures: list[Failure]
    """What failed while the rest went on."""
    left_out: dict[str, str]
    """By label, why a scorer that was not requested by name was left out."""
    seconds: Number
    """The total time of all cells."""
    versions: list[str]
    """The libraries that computed the results; several entries if they changed."""
    notes: list[str]
    """Notes for a reader of the results, besides those on each model."""
    data_files: list[DataFile] = Field(default=[])
    """The local files whose rows were read in place of data sets on the network (`--data-dir`)."""
    output: str | None
    """The output directory; null without one, and in a page's download."""

    @property
    def complete(self) -> bool:
        """Whether all requested results are there."""
        return not (self.failures or self.cells.get("failed") or self.cells.get("open"))

    @property
    def all_notes(self) -> list[str]:
        """The notes, and those on each model behind its label if there are several models."""
        several = len(self.design.models) > 1
        prefix = {label: f"{label}: " if several else "" for label in self.models}
        return [
            *self.notes,
            *(prefix[label] + note for label, model in self.models.items() for note in model.all_notes),
        ]

    def __repr__(self) -> str:
        cells = (f"{count} cells {state}" for state, count in self.cells.items() if count)
        parts = (", ".join(self.models), ", ".join(self.design.contenders), ", ".join(cells))
        return f"Results({'; '.join(filter(None, parts))})"

    def _repr_html_(self) -> str:
        """Show the models side by side; over several amounts or repeats, what is retained and what may be removed."""
        from layerimp.report.tables import first

        return "\n".join(table.html() for table in first(self)) or f"<p>{escape(repr(self))}</p>"

    def to_pandas(self) -> DataFrame:
        """Return the results as a pandas DataFrame, with a row for each number of each model.

        The columns:

        - `model`, `pruner`, `amount` (a share or a number of blocks, or in words a size or a quality), `scorer`
          (`original` in the rows of the intact model) and `healer` (empty where nothing is healed): what the row is
          about; `blocks`, how many are removed, and `removed`, which, if all repeats remove the same;
        - `kind`: `quality`, with the `task` (`retained` for what is retained on average), the `metric` and its
          direction (`higher_is_better`); `size` and `cost`, with the `metric`; `removable`, how many blocks may be
          removed, or at least (`at_least`), without an interval; `score`, with the `block`;
          and `fidelity`, how far the model is from the intact one: with the `metric`, and of answers to a `task` the
          share that are others than the intact model's (`flips`), and how many of these went from `right to wrong` and
          from `wrong to right`;
        - `mean`, `low`, `high` and `n`: the mean over the repeats, for perplexities the geometric mean, with its 95 %
          interval; `documents`, their number; `at_floor`, whether the intact model is less than two standard errors
          better than one that knows nothing; `error_low` and `error_high`, the mean minus and plus one standard error
          (over the documents; of the cost of a single model over its measurements);
        - `original`, the same of the intact model; `retained`, what is retained of the task; and `best`, whether no
          other is better (see `Entry`);
        - `removed_blocks`, a share, and the lowest and the highest share of the parameters, since blocks may differ in
          size: `removed_parameters_low` and `removed_parameters_high`.
        """
        from layerimp.report.tables.data_frame import frame

        return frame(self)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write an indented JSON file, in place of an older one; raise OutputError if it cannot be written."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, in place of an older one.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def write_results(results: Results, directory: Path) -> None:
    """Write results into their output directory, which need not have its final name yet."""
    write_json(directory / RESULTS, movable(results).model_dump(mode="json"))


def read_results(directory: Path) -> Results:
    """Return the results in an output directory, with the paths that its checkpoints have now.

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
