"""Every benchmark still imports what it uses, and its options can be read."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import get_type_hints

import pytest

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_can_be_imported(path: Path) -> None:
    benchmark = importlib.import_module(path.stem)
    assert benchmark.__doc__
    if hasattr(benchmark, "main"):
        get_type_hints(benchmark.main)  # fails if an option has no meaning any more
