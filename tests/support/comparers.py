"""Comparers, for tests of what compares models by them."""

from __future__ import annotations

from typing import Any

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
