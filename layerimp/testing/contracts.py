"""The contracts that every component has, and what those of all kinds share: how they are named and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from pydantic import ValidationError

from layerimp.blocks.snapshot import Snapshot
from layerimp.component import Component, Options
from layerimp.errors import LayerimpError
from layerimp.recipe import check_label

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = TypeVar("Kind", bound=Component)
Contract = TypeVar("Contract", bound=Callable[[Any], None])


class BrokenError(Exception):
    """A contract is broken; the message says how."""


def require(kept: bool, how: str) -> None:
    """Raise `BrokenError` with the message `how` unless the contract was kept."""
    if not kept:
        raise BrokenError(how)


class Contracts(Generic[Kind]):
    """The contracts of a component, each a public method that raises an error if the component breaks it.

    A contract is named after its method. A subclass adds the contracts of one kind of component; the first of these is
    whether the component works at all.

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
            require(False, str(error))
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
            require(_refused(config, option, object()), f"Config takes anything at all as {option!r}")
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


def _refused(config: type[Options], option: str, value: Any) -> bool:
    try:
        config(**{option: value})
    except ValidationError as error:
        return any(option in problem["loc"] for problem in error.errors())
    return False


def only_if(binds: Callable[[Any], bool]) -> Callable[[Contract], Contract]:
    """Mark a contract that binds only the components for which `binds` is true."""

    def mark(contract: Contract) -> Contract:
        vars(contract)["binds"] = binds
        return contract

    return mark


def named(contracts: Contracts[Any]) -> dict[str, Callable[[], None]]:
    """Return the contracts that bind a component, by name, in the order of their definition."""
    return {
        name: partial(method, contracts)
        for kind in reversed(type(contracts).__mro__)
        for name, method in methods(kind).items()
        if (binds := getattr(method, "binds", None)) is None or binds(contracts.component)
    }


def methods(kind: type) -> dict[str, Callable[[Any], None]]:
    """Return the contracts that a class itself defines, by name, in the order of their definition."""
    return {
        method.__name__.replace("_", " "): method
        for method in vars(kind).values()
        if isfunction(method) and not method.__name__.startswith("_")
    }


@contextmanager
def unharmed(*models: PreTrainedModel) -> Iterator[None]:
    """Require that this context leaves models and torch's global random generator as they are."""
    before = [
        (model, Snapshot.of(model), {name: value.clone() for name, value in model.state_dict().items()})
        for model in models
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20241102)
        generator = torch.get_rng_state()
        yield
        require(torch.equal(generator, torch.get_rng_state()), "torch's global random generator has moved on")
    for model, snapshot, weights in before:
        now = Snapshot.of(model)
        changed = snapshot.traces(now) + snapshot.damage(now)
        changed += [
            f"the value of {name}"
            for name, value in model.state_dict().items()
            if not torch.equal(value, weights[name])
        ]
        require(not changed, f"of the model, {', '.join(changed[:3])} changed")
