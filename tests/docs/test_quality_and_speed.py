"""The figure of quality against speed shows what was measured, with names that do not overlap."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import quality_and_speed
import reference
import shrunk
from support.pictures import drawing

OWN = {"minutes": {}}
"""What the figure reads of a document: nothing but that there is one."""


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of results, hand-made: three of layerimp's own close together, and peers that are closer."""
    lines = [
        {"by": "0 minutes", "decoding": [1.27, 0.01], "retained": [0.56, 0.01], "report": OWN},
        {"by": "30 minutes", "decoding": [1.26, 0.01], "retained": [0.81, 0.01], "report": OWN},
        {"by": "5 minutes", "decoding": [1.25, 0.01], "retained": [0.805, 0.01], "report": OWN},
        {"by": "int8 weights", "decoding": [0.98, 0.02], "retained": [0.99, None]},
        *({"by": by, "decoding": [1.25, 0.01], "retained": [0.30, 0.01]} for by in ("optipfair", "short-transformers")),
        {"by": "llm-streamline", "decoding": [1.25, 0.01], "retained": [0.302, 0.01]},
        {"by": "replaceme", "decoding": [1.25, 0.01], "retained": None},
    ]
    rows = [{"model": "smollm2-135m", **line} for line in lines]
    encoder = {"model": "minilm-sst2", "prefill": [1.5, 0.1], "retained": [0.9, 0.1], "report": OWN}
    rows += [{**encoder, "by": f"{minutes} minutes"} for minutes in (0, 5)]
    rows += [{"model": "starter", "by": "default", "decoding": [1.3, 0.01], "retained": [0.9, 0.01], "report": OWN}]
    path = tmp_path / "shrink.jsonl"
    path.write_text("".join(json.dumps(row | {"setting": ""}) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(shrunk, "STORE", path)
    return path


def test_a_model_with_several_rows_has_a_panel(keep: Path) -> None:
    minilm, smollm2 = quality_and_speed.panels()
    assert (minilm.model, minilm.speed, len(minilm.points)) == ("MiniLM on SST-2", "prefill", 2)
    assert (smollm2.model, smollm2.speed) == ("SmolLM2-135M", "decoding")
    assert [(each.name, each.speed, each.retained, each.ours) for each in smollm2.points[:4]] == [
        ("shrink, 0 min", 1.27, 0.56, True),
        ("shrink, 5 min", 1.25, 0.805, True),
        ("shrink, 30 min", 1.26, 0.81, True),
        ("int8 weights", 0.98, 0.99, False),
    ]
    assert "ReplaceMe" not in [each.name for each in smollm2.points]


def test_every_name_stands_by_itself(keep: Path) -> None:
    svg = quality_and_speed.picture()
    words, _ = drawing(svg)
    assert words.count("intact") == 2
    for panel in quality_and_speed.panels():
        assert f"{panel.model}: retained" in words
        assert {each.name for each in panel.points} <= set(words)
    corners = [
        (float(x), float(y), len(text))
        for x, y, text in re.findall(r"<text [^>]*?(?:translate\(|x=\")([\d.]+)\"?[ ,y=\"]+([\d.]+)[^>]*>([^<]+)<", svg)
    ]
    assert len(corners) == len(words)
    for (x, y, length), (other_x, other_y, other) in itertools.combinations(corners, 2):
        beside = x + 7.5 * length < other_x or other_x + 7.5 * other < x
        assert beside or abs(y - other_y) >= 12


def test_a_maker_has_one_marker_in_all_panels() -> None:
    def panel(*names: str) -> quality_and_speed.Panel:
        points = [quality_and_speed.Point(name, 1.2, 0, 0.9, 0, ours=name.startswith("shrink")) for name in names]
        return quality_and_speed.Panel("", "decoding", points)

    shown = [panel("shrink, 0 min", "optipfair", "int8 weights"), panel("int8 weights", "ReplaceMe", "optipfair")]
    first, second, third, *_ = quality_and_speed.MARKERS
    assert quality_and_speed.markers_of(shown) == {"optipfair": first, "int8 weights": second, "ReplaceMe": third}


def test_without_enough_results_there_is_no_figure(keep: Path) -> None:
    keep.write_text(keep.read_text("utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert quality_and_speed.panels() == []
    assert reference.expanded("a\n\n<!-- generated: shrunk figure -->\n\nb") == "a\n\n\n\nb"
    keep.unlink()
    assert reference.expanded("<!-- generated: shrunk figure -->") == ""
    assert shrunk.table()[1] == []


def test_places_are_apart_and_near_what_is_wanted() -> None:
    assert quality_and_speed.spread([10, 50, 90], 15, 0, 100) == [10, 50, 90]
    assert quality_and_speed.spread([10, 12, 14], 15, 0, 100) == [10, 25, 40]
    assert quality_and_speed.spread([95, 96, 97], 15, 0, 100) == [70, 85, 100]
    assert quality_and_speed.spread([-20], 15, 0, 100) == [0]
    assert quality_and_speed.spread([], 15, 0, 100) == []
