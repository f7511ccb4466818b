"""The notebooks among the pages run, and what they show is current."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import notebooks
import pages
import pytest

ROOT = pages.ROOT
NOTEBOOKS = notebooks.notebooks()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
@pytest.mark.slow
def test_what_a_notebook_shows_is_current(path: Path, tmp_path: Path) -> None:
    shown = notebooks.read(path)
    nbformat.validate(shown)
    executed = notebooks.executed(shown, tmp_path)
    nbformat.validate(executed)
    page = path.relative_to(ROOT)
    assert notebooks.same(shown, executed), f"python docs/tools/regenerate.py {page} brings up to date"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_a_notebook_is_a_page(path: Path) -> None:
    page = notebooks.as_markdown(path)
    assert page.startswith("# ")
    assert page.count("```python") == sum(cell["cell_type"] == "code" for cell in notebooks.read(path)["cells"])
    assert "<table" in page
    assert "<style" not in page
    assert f"]({path.name})" in page
    assert f"{path.parent.name}/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text()


def made(*sources: str) -> notebooks.Notebook:
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [empty | {"id": f"cell-{n}", "source": source} for n, source in enumerate(sources)]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


SHOWN = """
class Shown:
    def _repr_html_(self):
        return "<style>b</style><table><tr><td>a &lt; 0.25</td></tr></table>"
    def __repr__(self):
        return "Shown()"
"""


def test_cells_run_as_in_jupyter(tmp_path: Path) -> None:
    executed = notebooks.executed(made("x = 1\nprint(x)\nx + 1", "x", "x = 3", SHOWN + "Shown()", ""), tmp_path)
    nbformat.validate(executed)
    outputs = [cell["outputs"] for cell in executed["cells"]]
    assert [output["output_type"] for output in outputs[0]] == ["stream", "execute_result"]
    assert outputs[0][0]["text"] == ["1\n"]
    assert outputs[0][1]["data"] == {"text/plain": ["2"]}
    assert outputs[1][0]["data"] == {"text/plain": ["1"]}
    assert outputs[2] == outputs[4] == []
    assert outputs[3][0]["data"].keys() == {"text/html", "text/plain"}
    assert [cell["execution_count"] for cell in executed["cells"]] == [1, 2, 3, 4, 5]
    with pytest.raises(ZeroDivisionError):
        notebooks.executed(made("1 / 0"), tmp_path)


def test_outputs_are_compared_but_for_rounding(tmp_path: Path) -> None:
    shown = notebooks.executed(made(SHOWN + "Shown()", "print(1.25)"), tmp_path)
    assert notebooks.same(shown, shown)
    for new, expected in (("a &lt; 0.26", True), ("a &lt; 0.28", False), ("b &lt; 0.25", False)):
        other = copy.deepcopy(shown)
        other["cells"][0]["outputs"][0]["data"]["text/html"] = [f"<table><tr><td>{new}</td></tr></table>"]
        assert notebooks.same(shown, other) == expected, new


def test_a_page_shows_tables_and_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.ipynb"
    notebooks.write(path, notebooks.executed(made(SHOWN + "Shown()", "print(1.25)"), tmp_path))
    page = notebooks.as_markdown(path)
    assert "<table><tr><td>a &lt; 0.25</td></tr></table>" in page
    assert '```text title="Output"\n1.25\n```' in page
