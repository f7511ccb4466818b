"""`layerimp shrink`: from a model to a smaller one that works, in one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerimp.cli import options as o
from layerimp.cli.requests import joined, permissions
from layerimp.cli.set_options import refuse_minutes_twice, setting, with_settings
from layerimp.cli.streams import after_writing
from layerimp.errors import OptionError

if TYPE_CHECKING:
    from layerimp.recipe import Recipe

_OWN: dict[str, Any] = {
    "output": o.option(o.File, "Directory for the smaller model; must not exist. Default: MODEL-small, here."),
    "minutes": o.option(
        float | None,
        "Minutes of training, 0 for none. Default: as many tokens as are worth it, for at most 30 minutes on a CPU and "
        "120 on a GPU.",
    ),
    "set_": o.option(
        o.Texts, "LABEL.OPTION=VALUE, for a part of the method, such as distill.tokens=1000000; repeatable.", "--set"
    ),
}


@o.taking(
    "model output target minutes heal_text ratio count keep blocks protect allow_overlap calibration tasks set_ "
    f"{o.TEXT} batch_size seed {o.TASKS} {o.MODEL} offload overwrite no_verify recipe dry_run json",
    argument="model",
    **_OWN,
)
def shrink(*, minutes: float | None, dry_run: bool, **given: Any) -> int:
    """Make a smaller model that works: choose what goes, heal and train the rest, measure, and write one checkpoint.

    Example: layerimp shrink MODEL --target parameters=0.75 --minutes 30 --output small
    """
    recipe, allowed = _recipe(minutes, given), permissions(**given)
    from layerimp.cli.display import Screen
    from layerimp.cli.dry_run import lines_of as lines_ahead
    from layerimp.pipeline.dry_run import dry_run_of
    from layerimp.pipeline.shrink import prepare_shrink, shrink_by
    from layerimp.report.tables.shrunk import lines_of

    with Screen(json=given["json"]) as screen:
        if dry_run:
            foreseen = dry_run_of(prepare_shrink(recipe, allowed, screen))
            screen.present(foreseen, lines_ahead(foreseen))
            return 0
        report = shrink_by(recipe, permissions=allowed, progress=screen).report
        with after_writing(report.output):
            screen.present(report, lines_of(report))
    return int(bool(report.failed))


def _recipe(minutes: float | None, given: dict[str, Any]) -> Recipe:
    """Return the recipe from the options, with training, and with everything that needs no model settled."""
    from layerimp.pipeline.shrink_recipe import completed, trains, with_output, with_training, without_limits
    from layerimp.recipe import read_recipe

    settings, file = given.pop("set_") or [], given.pop("recipe")
    refuse_minutes_twice(minutes, settings)
    in_file = read_recipe(file) if file else {}
    recipe = with_training(joined(in_file, given), minutes, named="healers" in in_file)
    if minutes:  # in place of what the file says
        recipe = without_limits(recipe)
    idle = [label for label, spec in recipe.healers.items() if minutes == 0 and trains(spec)]
    for text in settings:
        if setting(text, "distill.steps=100")[0] in idle:
            raise OptionError(f"--set {text} is for training, and --minutes 0 trains nothing: leave out one of them")
    return with_output(completed(with_settings(recipe, settings), minutes))
