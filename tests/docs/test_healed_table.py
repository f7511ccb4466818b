"""The table of what is left unhealed and healed shows what is stored."""

from __future__ import annotations

from pathlib import Path

import healed
import pytest
from support.choice_lines import keep, line, state


def test_the_table_shows_the_middle_and_the_best_of_all_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {"divergence, greedy": (0.5, 0.9), "avss": (0.6, 0.7), "lrp": (0.8, 0.6), "random": (1.0, 1.0)}
    lines = [line(name, unhealed=state(1.0, a), healed=state(1.0, b)) for name, (a, b) in ends.items()]
    lines += [line(name, model="gemma", count=4, unhealed=state(3.0), healed=state(b)) for name, (_, b) in ends.items()]
    keep(lines, tmp_path, monkeypatch)
    assert healed.table()[1] == [
        ["The starter, 3 of 12", "retained", "3", "60.0 → 70.0", "80.0 → 90.0"],
        ["Gemma 3 270M, 4 of 18", "divergence", "3", "3.00 → 0.70", "3.00 → 0.60"],
    ]
