"""Grids whose models lack seams as well."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.grids import BLOCKS, computed, findings, row
from support.made_up_grids import part
from support.published import checked

from layerimp.bench.cells import Cell, Result
from layerimp.bench.store import Store
from layerimp.report.page import page


def _with_seams(cell: Cell) -> Result:
    """As always, but `avss` scores a seam as well, and least."""
    if cell.kind == "scoring" and cell.content["scorer"] == "avss":
        scores = [float(block) for block in range(BLOCKS)]
        return dict(computed(cell)) | {"scores": [*scores, -1.0], "blocks": [*range(BLOCKS), "4/5"]}
    if cell.kind == "evaluation" and "4/5" in cell.content["blocks"]:
        content = dict(cell.content) | {"blocks": [4 if step == "4/5" else step for step in cell.content["blocks"]]}
        return computed(replace(cell, content=content))
    return computed(cell)


def test_a_grid_holds_seams(tmp_path: Path) -> None:
    results = findings(tmp_path, _with_seams, counts=[1, 2], ratios=[], repeats=2)
    model = results.models["one"]
    assert model.num_blocks == BLOCKS
    removed = model.removed["lowest", 2, "avss"]
    assert [pruned.blocks for pruned in removed.models] == [["4/5", 0]] * 2
    assert removed.stability
    assert removed.stability.same == 1
    assert model.scored["avss"].steps == [0, 1, 2, 3, 4, "4/5", 5, 6, 7], "what a scorer scored stays"
    assert model.scored["gbis"].steps == model.steps == list(range(BLOCKS)), "what all scored is compared"
    assert row(results, "mood", 2).entries["avss"].values == pytest.approx([0.9 - 6 / 100] * 2)
    document = json.dumps(results.model_dump(mode="json"), allow_nan=False)
    assert checked(document)
    assert document.count('"blocks": ["4/5", 0]') == 2
    whole = page(results)
    assert whole.count("A block of which a half goes, with a seam, counts half.") == 1
    assert "avss, block 4: 50% removed" in whole
    with Store(tmp_path, write=False) as store:
        names = {name for (name,) in store._connection.execute("SELECT name FROM cells WHERE kind = 'evaluation'")}
    assert {"evaluate mood on one without seam 4/5", "evaluate mood on one without 0, 4/5"} < names


def _all_cuts(cell: Cell) -> Result:
    """As always, but every scorer scores all seams as well, and most of all but one; no seam costs anything."""
    if cell.kind == "scoring":
        assert cell.content["cuts"] == "all"
        result = dict(computed(cell))
        steps = [step for block in range(BLOCKS) for step in (block, f"{block}/{block + 1}")][:-1]
        scores = [result["scores"][step] if isinstance(step, int) else 20.0 for step in steps]
        scores[steps.index("4/5")] = -1.0
        return result | {"scores": scores, "blocks": steps}
    content = dict(cell.content)
    if cell.kind == "evaluation":
        content["blocks"] = [step for step in content["blocks"] if isinstance(step, int)]
    return computed(replace(cell, content=content))


def test_a_grid_of_all_cuts(tmp_path: Path) -> None:
    results = findings(tmp_path, _all_cuts, counts=[1, 2], ratios=[], repeats=2, cuts="all")
    model = results.models["one"]
    steps = model.scored["avss"].steps
    assert (model.num_blocks, len(steps), steps[:3]) == (BLOCKS, 2 * BLOCKS - 1, [0, "0/1", 1])
    assert {len(scores) for scored in model.scored.values() for scores in scored.scores} == {len(steps)}
    assert [pruned.blocks[0] for pruned in model.removed["lowest", 2, "avss"].models] == ["4/5"] * 2
    document = results.model_dump(mode="json")
    text = json.dumps(document, allow_nan=False)
    assert checked(text)
    assert document["models"]["one"]["scored"]["avss"]["steps"] == list(steps)
    assert document["request"]["cuts"] == "all"
    whole = page(results)
    assert re.search(r'"avss, seam 4/5: score -1[^,]*, rank 0.00"', whole)
    chart = part(whole, "Importance of each block")
    assert chart.count("<td") == len(model.scored) * len(steps) + 1
    assert "Between two blocks stands the seam that lies there." in chart
    assert "<dt>Cuts</dt>" in whole
