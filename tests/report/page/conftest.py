"""Fixtures for tests of the page of a grid."""

from __future__ import annotations

import pytest
from support.made_up_grids import found_of

from layerimp.report.document import Results
from layerimp.report.page import page


@pytest.fixture(scope="module")
def grid() -> Results:
    """The results of a made-up grid with two models, in which a cell fails."""
    return found_of(models=("tiny", "other"), fails="by lrp")


@pytest.fixture(scope="module")
def document(grid: Results) -> str:
    """The page of the grid."""
    return page(grid)
