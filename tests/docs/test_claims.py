"""The verdicts on the paper's claims."""

from __future__ import annotations

from pathlib import Path

import claims
import pytest
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
