"""The words for what healing brought back."""

from __future__ import annotations

import pytest

from layerimp.report.healing import recovery


@pytest.mark.parametrize(
    ("before", "healed", "end"),
    [
        (5.0, 4.0, "; 50% had come back before this healing"),
        (4.0, 5.0, "; 75% had come back before this healing, which made the model worse"),
        (5.0, 5.0, "; 50% had come back before this healing, which changed nothing"),
    ],
)
def test_an_earlier_healing_is_told_from_this_one(before: float, healed: float, end: str) -> None:
    loss = {"intact": 3.0, "pruned": 7.0, "healed_before": before, "healed": healed}
    said = recovery(loss, None, (7.0 - healed) / 4.0)
    assert said.startswith(f"{(7.0 - healed) / 4.0:.0%} of the lost loss came back on the held-out rows (")
    assert said.endswith(end)


def test_a_classifier_may_change_without_another_accuracy() -> None:
    loss = {"intact": 0.2, "pruned": 0.9, "healed_before": 0.6, "healed": 0.5}
    accuracy = {"intact": 0.9, "pruned": 0.5, "healed_before": 0.7, "healed": 0.7}
    said = recovery(loss, accuracy, 0.5)
    assert said.startswith("50% of the lost accuracy came back")
    assert said.endswith("; 50% had come back before this healing")
