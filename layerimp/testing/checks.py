"""The checks for all kinds of components, and the functions that run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from layerimp.component import Component
from layerimp.errors import one_line
from layerimp.evaluator import Evaluator
from layerimp.fidelity.comparer import Comparer
from layerimp.healer import Healer
from layerimp.pruner import Pruner
from layerimp.scorer import Scorer
from layerimp.testing.assertions import BrokenError
from layerimp.testing.comparers import comparer_contracts
from layerimp.testing.components import CONTRACTS
from layerimp.testing.evaluators import evaluator_contracts
from layerimp.testing.healers import healer_contracts
from layerimp.testing.pruners import pruner_contracts
from layerimp.testing.scorers import scorer_contracts
from layerimp.testing.tiny import BLOCKS

if TYPE_CHECKING:
    import pytest

PAGE = "Conformance checks"
"""The page of the documentation that explains each contract under a heading of the same name."""


class ContractError(AssertionError):
    """A component broke a contract. The message says which contract, how, and where it is explained."""


@dataclass(frozen=True)
class Check:
    """The check of one contract for one component.

    Attributes:
        component: The component. A scorer is made for the number of blocks of the tiny models.
        name: The name of the contract.
        judge: The function that raises an error if the contract is broken.
        base: The check that has to pass first: whether the component works at all.
    """

    component: Component
    name: str
    judge: Callable[[Any], None]
    base: Check | None = None

    def __call__(self) -> None:
        """Run the check.

        Raises:
            ContractError: the contract is broken.
            SkipTest: the component breaks the basic contract that all other checks depend on.
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
        """The place in the documentation that explains the contract."""
        return f"see {self.name!r} on the page {PAGE!r} of the documentation"

    def __str__(self) -> str:
        return f"{self.component.name} {self.name}".replace(" ", "-")


def checks_of(component: Component | type[Component]) -> list[Check]:
    """Return a check for each contract of the component's kind, and for each that the component declares to keep.

    Args:
        component: A class, or an instance to check with its own options.

    Raises:
        ContractError: the class is incomplete: it has no name, or a method is missing.
    """
    if fault := (component if isinstance(component, type) else type(component)).fault():
        raise ContractError(fault)
    instance = _instance(component)
    checks = [Check(instance, name, judge) for name, judge in CONTRACTS.items()]
    if isinstance(instance, Scorer):
        base, *others = scorer_contracts(instance).items()
    elif isinstance(instance, Pruner):
        base, *others = pruner_contracts(instance).items()
    elif isinstance(instance, Healer):
        base, *others = healer_contracts().items()
    elif isinstance(instance, Comparer):
        base, *others = comparer_contracts().items()
    elif isinstance(instance, Evaluator):
        base, *others = evaluator_contracts().items()
    else:
        return checks
    works = Check(instance, *base)
    return [*checks, works, *(Check(instance, name, judge, works) for name, judge in others)]


def check_scorer(scorer: Scorer | type[Scorer]) -> None:
    """Run all checks on a scorer.

    Raises:
        ContractError: the scorer breaks a contract; the error describes the first check that failed.
    """
    _check(scorer)


def check_pruner(pruner: Pruner | type[Pruner]) -> None:
    """Run all checks on a pruner; see `check_scorer`."""
    _check(pruner)


def check_healer(healer: Healer | type[Healer]) -> None:
    """Run all checks on a healer; see `check_scorer`."""
    _check(healer)


def check_evaluator(evaluator: Evaluator | type[Evaluator]) -> None:
    """Run all checks on an evaluator; see `check_scorer`."""
    _check(evaluator)


def parametrize(*components: Component | type[Component]) -> pytest.MarkDecorator:
    """Return a decorator for a pytest test with the argument `check`, which then runs once per component and check."""
    import pytest

    return pytest.mark.parametrize("check", [check for each in components for check in checks_of(each)], ids=str)


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
