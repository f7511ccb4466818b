"""The output directory of a command, and the checkpoints in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp._paths import expanded, real
from layerimp.checkpoint.record import Record
from layerimp.checkpoint.saving import write
from layerimp.checkpoint.staging import check_name, check_target, staged
from layerimp.errors import OutputError
from layerimp.models.origin import CARD, origin_of
from layerimp.pipeline.resolve import model_anywhere
from layerimp.registry.assets import located
from layerimp.report.data import why_not_ours
from layerimp.report.folders import tree_without_folders
from layerimp.report.model_card import model_card
from layerimp.scoring.selection import is_blind
from layerimp.steps import simplest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.progress import Progress
    from layerimp.recipe import Recipe
    from layerimp.report.data import Report
    from layerimp.scoring.selection import Selection


def write_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    report: Report,
    label: str,
    stage: Path,
    progress: Progress,
    *,
    command: str = "run",
) -> None:
    """Write a pruned model in its current state under its label, with a card, a record and its source's licence.

    The report notes the path; the card names the command that made the checkpoint.
    """
    directory = begin_checkpoint(report, label, stage)
    with progress.stage(f"save {report.checkpoints[label]}"):
        write(
            model,
            tokenizer,
            directory,
            verify=report.recipe.verify,
            card=_card(report, label, directory, command),
            record=_record(report, label),
            max_shard_size=report.recipe.max_shard_size,
        )


def begin_checkpoint(report: Report, label: str, stage: Path) -> Path:
    """Make the directory of a checkpoint, and note it in the report."""
    report.checkpoints[label] = relative = Path("checkpoints") / label
    (stage / relative).mkdir(parents=True)
    return stage / relative


def describe_checkpoint(report: Report, label: str, directory: Path, command: str) -> None:
    """Put the card, the record and the source's licence of a checkpoint that a command made beside its weights."""
    (directory / CARD).write_text(_card(report, label, directory, command), encoding="utf-8")
    _record(report, label).write(directory)


def _card(report: Report, label: str, directory: Path, command: str) -> str:
    """Return the card of a checkpoint, and copy the file of its source's licence, if there is one, beside it."""
    origin = origin_of(report.recipe.model)
    origin.copy_license(directory)
    return model_card(report, label, origin, command=command)


def _record(report: Report, label: str) -> Record:
    """What a checkpoint was made from."""
    return Record(
        source=model_anywhere(report.recipe.model),
        num_blocks=report.num_blocks,
        removed=tuple(simplest(report.plan_of(label).blocks)),
        healers=(report.recipe.healers[report.healed[label].healer].name,) if label in report.healed else (),
    )


def write_page(report: Report, selection: Selection, directory: Path) -> None:
    """Write the results of a run as a page that does not show paths of this machine."""
    from layerimp.report.html.page import page, write
    from layerimp.report.run_findings import run_findings

    blind = [label for label, spec in selection.specs.items() if is_blind(spec.name)]
    found = run_findings(report, selection.specs, blind)
    write(page(found, command="run", data=tree_without_folders(report.to_dict())), directory)


@contextmanager
def output_directory(
    recipe: Recipe, why_not: Callable[[Path], str | None] = why_not_ours, others: Sequence[str] = ()
) -> Iterator[Path | None]:
    """Yield a directory to write into, which gets the output's name at the end; None if no output is asked for.

    Args:
        recipe: The recipe.
        why_not: Tells why an existing directory may not be replaced, if the recipe allows replacing; None if it may.
        others: Further models that are read, whose directories must not be replaced.

    Raises:
        OutputError: the output exists and must not be replaced, or cannot be written.
    """
    if recipe.output is None:
        yield None
        return
    target = expanded(recipe.output).absolute()
    check_name(target)
    for model in (recipe.model, *others):
        refuse_precious(target, model)
    with staged(target, why_not=why_not if recipe.overwrite else None) as stage:
        yield stage


def check_output(recipe: Recipe) -> None:
    """Refuse an output directory that could not be created; nothing is created.

    Raises:
        OutputError: the output exists and must not be replaced.
    """
    if recipe.output is not None:
        target = expanded(recipe.output).absolute()
        check_name(target)
        refuse_precious(target, recipe.model)
        check_target(target, why_not=why_not_ours if recipe.overwrite else None)


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
