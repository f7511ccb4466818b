"""`layerimp run`, `score`, `prune` and `evaluate`: the commands that follow a recipe for one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.cli import options as o
from layerimp.cli.requests import permissions, recipe_from
from layerimp.cli.set_options import refuse_minutes_twice
from layerimp.cli.streams import after_writing
from layerimp.defaults import FOOTPRINT, HARNESS
from layerimp.errors import OptionError

if TYPE_CHECKING:
    from layerimp.pipeline.prepare import Command
    from layerimp.recipe import Recipe


@o.taking(
    "model scorer calibration tasks output ratio count target keep blocks pruner protect no_baselines heal "
    f"minutes heal_text allow_overlap set_ {o.TEXT} batch_size seed evaluator {o.TASKS} offload {o.MODEL} overwrite "
    "no_verify recipe dry_run json",
    argument="model",
)
def run(*, dry_run: bool, **given: Any) -> int:
    """Score every block, remove the least important ones, and measure what that costs.

    Example: layerimp run --model DIR --scorer avss --calibration FILE.jsonl --tasks wikitext --ratio 0.25 --output OUT
    """
    return _carried_out("run", given, dry="run" if dry_run else None)


@o.taking(
    f"model scorer calibration output by set_ {o.TEXT} batch_size seed task_path data_dir allow_task_code "
    f"offload {o.MODEL} overwrite recipe json",
    argument="model",
)
def score(*, by: str | None, **given: Any) -> int:
    """Score every block of a model.

    Example: layerimp score --model DIR --scorer avss --calibration FILE.jsonl
    """
    return _carried_out("score_model", given, by=by or "block")


@o.taking(
    "model plan blocks scorer output label ratio count target calibration pruner protect heal minutes "
    "heal_text set_ "
    f"{o.TEXT} batch_size seed task_path data_dir allow_task_code offload {o.MODEL} overwrite "
    "no_verify recipe dry_run json",
    argument="model",
)
def prune(*, plan: Path | None, label: list[str] | None, dry_run: bool, **given: Any) -> int:
    """Remove blocks from a model: those of a plan, those that you name, or those with the lowest scores.

    Example: layerimp prune --model DIR --blocks 3,17/18 --output OUT
    """
    if plan is None and label is not None:
        raise OptionError("--label chooses a plan of a file; name the file with --plan")
    for name in ("blocks", "ratio", "target", "protect", *_CHOOSING["prune_model"]):
        if plan is not None and given[name] is not None:
            raise OptionError(f"a plan says what goes: --plan and {_option(name)} contradict each other")
    from layerimp.recipe.plans import read_plans

    plans = {} if plan is None else {"plans": read_plans(plan, label, given.pop("count"))}
    return _carried_out("prune_model", given, dry="prune" if dry_run else None, **plans)


@o.taking(
    f"model tasks output evaluator set_ {o.TASKS} batch_size seed {o.MODEL} overwrite recipe json",
    argument="model",
    evaluator=o.option(o.Texts, f"Evaluator, or LABEL=EVALUATOR; repeatable. Default: {HARNESS}, {FOOTPRINT}."),
)
def evaluate(**given: Any) -> int:
    """Evaluate a model as it is.

    Example: layerimp evaluate --model DIR --tasks wikitext --limit 50
    """
    return _carried_out("evaluate", given)


_CHOOSING = {
    "run": ("scorer", "pruner"),
    "prune_model": ("scorer", "calibration", "pruner", "heal", "minutes", "heal_text"),
}
"""By function of the pipeline, the options that it reads only if blocks are chosen by their scores."""


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _limited(recipe: Recipe, minutes: float | None, settings: list[str]) -> Recipe:
    """Return a recipe whose healers that train do so for so many minutes."""
    if minutes is None:
        return recipe
    refuse_minutes_twice(minutes, settings)
    from layerimp.pipeline.shrink_recipe import with_minutes

    return recipe.model_copy(update={"healers": with_minutes(recipe.healers, minutes)})


def _carried_out(name: str, given: Mapping[str, Any], *, dry: Command | None = None, **more: Any) -> int:
    """Call a function of the pipeline with the recipe from the options, and return the exit code.

    Args:
        name: The name of the function.
        given: The options.
        dry: The command of which is shown instead what it would do; None to carry it out.
        more: Further arguments of the function.
    """
    recipe = recipe_from(**given)
    for option in _CHOOSING.get(name, ()) if recipe.names_all else ():
        if given[option] is not None:
            raise OptionError(
                f"--blocks names all that goes: leave out {_option(option)}, or say with --count how many go in all"
            )
    recipe = _limited(recipe, given.get("minutes"), given.get("set_") or [])
    allowed = permissions(**given)
    from layerimp.cli.display import Screen
    from layerimp.cli.dry_run import lines_of
    from layerimp.pipeline import commands
    from layerimp.pipeline.dry_run import dry_run_of
    from layerimp.pipeline.prepare import prepare

    with Screen(json=given["json"]) as screen:
        if dry is not None:
            foreseen = dry_run_of(prepare(dry, recipe, allowed, screen, **more))
            screen.present(foreseen, lines_of(foreseen))
            return 0
        results = getattr(commands, name)(recipe, permissions=allowed, progress=screen, **more)
        with after_writing(results.output):
            return int(screen.show(results))
