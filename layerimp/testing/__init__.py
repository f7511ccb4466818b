"""Conformance checks for the components of plugins, to be run in a plugin's own tests.

    from layerimp.testing import parametrize
    from layerimp_step import Step

    @parametrize(Step)
    def test_contract(check):
        check()

Each check is a separate test, named after the contract. A failure says which contract was broken, how, and where the
documentation explains it. Outside pytest, `check_component(Step)` runs all checks.

Give a component as its class, or as an instance to check it with the options of that instance.
"""

from layerimp.testing.checks import (
    Check,
    ContractError,
    check_component,
    checks_of,
    parametrize,
)
from layerimp.testing.tiny import BLOCKS, VOCAB, batch, padded_batch, tiny_classifier, tiny_model, tiny_tokenizer

__all__ = [
    "BLOCKS",
    "VOCAB",
    "Check",
    "ContractError",
    "batch",
    "check_component",
    "checks_of",
    "padded_batch",
    "parametrize",
    "tiny_classifier",
    "tiny_model",
    "tiny_tokenizer",
]
