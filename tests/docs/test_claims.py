"""The verdicts on the paper's claims, and how small a difference the panel can show."""

from __future__ import annotations

import json
import math
from pathlib import Path

import claims
import numpy as np
import power
import pytest
from scipy.stats import norm
from support.choice_lines import Line, keep, line, state


def draws(method: str, retained: list[float], **fields: object) -> list[Line]:
    return [
        line(method, seed, **fields, unhealed=state(1.0 - share, share), healed=state(0.1, share + 0.03))
        for seed, share in enumerate(retained)
    ]


def test_claims_are_true_false_or_not_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = draws("avss", [0.70, 0.71, 0.72, 0.71]) + draws("divergence, greedy", [0.90, 0.905, 0.91, 0.90])
    lines += draws("gbis", [0.80, 0.82, 0.81, 0.81]) + draws("lrp", [0.60, 0.62, 0.63, 0.61])
    lines += draws("cim", [0.2, 0.9, 0.95, 0.6])
    lines += draws("divergence, greedy", [0.80, 0.95], model="gemma", count=4)
    lines += [line("divergence, greedy", model="minilm-sst2", count=2, healed=state(0.1, 0.99))]
    keep(lines, tmp_path, monkeypatch)
    head, rows = claims.table()
    assert head == ["claim", "The starter, 3 of 12", "MiniLM on SST-2, 2 of 6", "Gemma 3 270M, 4 of 18"]
    verdicts = [[cell.partition(":")[0] for cell in row[1:]] for row in rows]
    assert verdicts == [
        ["**false**", "–", "–"],
        ["**true**", "–", "not decided"],
        ["**false**", "–", "–"],
        ["**true**", "–", "–"],
        ["not decided", "–", "–"],
    ]
    assert rows[0][1] == "**false**: 70 to 72 % retained"
    assert rows[2][1].startswith("**false**: -10.0 ± ")


def test_without_tasks_claims_are_judged_by_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = {"avss": [3.0, 3.1, 3.05], "lrp": [1.0, 1.05, 1.1]}
    lines = [
        line(name, n, "smollm2", 7, unhealed=state(far)) for name, each in far.items() for n, far in enumerate(each)
    ]
    keep(lines, tmp_path, monkeypatch)
    assert [row[1] for row in claims.table()[1]] == ["–", "–", "–", "**false**: -2.00 ± 0.12 nats less", "–"]


KNOWN = ((0.5, 0.016), (0.4, 0.012))
"""Value and error of two tasks: 0.45 with an error of 0.01 as a mean."""


def test_power_follows_documents_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = [{"value": value, "floor": 0.35, "stderr": error, "at_floor": False} for value, error in KNOWN]
    guessed = {"value": 0.4, "floor": 0.6, "stderr": 0.3, "at_floor": True}
    intact = {"parts": dict(enumerate([*counted, guessed]))}
    kept = [
        {
            "model": "smollm2-135m",
            "report": {
                "recipe": {"limit": 300},
                "tasks": [{"task": "zero-shot", "intact": intact, "retained": {"mean": 0.5, "stderr": error}}],
            },
        }
        for error in (0.08, 0.12)
    ]
    (tmp_path / "shrink.jsonl").write_text(
        "\n".join(map(json.dumps, [*kept, {"model": "smollm2-135m", "by": "other"}]))
    )
    monkeypatch.setattr(power, "DATA", tmp_path / "shrink.jsonl")
    shares = {"avss": [0.5, 0.6], "depth": [0.1, 0.2, 0.6], "lrp": [0.3]}
    panel = [
        line(name, n, "smollm2", 7, healed=state(1.0, x)) for name, each in shares.items() for n, x in enumerate(each)
    ]
    keep(panel, tmp_path, monkeypatch)
    sd = math.sqrt((np.var(shares["avss"], ddof=1) + 2 * np.var(shares["depth"], ddof=1)) / 3)
    assert power.spread("smollm2-135m") == pytest.approx(sd)
    head, rows = power.table()
    row = dict(zip(head, rows[1], strict=True))
    assert (row["documents a task"], row["standard error"]) == ("300", "1.00")
    seen = norm.ppf(0.975) + norm.ppf(0.8)
    assert row["unpaired"] == f"{seen * math.sqrt(2):.1f} ({10 * seen * math.sqrt(2):.0f})" == "4.0 (40)"
    assert row["paired"] == f"{seen:.1f} ({10 * seen:.0f})" == "2.8 (28)"
    assert row["paired, 2 draws"] == f"{100 * seen * math.sqrt(0.1**2 + 2 * sd**2 / 2):.0f}"
    quarter = dict(zip(head, rows[0], strict=True))
    assert quarter["standard error"] == f"{math.sqrt(3):.2f}"
    keep(panel[:1], tmp_path, monkeypatch)
    assert power.table()[1][1][-1] == "–"
