"""Runs the pages again and writes what their blocks print into them, and draws the figures anew.

    python docs/tools/regenerate.py [PAGE ...]      # all pages, where none is named; figures only with all

Nothing but what ships is needed. Only what changed by more than rounding is written.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pages

FIGURES = pages.ROOT / "docs" / "figures"


def current(markdown: str, folder: Path) -> str:
    """A page with the outputs that its blocks have now."""
    workshop, printed = pages.Workshop(folder), ""
    parts, end = [], 0
    for found, block in zip(pages.FENCE.finditer(markdown), pages.blocks(markdown), strict=True):
        if block.title == pages.OUTPUT and not pages.same(block.code, printed):
            parts += [markdown[end : found.start(3)], _shown(printed)]
            end = found.end(3)
        printed = workshop.run(block) if block.runs else ""
    return "".join([*parts, markdown[end:]])


def _shown(printed: str) -> str:
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Bring pages up to date."""
    named = [Path(name).resolve() for name in sys.argv[1:]]
    for page in named or pages.pages():
        text = page.read_text(encoding="utf-8")
        if not pages.shown(text):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = current(text, Path(folder))
        print(f"{page.relative_to(pages.ROOT)}: {'as it was' if found == text else 'brought up to date'}")
        page.write_text(found, encoding="utf-8")
    if not named:
        import figures

        FIGURES.mkdir(exist_ok=True)
        for name, svg in figures.drawn_all().items():
            (FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
            print(f"docs/figures/{name}.svg")


if __name__ == "__main__":
    main()
