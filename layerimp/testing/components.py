"""The contracts of every component: a name, a description, and options that are described and validated."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from layerimp.component import Options
from layerimp.errors import LayerimpError
from layerimp.recipe import check_label
from layerimp.testing.assertions import require

if TYPE_CHECKING:
    from layerimp.component import Component


def described(component: Component) -> None:
    """Users choose a component by its name, and can read what it does and what each option means."""
    name = getattr(component, "name", None)
    require(isinstance(name, str) and name != "", "its class has no name")
    try:
        check_label(component.name)
    except LayerimpError as error:
        require(False, str(error))
    require(bool(component.summary()), "its class has no docstring, whose first line is shown in lists")
    require(issubclass(component.Config, Options), "its Config is no subclass of layerimp.component.Options")
    for option, field in component.Config.model_fields.items():
        require(bool(field.description), f"the option {option!r} has no description (pydantic.Field)")


def options_are_validated(component: Component) -> None:
    """A wrong option is refused before any work is done, not ignored."""
    config = component.Config
    for option in [*config.model_fields, "no_such_option"]:
        require(_refused(config, option, object()), f"Config takes anything at all as {option!r}")
    require(bool(config.model_config.get("frozen")), "its Config is not frozen, so that options may change under way")


def _refused(config: type[Options], option: str, value: Any) -> bool:
    try:
        config(**{option: value})
    except ValidationError as error:
        return any(option in problem["loc"] for problem in error.errors())
    return False


def options_survive_a_recipe(component: Component) -> None:
    """A recipe is written as JSON, and a run from that file is the same run."""
    written = json.loads(component.config.model_dump_json())
    again = type(component.config)(**written)
    require(again == component.config, f"the options read {again!r} where they were {component.config!r}")


def pickles(component: Component) -> None:
    """A component may be sent to another process."""
    again = pickle.loads(pickle.dumps(component))
    require(again.config == component.config, "its options are others after pickling")


CONTRACTS = {
    "it is described": described,
    "options are validated": options_are_validated,
    "options survive a recipe": options_survive_a_recipe,
    "it pickles": pickles,
}
