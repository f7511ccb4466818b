"""The metrics of SQuAD v1.1 (Rajpurkar et al. 2016): token F1 and exact match, the best over the reference answers.

A task YAML uses these metrics through a Python file beside the YAML that imports them from this module.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def normalized(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation and articles."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall over words, in [0, 1]."""
    given, wanted = normalized(prediction), normalized(reference)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else float(given == wanted)


def scores(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Return both metrics of one answer, under the names `f1` and `exact_match`."""
    return {
        "f1": max(f1(prediction, reference) for reference in references),
        "exact_match": max(float(normalized(prediction) == normalized(reference)) for reference in references),
    }
