"""How the answers of the SQuAD task are scored."""

from __future__ import annotations

from typing import Any

from layerimp_harness.answers import scores


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return scores(results[0], doc["answers"]["text"])
