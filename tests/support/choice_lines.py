"""Hand-made lines of `benchmarks/choices.py`, for the tools of the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chosen
import pytest

Line = dict[str, Any]


def state(
    divergence: float = 1.0,
    retained: float | None = None,
    copying: float | None = None,
    stderr: float = 0.0,
    **tasks: float,
) -> dict[str, Any]:
    """Return what was measured of a model; the intact one copies a half."""
    shares = {name: {"mean": share, "stderr": 0.0} for name, share in tasks.items()}
    return {
        "divergence": {"mean": divergence, "stderr": stderr},
        "copying": None if copying is None else {"accuracy": copying, "stderr": stderr, "intact": 0.5},
        "retained": None if retained is None else {"tasks": shares, "worst": {"mean": retained, "stderr": stderr}},
    }


def line(method: str, seed: int = 0, model: str = "starter", count: int = 3, **fields: Any) -> Line:
    """Return a line; a state that is not given is that of an untouched measure."""
    whole = {"setting": "s", "model": model, "count": count, "method": method, "seed": seed, "blocks": [1, 2, 3]}
    return whole | {"unhealed": state(), "healed": state()} | fields


def keep(lines: list[Line], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put lines in place of what is stored."""
    monkeypatch.setattr(chosen, "DATA", folder / "choices.jsonl")
    chosen.DATA.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
