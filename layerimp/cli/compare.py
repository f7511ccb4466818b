"""`layerimp compare`: how far models of any origin are from an intact one."""

from __future__ import annotations

from typing import Any

from layerimp.cli import options as o
from layerimp.cli.requests import permissions, recipe_from
from layerimp.cli.streams import after_writing
from layerimp.defaults import FIDELITY, HARNESS
from layerimp.errors import OptionError

_OWN: dict[str, Any] = {
    "models": o.option(
        o.Texts,
        "The intact model, then the models that are compared with it: MODEL, or LABEL=MODEL.",
        argument="INTACT SMALL [MORE ...]",
    ),
    "text": o.option(
        o.Text,
        "Text to measure fidelity on, from any source of calibration text. Default: what the records of the "
        "models keep apart for it, else the default calibration text.",
    ),
    "tasks": o.option(
        o.Texts,
        "lm-evaluation-harness tasks, comma-separated: names or YAML paths; repeatable. Default: none.",
    ),
    "evaluator": o.option(o.Texts, f"Evaluator, or LABEL=EVALUATOR; repeatable. Default: {HARNESS}, {FIDELITY}."),
    "set_": o.option(o.Texts, "EVALUATOR.OPTION=VALUE; repeatable.", "--set"),
    "output": o.option(o.Text, "Directory for the results and a page; must not exist."),
}


@o.taking(
    f"models text tasks output evaluator set_ field packing max_length batch_size seed {o.TASKS} {o.MODEL} overwrite "
    "json",
    **_OWN,
)
def compare(*, models: list[str] | None, text: str | None, json: bool, **given: Any) -> int:
    """Compare models with an intact one that has the same tokenizer: how far their predictions and texts are from it.

    Example: layerimp compare INTACT SMALL --tasks arc_easy --data-dir DIR --limit 200 --output OUT
    """
    if models is None or len(models) < 2:
        raise OptionError("name the intact model and at least one other: layerimp compare INTACT SMALL")
    intact, *others = models
    given["evaluator"] = given["evaluator"] or [HARNESS, FIDELITY]
    recipe, allowed = recipe_from(model=intact, calibration=text, **given), permissions(**given)
    from layerimp.cli.display import Screen
    from layerimp.pipeline.comparing import compare as compare_models

    with Screen(json=json) as screen:
        comparison = compare_models(recipe, others, permissions=allowed, progress=screen)
        with after_writing(recipe.output):
            return screen.show_comparison(comparison)
