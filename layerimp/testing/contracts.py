"""The contracts that every component has, and what those of all kinds share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from unittest import SkipTest

import torch
from pydantic import ValidationError

from layerimp.blocks.snapshot import Snapshot
from layerimp.component import Component, Options
from layerimp.errors import LayerimpError
from layerimp.recipe import check_label

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = TypeVar("Kind", bound=Component)


class BrokenError(Exception):
    """A contract is broken; the message says how."""


def require(kept: bool, how: str) -> None:
    """Raise `BrokenError` with the message `how` unless the contract was kept."""
    if not kept:
        raise BrokenError(how)


def only_if(binds: bool) -> None:
    """Skip the rest of a contract that does not bind the component."""
    if not binds:
        raise SkipTest("the contract does not bind this component")


class Contracts(Generic[Kind]):
    """The contracts of a component, each a public method that raises an error if the component breaks it.

    A contract is named after its method. A subclass adds the contracts of one kind of component.

    Attributes:
        component: The component.
    """

    def __init__(self, component: Kind) -> None:
        self.component = component

    def _fresh(self) -> Kind:
        """Make the component anew, with the same options."""
        return type(self.component)(self.component.config)

    def it_is_described(self) -> None:
        """Users choose a component by its name, and can read what it does and what each option means.

        The name is a plain label. The first line of the docstring stands in lists, and each option has a description:
        `width: int = Field(3, description="How wide.")`.
        """
        component = self.component
        try:
            check_label(component.name)
        except LayerimpError as error:
            raise BrokenError(str(error)) from None
        require(bool(component.summary()), "its class has no docstring, whose first line is shown in lists")
        require(issubclass(component.Config, Options), "its Config is no subclass of layerimp.component.Options")
        for option, field in component.Config.model_fields.items():
            require(bool(field.description), f"the option {option!r} has no description (pydantic.Field)")

    def options_are_validated(self) -> None:
        """A wrong option is refused before any work is done, not ignored.

        Give each option a type other than `Any`, and leave the settings of `Options` as they are.
        """
        config = self.component.Config
        for option in [*config.model_fields, "no_such_option"]:
            wrong: set[object] = set()
            try:
                config(**{option: object()})
            except ValidationError as error:
                wrong.update(place for problem in error.errors() for place in problem["loc"])
            require(option in wrong, f"Config takes anything at all as {option!r}")
        require(
            bool(config.model_config.get("frozen")), "its Config is not frozen, so that options may change under way"
        )

    def options_survive_a_recipe(self) -> None:
        """A recipe is written as JSON, and a run from that file is the same run.

        Use JSON types, or types that pydantic reads back from JSON.
        """
        config = self.component.config
        again = type(config)(**json.loads(config.model_dump_json()))
        require(again == config, f"the options read {again!r} where they were {config!r}")


def methods(kind: type) -> dict[str, Callable[[Any], None]]:
    """Return the contracts that a class itself defines, by name, in the order of their definition."""
    public = {name: method for name, method in vars(kind).items() if isfunction(method) and name[0] != "_"}
    return {name.replace("_", " "): method for name, method in public.items()}


@contextmanager
def unharmed(*models: PreTrainedModel) -> Iterator[None]:
    """Require that this context leaves models and torch's global random generator as they are."""
    before = [(model, Snapshot.of(model), {n: v.clone() for n, v in model.state_dict().items()}) for model in models]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20241102)
        generator = torch.get_rng_state()
        yield
        require(torch.equal(generator, torch.get_rng_state()), "torch's global random generator has moved on")
    for model, snapshot, weights in before:
        now, state = Snapshot.of(model), model.state_dict()
        changed = list(map(" ".join, snapshot.changes(now)))
        changed += [f"the value of {name}" for name, value in state.items() if not torch.equal(value, weights[name])]
        require(not changed, f"of the model, {', '.join(changed[:3])} changed")
