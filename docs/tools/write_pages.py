"""Writes the site's pages as plain Markdown, with everything filled in that is made from the code.

    python docs/tools/write_pages.py

From docs/ to build/docs/, which is what mkdocs.yml names: a site generator needs nothing of this project to build it.
What has not changed is not written again, so that `zensical serve` reloads the other pages alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import mathml
import notebooks
import reference

SOURCE = reference.ROOT / "docs"
WRITTEN = reference.ROOT / "build" / "docs"
NOT_PAGES = frozenset({"figures", "plugins", "tools"})
"""Folders of docs/ that pages quote, and that make them."""


def contents() -> dict[Path, bytes]:
    """Every file of the folder, by its path there.

    Raises:
        ValueError: a page asks for something that does not exist, or has a formula that cannot be shown.
    """
    files = {}
    for file in sorted(SOURCE.rglob("*")):
        path = file.relative_to(SOURCE)
        if file.is_file() and path.parts[0] not in NOT_PAGES:
            files[path] = _page(file, file.read_text(encoding="utf-8")) if file.suffix == ".md" else file.read_bytes()
    for notebook in notebooks.notebooks():
        page = notebook.relative_to(SOURCE).with_suffix(".md")
        files[page] = _page(notebook, notebooks.as_markdown(notebook))
    return files


def _page(file: Path, text: str) -> bytes:
    """A page of the site, from the text in a file of docs/."""
    try:
        return mathml.with_mathml(reference.expanded(text)).encode()
    except Exception as error:
        place = file.relative_to(SOURCE.parent)
        raise ValueError(f"{place}: {type(error).__name__}: {error}") from error


def write(folder: Path, files: Mapping[Path, bytes]) -> None:
    """Make a folder hold these files, by their paths in it, and nothing else."""
    wanted = {folder / path: content for path, content in files.items()}
    for file in folder.rglob("*"):
        if file.is_file() and file not in wanted:
            file.unlink()
    for file, content in wanted.items():
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


if __name__ == "__main__":
    try:
        write(WRITTEN, contents())
    except ValueError as error:
        sys.exit(str(error))
