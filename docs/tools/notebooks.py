"""The notebooks among the pages: what their cells give, and the same as Markdown for the site.

A cell runs as in Jupyter: what it prints is shown, and then the value of its last line, as HTML where it has that.
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages

Notebook = dict[str, Any]
"""A notebook as its file holds it (nbformat 4)."""
LIMIT = re.compile(r"limit\W+(\d+)")
_TABLE = re.compile(r"<table.*?</table>", re.DOTALL)


def notebooks() -> list[Path]:
    """All notebooks among the pages."""
    return sorted((pages.ROOT / "docs").rglob("*.ipynb"))


def read(path: Path) -> Notebook:
    """A notebook's content."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def write(path: Path, notebook: Notebook) -> None:
    """Write a notebook as Jupyter does."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def executed(notebook: Notebook, folder: Path) -> Notebook:
    """The notebook with what its cells give now, run in a folder, one after the other, in this process."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    with contextlib.chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                outputs = list(_outputs("".join(cell["source"]), scope, count))
                cell = cell | {"execution_count": count, "outputs": outputs}
            cells.append(cell)
    return notebook | {"cells": cells}


def _outputs(code: str, scope: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """What a cell prints, and what its last line comes to."""
    tree, value = ast.parse(code), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "<cell>", "exec"), scope)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), scope)
    if printed.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())}
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": _lines(value._repr_html_())} | data
        yield {"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def same(shown: Notebook, rerun: Notebook) -> bool:
    """Whether two executions of a notebook say the same, but for rounding; see `pages.same`."""
    pairs = list(zip(shown["cells"], rerun["cells"], strict=True))
    limit = LIMIT.search("".join(line for cell in shown["cells"] for line in cell["source"]))
    command = f"--limit {limit[1]}" if limit else ""
    return all(pages.same(_told(before), _told(after), command) for before, after in pairs)


def _told(cell: dict[str, Any]) -> str:
    """The words and numbers of a cell's outputs."""
    return "\n".join(html.unescape(re.sub(r"<[^>]*>", " ", text)) for text, _ in _shown(cell))


def _shown(cell: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """What a reader sees of each output of a cell, and whether it is HTML: of that the table alone, without styles."""
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        if "text/html" in data:
            yield "\n\n".join(_TABLE.findall("".join(data["text/html"]))), True
        else:
            yield "".join(output.get("text") or data["text/plain"]), False


def as_markdown(path: Path) -> str:
    """A notebook as a page of the site, with a link to itself."""
    parts = []
    for cell in read(path)["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for text, is_html in _shown(cell):
            parts.append(text if is_html else f'```text title="Output"\n{text.rstrip()}\n```')
    return "\n\n".join([*parts, f"[This page as a notebook]({path.name})"]) + "\n"
