"""The page on seams shows the current drawing."""

from __future__ import annotations

import anatomy
import pages
from support.pictures import alike


def test_the_drawing_is_current() -> None:
    shown = (pages.ROOT / "docs" / "figures" / "seams.svg").read_text(encoding="utf-8")
    assert alike(shown, anatomy.picture()), "python docs/tools/regenerate.py docs/figures/seams.svg"
