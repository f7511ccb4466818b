"""Takes the picture of a report page in chromium: `python docs/tools/screenshot.py`.

The page is that of the grid on "Read a report", which runs again for it.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pages
from PIL import Image

PAGE = pages.ROOT / "docs" / "measure" / "read-a-report.md"
PICTURE = PAGE.with_name("report-page.webp")
WIDTH, HEIGHT = 1000, 1600
"""In pixels: the window, of which the picture shows what stands above the first part with tables."""
END = "h3"


def picture(browser: Any, report: Path) -> bytes:
    """Return the beginning of a report page as WebP: its question and its answers.

    Args:
        browser: A running browser of Playwright.
        report: The page.
    """
    shown = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    shown.goto(report.resolve().as_uri())
    end = shown.locator(END).first.bounding_box() if shown.locator(END).count() else None
    taken = shown.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": min(end["y"], HEIGHT) if end else HEIGHT})
    shown.close()
    file = io.BytesIO()
    Image.open(io.BytesIO(taken)).convert("RGB").save(file, "WEBP", quality=85, method=6)
    return file.getvalue()


def grid() -> pages.Block:
    """Return the command of the page that makes its grid."""
    (block,) = (
        candidate for candidate in pages.blocks(PAGE.read_text("utf-8")) if candidate.code.startswith("layerimp bench")
    )
    return block


def main() -> None:
    """Run the grid, and take its picture."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        sys.exit("docs/tools/screenshot.py needs chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages.Workshop(Path(folder)).run(grid())
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        PICTURE.write_bytes(picture(browser, Path(folder) / "grid" / "report.html"))
        browser.close()


if __name__ == "__main__":
    main()
