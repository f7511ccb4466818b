"""`--set LABEL.OPTION=VALUE`: the options of single components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from layerimp.defaults import ALL
from layerimp.errors import OptionError, unknown_name
from layerimp.recipe.permissions import refuse_permissions
from layerimp.recipe.reading import read_yaml

if TYPE_CHECKING:
    from layerimp.recipe.reading import Described


def setting(text: str, example: str) -> tuple[str, str, Any]:
    """Return the label, the option and the value of one `--set`.

    Raises:
        OptionError: the text is not LABEL.OPTION=VALUE, or it gives a permission, which only a flag can give.
    """
    target, equals, value = text.partition("=")
    label, dot, option = target.rpartition(".")
    if not (equals and dot and label and option):
        raise OptionError(f"--set takes LABEL.OPTION=VALUE, such as {example}, got {text!r}")
    try:
        parsed = read_yaml(value)
    except (yaml.YAMLError, ValueError):
        parsed = value
    refuse_permissions({option: parsed}, f"--set {text}")
    return label, option, parsed


def refuse_minutes_twice(minutes: float | None, settings: list[str]) -> None:
    """Refuse a `--set` of minutes beside `--minutes`, which is for the same."""
    if minutes is None:
        return
    for text in settings:
        if setting(text, "distill.minutes=5")[1] == "minutes":
            raise OptionError(f"the minutes of training are given twice: --minutes, and --set {text}")


def with_settings(recipe: Described, settings: list[str]) -> Described:
    """Return a recipe, of a run or a grid, with the values of all LABEL.OPTION=VALUE.

    Raises:
        InputError: a text is not LABEL.OPTION=VALUE, gives a permission, or names no component of the recipe.
    """
    from layerimp.registry.catalog import registry

    if not settings:
        return recipe
    document = recipe.model_dump()
    pruners = document["pruners"] if "pruners" in document else {document["pruner"]["name"]: document["pruner"]}
    homes = {**pruners, **document["evaluators"], **document.get("healers", {}), **document["scorers"]}
    for text in settings:
        label, option, parsed = setting(text, "avss.site=block_out")
        if label not in homes and ALL in document["scorers"] and label in registry().names("scorer"):
            # An option for one of the scorers in `all` counts as requesting that scorer by name.
            homes[label] = document["scorers"][label] = {"name": label, "options": {}}
        if label not in homes:
            raise unknown_name("label", label, homes, of=f"--set {text}")
        homes[label]["options"][option] = parsed
    changed = {field for field, before in recipe.model_dump().items() if document[field] != before}
    fields = recipe.model_fields_set | changed
    return type(recipe).model_validate({field: document[field] for field in fields})
