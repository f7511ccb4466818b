"""The output directory of a command, and the files in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp._paths import expanded, real
from layerimp.checkpoint.record import read_record
from layerimp.checkpoint.staging import check_target, staged
from layerimp.errors import InputError, OutputError
from layerimp.recipe.plans import PlanFile
from layerimp.registry.assets import located
from layerimp.report.document import PAGE, RESULTS, write_json, write_results

if TYPE_CHECKING:
    from layerimp.recipe import Recipe
    from layerimp.report.document import Results

RECIPE = "recipe.json"
"""The recipe with everything settled: the file by which an output directory is recognised."""

SHRUNK = "shrink.json"
"""The document in the directory of a smaller model, by which that is recognised."""

PLANS = "plan.json"
"""The plans of the pruned models."""

_ENTRIES = frozenset({RECIPE, RESULTS, PLANS, PAGE, "checkpoints"})


def write_output(results: Results, recipe: Recipe, directory: Path) -> None:
    """Write the results of a run, the recipe that repeats it (or its plans do), and its plans, as JSON files."""
    write_json(directory / RECIPE, recipe.model_dump(mode="json", exclude={"overwrite"}))
    write_results(results, directory)
    if plans := results.model.plans:
        added, healers = results.design.added, results.design.healers
        baselines = [*added, *(f"{label}-{healer}" for label in added for healer in healers)]
        write_json(directory / PLANS, PlanFile.of(plans, baselines).model_dump(mode="json"))


def why_not_ours(directory: Path) -> str | None:
    """Tell why a directory is not an output of layerimp, or holds other files as well; None if it is an output."""
    if reason := _why_foreign(directory, _ENTRIES) or _why_not_by(directory / RECIPE, "recipe"):
        return reason
    for checkpoint in sorted((directory / "checkpoints").glob("*")):
        if reason := _why_not_checkpoint(checkpoint):
            return f"in checkpoints/{checkpoint.name}, {reason}"
    return None if len(list(directory.iterdir())) > 1 else "layerimp did not write it"


def why_not_shrunk(directory: Path) -> str | None:
    """Tell why a directory is not a smaller model that `layerimp shrink` wrote, or holds other files; None if it is."""
    return _why_not_by(directory / SHRUNK, "shrink") or _why_not_checkpoint(directory, SHRUNK, PLANS, PAGE)


def why_not_healed(directory: Path) -> str | None:
    """Tell why a directory is not a healed checkpoint, or holds other files as well; None if it is one."""
    return _why_not_checkpoint(directory, healed=True)


def _why_not_checkpoint(directory: Path, *beside: str, healed: bool = False) -> str | None:
    """Tell why a directory is no checkpoint of layerimp, or holds files that are neither its own nor beside them."""
    try:
        record = read_record(directory)
    except InputError as error:
        return str(error)
    if record is None or (healed and not record.healers):
        return f"it is no checkpoint that layerimp {'healed' if healed else 'wrote'}"
    return _why_foreign(directory, {*record.files, *beside}) if record.files else None


def _why_foreign(directory: Path, known: Collection[str]) -> str | None:
    """Tell which file in a directory is not among the known ones; None if all are."""
    foreign = min((entry.name for entry in directory.iterdir() if entry.name not in known), default=None)
    return foreign and f"it holds {foreign!r}, which layerimp did not write"


def _why_not_by(file: Path, schema: str) -> str | None:
    """Tell why a file is no document of layerimp with a schema; None if it is one."""
    try:
        version = str(json.loads(file.read_text(encoding="utf-8"))["schema_version"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"it holds no {file.name} of layerimp"
    return None if version.startswith(f"layerimp.{schema}/") else "layerimp did not write it"


@contextmanager
def output_directory(
    recipe: Recipe, why_not: Callable[[Path], str | None] = why_not_ours, others: Sequence[str] = ()
) -> Iterator[Path | None]:
    """Yield a directory to write into, which gets the output's name at the end; None if no output is asked for.

    Raises:
        OutputError: the output exists and must not be replaced, or cannot be written; see `check_output`.
    """
    if (target := _target(recipe, others)) is None:
        yield None
        return
    with staged(target, why_not=why_not if recipe.overwrite else None) as stage:
        yield stage


def check_output(
    recipe: Recipe, why_not: Callable[[Path], str | None] = why_not_ours, others: Sequence[str] = ()
) -> None:
    """Refuse an output directory that could not be created; nothing is created.

    Args:
        recipe: The recipe.
        why_not: Tells why an existing directory may not be replaced, if the recipe allows replacing; None if it may.
        others: Further models that are read, whose directories must not be replaced.

    Raises:
        OutputError: the output exists and must not be replaced.
    """
    if (target := _target(recipe, others)) is not None:
        check_target(target, why_not=why_not if recipe.overwrite else None)


def _target(recipe: Recipe, others: Sequence[str]) -> Path | None:
    """Return the output directory; None if no output is asked for.

    Raises:
        OutputError: the output is precious.
    """
    if recipe.output is None:
        return None
    target = expanded(recipe.output).absolute()
    for model in (recipe.model, *others):
        refuse_precious(target, model)
    return target


def refuse_precious(target: Path, model: str) -> None:
    """Refuse to write into a model's own directory, a parent of that, or a home directory.

    Raises:
        OutputError: the output is one of these directories, or lies in the model's directory.
    """
    source = expanded(located("models", model))
    resolved = real(target)
    if source.is_dir():
        own = real(source)
        if own == resolved or resolved in own.parents:
            raise OutputError(f"the output {target} is the model's own directory or holds it; name another")
        if own in resolved.parents:
            raise OutputError(f"the output {target} lies in the directory of the model {model}; name another")
    if resolved == real(Path.home()) or resolved in real(Path.home()).parents:
        raise OutputError(f"the output {target} is a home directory or holds one; name another")
