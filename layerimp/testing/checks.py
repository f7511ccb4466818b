"""The checks of all kinds of components, and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from layerimp.component import Component
from layerimp.errors import one_line
from layerimp.evaluator import Evaluator
from layerimp.healer import Healer
from layerimp.pruner import Pruner
from layerimp.scorer import Scorer
from layerimp.testing.assertions import BrokenError
from layerimp.testing.components import CONTRACTS
from layerimp.testing.evaluators import evaluator_contracts
from layerimp.testing.healers import healer_contracts
from layerimp.testing.pruners import pruner_contracts
from layerimp.testing.scorers import scorer_contracts
from layerimp.testing.tiny import BLOCKS

if TYPE_CHECKING:
    import pytest

PAGE = "Conformance checks"
"""The page of the documentation that explains each contract, under its name."""


class ContractError(AssertionError):
    """A component broke a contract; says which, how, and where it is explained."""


@dataclass(frozen=True)
class Check:
    """One contract, held against one component.

    Attributes:
        component: The component; a scorer for the block count of the tiny models.
        name: The contract.
        judge: Raises if it is broken.
        base: The check without which this one says nothing: whether the component works at all.
    """

    component: Component
    name: str
    judge: Callable[[Any], None]
    base: Check | None = None

    def __call__(self) -> None:
        """Run it.

        Raises:
            ContractError: the contract is broken.
            SkipTest: the component does not even keep the contract that all others rest on.
        """
        if self.base is not None and not self.base.kept:
            raise SkipTest(f"not checked, since {self.component.name!r} breaks the contract {self.base.name!r}")
        try:
            self.judge(self.component)
        except BrokenError as error:
            raise self._broken(str(error)) from None
        except Exception as error:
            raise self._broken(one_line(error)) from error

    @cached_property
    def kept(self) -> bool:
        """Whether the contract is kept."""
        try:
            self()
        except ContractError:
            return False
        return True

    def _broken(self, how: str) -> ContractError:
        who = f"{_kind(self.component)} {self.component.name!r}"
        return ContractError(f"{who} breaks the contract {self.name!r}: {how} ({self.where})")

    @property
    def where(self) -> str:
        """Where the contract is explained."""
        return f"see {self.name!r} on the page {PAGE!r} of the documentation"

    def __str__(self) -> str:
        return f"{self.component.name} {self.name}".replace(" ", "-")


def checks_of(component: Component | type[Component]) -> list[Check]:
    """The contracts that a component has to keep: those of its kind, and those that it declares to keep.

    Args:
        component: A class, or an instance, whose options are then the ones that are checked.

    Raises:
        ContractError: the class is not even whole: it has no name, or lacks a method.
    """
    if fault := (component if isinstance(component, type) else type(component)).fault():
        raise ContractError(fault)
    made = _instance(component)
    checks = [Check(made, name, judge) for name, judge in CONTRACTS.items()]
    if isinstance(made, Scorer):
        base, *others = scorer_contracts(made).items()
    elif isinstance(made, Pruner):
        base, *others = pruner_contracts(made).items()
    elif isinstance(made, Healer):
        base, *others = healer_contracts().items()
    elif isinstance(made, Evaluator):
        base, *others = evaluator_contracts().items()
    else:
        return checks
    works = Check(made, *base)
    return [*checks, works, *(Check(made, name, judge, works) for name, judge in others)]


def check_scorer(scorer: Scorer | type[Scorer]) -> None:
    """Hold a scorer against its contract.

    Raises:
        ContractError: it breaks it; tells of the first check that failed.
    """
    _check(scorer)


def check_pruner(pruner: Pruner | type[Pruner]) -> None:
    """Hold a pruner against its contract; see `check_scorer`."""
    _check(pruner)


def check_healer(healer: Healer | type[Healer]) -> None:
    """Hold a healer against its contract; see `check_scorer`."""
    _check(healer)


def check_evaluator(evaluator: Evaluator | type[Evaluator]) -> None:
    """Hold an evaluator against its contract; see `check_scorer`."""
    _check(evaluator)


def parametrize(*components: Component | type[Component]) -> pytest.MarkDecorator:
    """Make a pytest test of the argument `check` run once for every check of every component."""
    import pytest

    return pytest.mark.parametrize("check", [one for each in components for one in checks_of(each)], ids=str)


def _check(component: Component | type[Component]) -> None:
    for check in checks_of(component):
        check()


def _instance(component: Component | type[Component]) -> Component:
    cls, config = (component, None) if isinstance(component, type) else (type(component), component.config)
    make: Callable[[Any], Component] = partial(cls, BLOCKS) if issubclass(cls, Scorer) else cls
    return make(config)


def _kind(component: Component) -> str:
    kinds = {Scorer: "scorer", Pruner: "pruner", Healer: "healer", Evaluator: "evaluator"}
    return next((name for kind, name in kinds.items() if isinstance(component, kind)), "component")
