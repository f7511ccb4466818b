"""The checks for all kinds of components, and the functions that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from layerimp.component import Component
from layerimp.errors import one_line
from layerimp.evaluator import Evaluator
from layerimp.fidelity.comparer import Comparer
from layerimp.healer import Healer
from layerimp.pruner import Pruner
from layerimp.scorer import Scorer
from layerimp.testing.contracts import BrokenError, Contracts, methods
from layerimp.testing.evaluators import EvaluatorContracts
from layerimp.testing.healers import HealerContracts
from layerimp.testing.pruners import PrunerContracts
from layerimp.testing.scorers import ScorerContracts
from layerimp.testing.tiny import BLOCKS

if TYPE_CHECKING:
    import pytest

KINDS: Mapping[type[Component], type[Contracts[Any]]] = {
    Scorer: ScorerContracts,
    Pruner: PrunerContracts,
    Healer: HealerContracts,
    Comparer: Contracts,
    Evaluator: EvaluatorContracts,
}
"""The contracts for each kind of component. A comparer is an evaluator with those of every component alone."""


class ContractError(AssertionError):
    """A component broke a contract. The message says which contract, how, and where it is explained."""


@dataclass(frozen=True)
class Check:
    """The check of one contract for one component.

    Attributes:
        component: The component. A scorer is made for the number of blocks of the tiny models.
        name: The name of the contract, under which a page of the documentation explains it.
        judge: The function that raises an error if the contract is broken.
    """

    component: Component
    name: str
    judge: Callable[[], None]

    def __call__(self) -> None:
        """Run the check.

        Raises:
            ContractError: the contract is broken.
            SkipTest: the contract does not bind the component.
        """
        try:
            self.judge()
        except SkipTest:
            raise
        except Exception as error:
            how = str(error) if isinstance(error, BrokenError) else one_line(error)
            who = f"{_kind(self.component).__name__.lower()} {self.component.name!r}"
            where = f"see {self.name!r} on the page 'Conformance checks' of the documentation"
            raise ContractError(f"{who} breaks the contract {self.name!r}: {how} ({where})") from error

    def __str__(self) -> str:
        return f"{self.component.name} {self.name}".replace(" ", "-")


def checks_of(component: Component | type[Component]) -> list[Check]:
    """Return a check for each contract of the component's kind.

    Args:
        component: A class, or an instance to check with its own options.

    Raises:
        ContractError: the class is incomplete: it has no name, or a method is missing.
    """
    cls, config = (component, None) if isinstance(component, type) else (type(component), component.config)
    if fault := cls.fault():
        raise ContractError(fault)
    make: Callable[[Any], Component] = partial(cls, BLOCKS) if issubclass(cls, Scorer) else cls
    instance = make(config)
    contracts = KINDS[_kind(instance)](instance)
    named = methods(Contracts) | methods(type(contracts))
    return [Check(instance, name, partial(method, contracts)) for name, method in named.items()]


def check_component(component: Component | type[Component]) -> None:
    """Run all checks on a component.

    Raises:
        ContractError: the component breaks a contract; the error describes the first check that failed.
    """
    for check in checks_of(component):
        with suppress(SkipTest):
            check()


def parametrize(*components: Component | type[Component]) -> pytest.MarkDecorator:
    """Return a decorator for a pytest test with the argument `check`, which then runs once per component and check."""
    import pytest

    return pytest.mark.parametrize("check", [check for each in components for check in checks_of(each)], ids=str)


def _kind(component: Component) -> type[Component]:
    return next(kind for kind in KINDS if isinstance(component, kind))
