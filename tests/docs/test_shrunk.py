"""What the pages show of `layerimp shrink` is what a run printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import shrunk

from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.shrunk import LINES, lines_of


@pytest.mark.parametrize("page", shrunk.SHOWN_ON, ids=lambda page: page.name)
def test_the_pages_show_the_record(page: Path) -> None:
    assert shrunk.with_record(page.read_text("utf-8")) == page.read_text("utf-8")


def test_the_record_is_of_the_default() -> None:
    report = ShrinkReport.model_validate_json(shrunk.RECORD.read_text("utf-8"))
    assert report.model == "starter"
    assert report.small.blocks == report.intact.blocks * 3 // 4
    assert len(lines_of(report)) <= LINES
