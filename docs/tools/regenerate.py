"""Runs the pages and notebooks again and writes what they show into them, and draws the figures anew.

    python docs/tools/regenerate.py [PAGE, NOTEBOOK or FIGURE ...]      # all, where none is named
    python docs/tools/regenerate.py docs/shrink/first-run.md docs/figures/ranks.svg

Nothing but what ships is needed. Of pages and notebooks, only what changed by more than rounding is written.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import notebooks
import pages

FIGURES = pages.ROOT / "docs" / "figures"


def current(markdown: str, folder: Path) -> str:
    """A page with the outputs that its blocks have now; what comes after the last output is not run."""
    workshop, printed, command, end = pages.Workshop(folder), "", "", 0
    parts = []
    fenced = list(zip(pages.FENCE.finditer(markdown), pages.blocks(markdown), strict=True))
    last = max((n for n, (_, block) in enumerate(fenced) if block.title == pages.OUTPUT), default=0)
    for place, block in fenced[: last + 1]:
        if block.title == pages.OUTPUT and not pages.same(block.code, printed, command):
            parts += [markdown[end : place.start(3)], _shown(printed)]
            end = place.end(3)
        printed, command = (workshop.run(block) if block.runs else ""), block.code
    return "".join([*parts, markdown[end:]])


def _shown(printed: str) -> str:
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    return "\n".join(lines) + "\n"


def _run_again(path: Path) -> bool:
    """Run a notebook, and write it if it shows something else than before; whether it does."""
    shown = notebooks.read(path)
    with tempfile.TemporaryDirectory() as folder:
        executed = notebooks.executed(shown, Path(folder))
    changed = not notebooks.same(shown, executed)
    if changed:
        notebooks.write(path, executed)
    return changed


def main() -> None:
    """Bring pages, and figures, up to date."""
    import figures

    named = sys.argv[1:]
    for name, draw in figures.FIGURES.items():
        if not named or f"docs/figures/{name}.svg" in named:
            (FIGURES / f"{name}.svg").write_text(draw(), encoding="utf-8")
            print(f"docs/figures/{name}.svg: drawn", flush=True)
    for page in pages.pages():
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(pages.ROOT))
        if pages.shown(text) and (not named or name in named):
            with tempfile.TemporaryDirectory() as folder:
                updated = current(text, Path(folder))
            print(f"{name}: {'as it was' if updated == text else 'brought up to date'}", flush=True)
            page.write_text(updated, encoding="utf-8")
    for path in notebooks.notebooks():
        name = str(path.relative_to(pages.ROOT))
        if not named or name in named:
            print(f"{name}: {'brought up to date' if _run_again(path) else 'as it was'}", flush=True)


if __name__ == "__main__":
    main()
