"""The speed of models in turns, by a clock of the test's own."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import pytest
from support.tiny import tiny

from layerimp.evaluation import speed
from layerimp.evaluation.speed import Speed, speeds
from layerimp.models.discovery import find_blocks


def test_numbers_by_hand() -> None:
    fast, slow = Speed(64, (1.0, 2.0, 3.0)), Speed(64, (2.0, 9.0, 12.0))
    assert fast.mean == 32
    assert fast.stderr == pytest.approx(32 * math.sqrt(math.pi / 6) * 1.0 / 2)
    factor, error = fast.times(slow)
    assert factor == 4  # the median of 2, 4.5 and 4, where the ratio of the medians is 4.5
    assert error == pytest.approx(math.sqrt(math.pi / 6) * statistics.stdev([2, 4.5, 4]))


def test_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that each forward moves on: the first round of each way does not count."""
    monkeypatch.setattr(speed, "ROUNDS", 3)
    stacks = {"intact": find_blocks(tiny("llama")), "small": find_blocks(tiny("llama"))}
    clock, seen = [0.0], []

    def counted(label: str, seconds: float) -> None:
        forward = stacks[label].model.forward

        def slow(*args: Any, **options: Any) -> Any:
            clock[0] += seconds
            seen.append((label, options["input_ids"].shape[1]))
            return forward(*args, **options)

        slow.__signature__ = speed.inspect.signature(forward)  # type: ignore[attr-defined]
        monkeypatch.setattr(stacks[label].model, "forward", slow)

    counted("intact", 2.0)
    counted("small", 1.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    measured = speeds(stacks)
    longest = 64  # positions of the tiny model
    intact_first = [("intact", longest), ("small", longest)]
    assert seen[:8] == [*reversed(intact_first), *intact_first] * 2
    assert measured["intact"]["prefill"] == Speed(longest, (2.0,) * 3)
    assert measured["small"]["prefill"] == Speed(longest, (1.0,) * 3)
    assert measured["small"]["prefill"].times(measured["intact"]["prefill"])[0] == 2
    assert measured["intact"]["decoding"].mean == pytest.approx(0.5)
    assert measured["small"]["decoding"].mean == pytest.approx(1.0)


def test_a_classifier_only_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 2)
    stack = find_blocks(tiny("bert"))
    assert speeds({"intact": stack, "small": stack})["small"].keys() == {"prefill"}
