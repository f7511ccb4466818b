"""What counts as another answer in the comparison with lm_eval, and what the stored comparison says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from harness_equality import BOUND, LIMITS, answers, leading

STORED = Path(__file__).parents[2] / "benchmarks" / "results" / "harness_equality.jsonl"


def sample(*scores: float, endings: tuple[str, ...] = ("aa", "bb")) -> dict[str, Any]:
    return {
        "resps": [[(score, False)] for score in scores],
        "arguments": [("", ending) for ending in endings],
    }


def stored(dtype: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in STORED.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["dtype"] == dtype]


def test_the_lead_is_over_the_second_best() -> None:
    assert leading([-3.0, -1.0, -2.5]) == (1, 1.5)


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ((-1.0, -2.0), (-1.0, -2.0), (False, False)),
        ((-1.0, -2.0), (-2.0, -1.0), (True, True)),
        ((-1.0, -1.00005), (-1.0001, -1.0), (True, False)),
    ],
)
def test_another_answer_counts_where_the_lead_exceeds_the_bound(
    theirs: tuple[float, ...], ours: tuple[float, ...], expected: tuple[bool, bool]
) -> None:
    assert answers(sample(*theirs), sample(*ours)) == expected


def test_an_answer_by_length_counts_as_well() -> None:
    """By the sum the first one is the better on both sides; by letter the second one is, on one side."""
    endings = ("aa", "bbbb")
    assert answers(sample(-2.0, -4.1, endings=endings), sample(-2.0, -3.9, endings=endings)) == (True, True)


def test_what_is_stored_is_of_the_usual_documents_without_text_of_rows_or_another_answer() -> None:
    lines = stored("float32")
    assert {line["model"] for line in lines} == {"smollm2", "gemma"}
    assert not any(line["other_answers"] or line["other_texts"] for line in lines)
    for model in ("smollm2", "gemma"):
        assert {line["name"]: line["limit"] for line in lines if line["model"] == model}.items() >= LIMITS.items()
    worst = [request for line in lines for request in line.get("worst", [])]
    assert {key for request in worst for key in request} == {
        *("task", "document", "tokens", "float64", "lm_eval", "layerimp"),
    }
    assert max(abs(each["lm_eval"] - each["layerimp"]) / each["tokens"] for each in worst) < BOUND


def test_in_sixteen_bits_the_stored_accuracies_are_within_half_a_standard_error() -> None:
    lines = stored("bfloat16")
    assert lines
    for line in lines:
        for values in line["metrics"].values():
            for theirs, ours in values.values():
                assert abs(theirs - ours) <= math.sqrt(theirs * (1 - theirs) / line["documents"]) / 2
