"""The checks for all kinds of components, and the functions that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from layerimp.testing.comparers import ComparerContracts
from layerimp.testing.contracts import BrokenError, Contracts, named
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
    Comparer: ComparerContracts,
    Evaluator: EvaluatorContracts,
}
"""The contracts for each kind of component. A comparer is an evaluator with contracts of its own."""
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
    judge: Callable[[], None]
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
            self.judge()
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
        who = f"{_kind(self.component).__name__.lower()} {self.component.name!r}"
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
    contracts = KINDS[_kind(instance)](instance)
    checks = [Check(instance, name, judge) for name, judge in named(contracts).items()]
    first = len(named(Contracts(instance)))
    return [*checks[: first + 1], *(replace(check, base=checks[first]) for check in checks[first + 1 :])]


def check_component(component: Component | type[Component]) -> None:
    """Run all checks on a component.

    Raises:
        ContractError: the component breaks a contract; the error describes the first check that failed.
    """
    for check in checks_of(component):
        check()


def parametrize(*components: Component | type[Component]) -> pytest.MarkDecorator:
    """Return a decorator for a pytest test with the argument `check`, which then runs once per component and check."""
    import pytest

    return pytest.mark.parametrize("check", [check for each in components for check in checks_of(each)], ids=str)


def _instance(component: Component | type[Component]) -> Component:
    cls, config = (component, None) if isinstance(component, type) else (type(component), component.config)
    make: Callable[[Any], Component] = partial(cls, BLOCKS) if issubclass(cls, Scorer) else cls
    return make(config)


def _kind(component: Component) -> type[Component]:
    return next(kind for kind in KINDS if isinstance(component, kind))
