"""How the answers of `starter_qa` are scored."""

from __future__ import annotations

from typing import Any

from layerimp_harness.answers import scores


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Token F1 and exact match of one answer."""
    return scores(results[0], [doc["answer"]])
