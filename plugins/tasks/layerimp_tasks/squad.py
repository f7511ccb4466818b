"""How the answers of `layerimp_squad` are scored."""

from __future__ import annotations

from typing import Any

from layerimp_harness.answers import scores


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Token F1 and exact match of one answer, against the best of its references."""
    return scores(results[0], doc["answers"]["text"])
