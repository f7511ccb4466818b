"""A comparer that keeps its contracts, and for each contract a comparer that breaks it."""

from __future__ import annotations

from typing import Any

import torch

from layerimp import find_blocks
from layerimp.fidelity import Comparer, Fidelity, Intact


class Agreement(Comparer):
    """The share of predictions with the same top token."""

    name = "agreement"

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        known = Intact(find_blocks(intact), text)
        return lambda model: Fidelity(agreement=known.divergence(find_blocks(model)).agreement)


class Bare(Agreement):
    """Gives a bare number."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        compare = super().comparison(intact, tokenizer, text)
        return lambda model: compare(model).agreement


class Silent(Agreement):
    """Says nothing."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        return lambda model: Fidelity()


class Percent(Agreement):
    """Gives a share in per cent."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        compare = super().comparison(intact, tokenizer, text)
        return lambda model: Fidelity(agreement=100 * compare(model).agreement)


class Strict(Agreement):
    """Does not agree with anyone, not even with the intact model."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        return lambda model: Fidelity(agreement=0.5)


class Training(Agreement):
    """Leaves the model in training mode."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        compare = super().comparison(intact, tokenizer, text)
        return lambda model: compare(model.train().eval().train())


class Counting(Agreement):
    """Adds up over all models."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        compare, seen = super().comparison(intact, tokenizer, text), []

        def mean(model: Any) -> Fidelity:
            seen.append(compare(model).agreement)
            return Fidelity(agreement=float(torch.tensor(seen).mean()))

        return mean


class Tokenizing(Agreement):
    """Needs a tokenizer."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        len(tokenizer)
        return super().comparison(intact, tokenizer, text)


WRONG_COMPARERS: list[tuple[type[Comparer], str, str]] = [
    (Bare, "comparisons are sound", "a comparison gives float, not Fidelity"),
    (Silent, "comparisons are sound", "says nothing"),
    (Percent, "comparisons are sound", "agreement Input should be less than or equal to 1"),
    (Strict, "equal models are equal", "agrees with itself in 0.5"),
    (Training, "compared models stay as they are", "the mode of"),
    (Counting, "one comparison serves all models", "by one comparison"),
    (Tokenizing, "a missing tokenizer is no failure", "TypeError"),
]
