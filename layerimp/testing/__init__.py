"""Holds a plugin's components against their contracts: what a third party runs on what it wrote.

    from layerimp.testing import parametrize
    from layerimp_step import Step

    @parametrize(Step)
    def test_contract(check):
        check()

Each check is a test of its own, named after the contract, and what fails says which contract was broken, how, and where
the documentation explains it. Outside pytest, `check_scorer(Step)` runs all of them.

A component is given as its class, or as an instance, whose options are then the ones that are checked.
"""

from layerimp.testing.checks import (
    Check,
    ContractError,
    check_evaluator,
    check_healer,
    check_pruner,
    check_scorer,
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
    "check_evaluator",
    "check_healer",
    "check_pruner",
    "check_scorer",
    "checks_of",
    "padded_batch",
    "parametrize",
    "tiny_classifier",
    "tiny_model",
    "tiny_tokenizer",
]
