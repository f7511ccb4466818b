"""What the pages show of `layerimp shrink` is what runs printed, and their tables hold the numbers of the documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rounded
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


def test_every_document_is_a_row() -> None:
    head, rows = shrunk.table()
    assert len(rows) == len(list(shrunk.RECORDS.glob("*.json")))
    shown = dict(zip(head, rows[0], strict=True))
    document = json.loads(shrunk.RECORD.read_text("utf-8"))
    small, intact = document["small"], document["intact"]
    assert shown["blocks"] == f"{small['blocks']} of {intact['blocks']}"
    assert shown["parameters"] == f"-{100 * (1 - small['parameters'] / intact['parameters']):.1f}%"
    assert shown["prefill"].startswith(f"×{document['speeds']['prefill']['factor']:.2f} ± ")
    assert shown["decoding"].startswith(f"×{document['speeds']['decoding']['factor']:.2f} ± ")
    assert shown["retained"].startswith(f"{100 * document['retained']['worst']['mean']:.1f}% ± ")
    assert shown["agreement"] == f"{100 * document['fidelity']['agreement']:.1f}%"
    assert float(shown["divergence"]) == pytest.approx(document["fidelity"]["divergence"]["mean"], rel=1e-3)


def test_a_model_that_was_not_measured_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(shrunk.RECORD.read_text("utf-8"))
    document |= {"model": "/home/me/huge", "speeds": {}, "retained": None, "fidelity": None}
    (tmp_path / "huge.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(shrunk, "RECORDS", tmp_path)
    head, (row,) = shrunk.table()
    shown = dict(zip(head, row, strict=True))
    assert (shown[""], shown["blocks"]) == ("huge", "9 of 12")
    assert [shown[name] for name in head[3:]] == ["", "", "-", "", ""]
    assert shrunk.continuations() == (shrunk.TEXTS, [])


def test_texts_are_shown_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(shrunk.RECORD.read_text("utf-8"))
    sample = document["fidelity"]["generation"]["samples"][0]
    sample |= {"prompt": "a *b* <c>", "intact": "$1 [d](e)", "text": ""}
    (tmp_path / "one.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(shrunk, "RECORDS", tmp_path)
    _, rows = shrunk.continuations()
    assert rows[0] == [r"a \*b\* &lt;c&gt;", r"\$1 \[d\](e)", "(nothing)"]


def test_rounded_weights_stand_beside_the_fewest_blocks() -> None:
    head, rows = rounded.table()
    lines = [json.loads(line) for line in rounded.distances.DATA.read_text("utf-8").splitlines()]
    assert len(rows) == 2 * len(lines)
    for line, first, second in zip(lines, rows[::2], rows[1::2], strict=True):
        (int8,) = (row for row in line["rows"] if row["by"] == "int8 weights")
        most = max(row["removed"] for row in line["rows"])
        unhealed, healed = (
            next(row for row in line["rows"] if (row["removed"], row["by"]) == (most, by))
            for by in ("block-influence", "block-influence+linear")
        )
        helps = healed["fidelity"]["divergence"]["mean"] < unhealed["fidelity"]["divergence"]["mean"]
        left = f"{line['blocks'] - most} of {line['blocks']} blocks"
        assert second[1] == (f"{left}, healed by linear" if helps else left)
        for row, measured in ((first, int8), (second, healed if helps else unhealed)):
            shown = dict(zip(head, row, strict=True))
            assert shown["agreement"] == f"{100 * measured['fidelity']['agreement']:.1f}%"
            assert float(shown["divergence"]) == pytest.approx(measured["fidelity"]["divergence"]["mean"], rel=1e-3)
