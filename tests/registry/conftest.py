"""Fixtures for tests of plugins that misbehave."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def scoring(model_dir: Path, calibration_file: Path) -> list[object]:
    """The arguments to score the tiny Llama on two batches of two rows."""
    amount = ["--samples", 4, "--batch-size", 2, "--max-length", 16]
    return ["--model", model_dir, "--calibration", calibration_file, *amount]
