"""The picture of the report page: small, on its page, and of what stands above the first part with tables."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import screenshot
from PIL import Image


def test_the_page_shows_the_picture_and_says_what_it_is() -> None:
    (alt,) = re.findall(rf"!\[([^]]+)]\({screenshot.PICTURE.name}\)", screenshot.PAGE.read_text("utf-8"))
    assert len(alt.split()) > 5
    assert screenshot.PICTURE.stat().st_size < 200_000
    with Image.open(screenshot.PICTURE) as shown:
        assert shown.width == screenshot.WIDTH


def test_there_is_one_grid_to_run() -> None:
    assert "--output grid\n" in screenshot.grid().code


def test_the_picture_ends_before_the_tables(browser: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    start = '<body style="margin: 0"><div style="height: 300px; background: #c00">answers</div>'
    report.write_text(f'{start}<h3 style="margin: 40px 0 0">tables</h3><div style="height: 9000px">', encoding="utf-8")
    taken = Image.open(io.BytesIO(screenshot.picture(browser, report)))
    assert (taken.format, taken.size) == ("WEBP", (screenshot.WIDTH, 340))
    assert taken.convert("RGB").getpixel((500, 200)) == pytest.approx((204, 0, 0), abs=8)
    assert taken.convert("RGB").getpixel((500, 320)) == pytest.approx((255, 255, 255), abs=8)
    report.write_text(start, encoding="utf-8")
    assert Image.open(io.BytesIO(screenshot.picture(browser, report))).size[1] == screenshot.HEIGHT
