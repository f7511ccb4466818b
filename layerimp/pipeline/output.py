"""The output directory of a command, and the checkpoints in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.checkpoint.record import Record
from layerimp.checkpoint.saving import write
from layerimp.checkpoint.staging import check_name, check_target, staged
from layerimp.errors import OutputError
from layerimp.pipeline.resolve import model_anywhere
from layerimp.registry.assets import located
from layerimp.report.data import why_not_ours
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
) -> None:
    """Write a pruned model as it is now, with a card and a record, under its label, and note that in the report."""
    relative = Path("checkpoints") / label
    report.checkpoints[label] = relative
    with progress.stage(f"save {relative}"):
        (stage / relative).mkdir(parents=True)
        write(
            model,
            tokenizer,
            stage / relative,
            verify=report.recipe.verify,
            card=model_card(report, label),
            record=Record(
                source=model_anywhere(report.recipe.model),
                num_blocks=report.num_blocks,
                removed=tuple(simplest(report.plan_of(label).blocks)),
                healers=(report.recipe.healers[report.healed[label].healer].name,) if label in report.healed else (),
            ),
            max_shard_size=report.recipe.max_shard_size,
        )


def write_page(report: Report, selection: Selection, directory: Path) -> None:
    """Write what a run found as a page, which names no folder of this machine."""
    from layerimp.report.html.format import tree_without_folders
    from layerimp.report.html.page import page, write
    from layerimp.report.run_findings import run_findings

    blind = [label for label, spec in selection.specs.items() if is_blind(spec.name)]
    found = run_findings(report, selection.specs, blind)
    write(page(found, command="run", data=tree_without_folders(report.to_dict())), directory)


@contextmanager
def output_directory(
    recipe: Recipe, why_not: Callable[[Path], str | None] = why_not_ours, others: Sequence[str] = ()
) -> Iterator[Path | None]:
    """The output directory in the making, or None where none is asked for; it appears under its name on leaving.

    Args:
        recipe: The recipe.
        why_not: Why a directory that exists may not be replaced, where the recipe allows that; None if it may.
        others: Further models that are read, and left alone.

    Raises:
        OutputError: it exists and must stay, or nothing can be written there.
    """
    if recipe.output is None:
        yield None
        return
    target = recipe.output.expanduser().absolute()
    check_name(target)
    for model in (recipe.model, *others):
        refuse_precious(target, model)
    with staged(target, why_not=why_not if recipe.overwrite else None) as stage:
        yield stage


def check_output(recipe: Recipe) -> None:
    """Refuse an output directory that could not be made; nothing is made.

    Raises:
        OutputError: it exists and must stay.
    """
    if recipe.output is not None:
        target = recipe.output.expanduser().absolute()
        check_name(target)
        refuse_precious(target, recipe.model)
        check_target(target, why_not=why_not_ours if recipe.overwrite else None)


def refuse_precious(target: Path, model: str) -> None:
    """Never write into a model's own directory, one of its parents, or a home.

    Raises:
        OutputError: the output would lie there.
    """
    source = Path(located("models", model)).expanduser()
    resolved = target.resolve()
    if source.is_dir():
        own = source.resolve()
        if own == resolved or resolved in own.parents:
            raise OutputError(f"the output {target} is the model's own directory or holds it; name another")
        if own in resolved.parents:
            raise OutputError(f"the output {target} lies in the directory of the model {model}; name another")
    if resolved == Path.home().resolve() or resolved in Path.home().resolve().parents:
        raise OutputError(f"the output {target} is a home directory or holds one; name another")
