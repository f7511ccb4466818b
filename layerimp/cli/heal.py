"""`layerimp heal`: repairing a pruned checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerimp.cli import options as o
from layerimp.cli.requests import permissions, recipe_from
from layerimp.cli.set_options import refuse_minutes_twice, setting
from layerimp.cli.streams import after_writing
from layerimp.defaults import FIDELITY, HEALER
from layerimp.errors import OptionError
from layerimp.recipe import ComponentSpec

if TYPE_CHECKING:
    from layerimp.report.results.healing import HealingReport

_OWN: dict[str, Any] = {
    "model": o.option(o.Text, "Pruned model: a directory."),
    "teacher": o.option(
        o.Text,
        "The intact model. Default: the one named in the checkpoint's layerimp.json.",
    ),
    "healer": o.option(o.Text, f"Healer. Default: {HEALER}."),
    "set_": o.option(o.Texts, f"HEALER.OPTION=VALUE, or {FIDELITY}.OPTION=VALUE; repeatable.", "--set"),
    "removed": o.option(o.Text, "The removed blocks, such as 12,17. Default: those in the checkpoint's layerimp.json."),
    "output": o.option(o.Text, "Directory for the healed checkpoint; must not exist."),
}


@o.taking(
    f"model teacher healer calibration output removed minutes heal_text set_ {o.TEXT} batch_size seed task_path "
    f"data_dir allow_task_code {o.MODEL} overwrite no_verify dry_run json",
    argument="model",
    **_OWN,
)
def heal(
    *,
    teacher: str | None,
    healer: str | None,
    set_: list[str] | None,
    removed: str | None,
    minutes: float | None,
    dry_run: bool,
    json: bool,
    **given: Any,
) -> int:
    """Repair a pruned checkpoint, so that it comes closer to the intact model.

    Example: layerimp heal --model DIR --calibration FILE --output OUT
    """
    options, given["set_"] = _settings(healer or HEALER, set_ or [])
    refuse_minutes_twice(minutes, set_ or [])
    spec = _limited(ComponentSpec(name=healer or HEALER, options=options), minutes)
    if given["model"] is None:
        raise OptionError("heal repairs a pruned checkpoint: name it with --model")
    if given["output"] is None:
        raise OptionError("heal writes a checkpoint: name a directory with --output")
    recipe, allowed = recipe_from(**given), permissions(**given)
    from layerimp.cli.display import Screen
    from layerimp.cli.dry_run import lines_of
    from layerimp.indices import read_blocks
    from layerimp.pipeline.dry_run import healing_dry_run_of
    from layerimp.pipeline.heal_checkpoint import heal_checkpoint, prepare_healing

    blocks = None if removed is None else read_blocks(removed, what="--removed")
    with Screen(json=json) as screen:
        prepared = prepare_healing(recipe, spec, allowed, screen, teacher, blocks)
        if dry_run:
            foreseen = healing_dry_run_of(prepared)
            screen.present(foreseen, lines_of(foreseen))
            return 0
        report = heal_checkpoint(prepared)
        with after_writing(recipe.output):
            screen.present(report, _lines(report))
    return 0


def _settings(healer: str, texts: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the healer's options from all `--set`, and the texts of those that are of fidelity."""
    options, others = {}, []
    for text in texts:
        label, option, value = setting(text, "linear.ridges=[0.1]")
        if label == healer:
            options[option] = value
        elif label == FIDELITY:
            others.append(text)
        else:
            raise OptionError(f"--set {text}: there are only {healer!r} and {FIDELITY!r} here")
    return options, others


def _limited(healer: ComponentSpec, minutes: float | None) -> ComponentSpec:
    """Return a healer that trains for so many minutes, if they are given."""
    if minutes is None:
        return healer
    from layerimp.pipeline.shrink_recipe import with_minutes

    limited = with_minutes({healer.name: healer}, minutes)
    if not limited:
        raise OptionError("--minutes 0 trains nothing, and heal would write the checkpoint as it is")
    return limited[healer.name]


def _lines(report: HealingReport) -> list[str]:
    """Return the lines that say what was done."""
    from layerimp.report.tables.fidelity_figures import figures, texts_of
    from layerimp.report.words import gap_line, recovery

    text = report.calibration
    lines = [f"{report.healer}: {text.tokens:,} tokens of {text.source}"]
    lines += [f"  {gap_line(gap)}" for gap in report.gaps]
    lines.append(recovery(report.loss, report.accuracy, report.recovered))
    lines += [f"{label}: {figures(fidelity)}" for label, fidelity in report.fidelity.items()]
    collapses = (each.generation and each.generation.collapse for each in report.fidelity.values())
    lines += [f"note: {label}: {each}" for label, each in zip(report.fidelity, collapses, strict=True) if each]
    for each in texts_of(report.fidelity):
        lines += ["", *each.lines]
    return [*lines, *([""] if report.fidelity else []), f"checkpoint: {report.output}"]
