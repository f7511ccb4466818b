"""The SQuAD v1.1 metrics (Rajpurkar et al. 2016): token F1 and exact match, best over the reference answers."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Any


def normalized(text: str) -> list[str]:
    """Words without case, punctuation and articles."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def f1(prediction: str, reference: str) -> float:
    """The harmonic mean of precision and recall over words."""
    found, wanted = normalized(prediction), normalized(reference)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else float(found == wanted)


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Both metrics of one answer."""
    prediction, references = results[0], doc["answers"]["text"]
    return {
        "f1": max(f1(prediction, reference) for reference in references),
        "exact_match": max(float(normalized(prediction) == normalized(reference)) for reference in references),
    }
