"""The benchmark of rates: what it says of a training, and that it continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rates
from finished import lines_in
from layerimp_distill.options import RATE
from rate_figures import copying, likelihood


def line(accuracy: float | None = None) -> dict[str, Any]:
    """A training that took back half of the loss, and of a classifier's accuracy."""

    def state(loss: float, right: float, copied: float) -> dict[str, Any]:
        copying = {"accuracy": copied, "intact": 0.8}
        return {"loss": loss, "accuracy": accuracy and right, "fidelity": {"copying": copying}}

    states = {"intact": state(2.0, 0.9, 0.8), "healed": state(4.0, 0.5, 0.4), "trained": state(3.0, 0.7, 0.6)}
    return {"chance": {"loss": 6.0, "accuracy": 0.5}, **states}


def test_likelihood_and_accuracy_are_what_a_model_knows_beyond_chance() -> None:
    assert [likelihood(line(), state) for state in ("intact", "healed", "trained")] == [1.0, 0.5, 0.75]
    assert copying(line(), "trained") == pytest.approx(0.75)
    assert [copying(line(0.9), state) for state in ("intact", "healed")] == [1.0, 0.0]
    assert copying(line(0.9), "trained") == pytest.approx(0.5)


def test_trainings_at_the_default_and_fixed_rates_are_kept(
    model_dir: Path, calibration_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = tmp_path / "other.txt"
    held_out.write_text("\n\n".join(f"w{n} w{n + 1} w{n + 2} w{n} w{n + 1} w{n + 2} w{n}" * 4 for n in range(12)))
    options: dict[str, Any] = {"minutes": [0.01], "rate": [3e-4], "samples": 8, "max_length": 16, "rows": 4}
    options |= {"calibration": str(calibration_file), "held_out": held_out, "results": tmp_path / "rates.jsonl"}
    rates.main(str(model_dir), "1", **options)
    default, fixed = lines_in(options["results"])
    assert (default["rate"], fixed["rate"]) == (None, 3e-4)
    assert 0 < default["curve"][1]["rate"] <= RATE
    assert fixed["curve"][1]["rate"] == 3e-4
    for each in (default, fixed):
        assert each["curve"][0]["steps"] == 0
        assert each["curve"][1]["steps"] > 0
        assert each["speed"] is None or each["speed"] > 0
        assert each["healed"] == default["healed"]  # before a step at any rate
        assert likelihood(each, "intact") == 1
        assert each["intact"]["fidelity"]["divergence"]["mean"] == pytest.approx(0, abs=1e-6)
        assert default["unhealed"] == each["unhealed"]
    monkeypatch.setattr(rates, "heal_beside", None)
    rates.main(str(model_dir), "1", **options)
    assert list(lines_in(options["results"])) == [default, fixed]
