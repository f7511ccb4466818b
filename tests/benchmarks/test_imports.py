"""Every benchmark still imports what it uses."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_can_be_imported(path: Path) -> None:
    assert importlib.import_module(path.stem).__doc__
