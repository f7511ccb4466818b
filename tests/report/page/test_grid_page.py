"""The page of a grid: its content."""

from __future__ import annotations

import json
import re

from support.made_up_grids import downloads, part, pictures, words

from layerimp.fidelity.record import Fidelity, Generation, Sample
from layerimp.recipe import ComponentSpec
from layerimp.report.document import Failure, Results
from layerimp.report.page import page
from layerimp.report.tables import as_csv

SECTIONS = (
    "Quality of the pruned model",
    "What is retained",
    "How many blocks may go",
    "Importance of each block",
    "Rank agreement",
    "Stability",
)
SECTIONS += ("Cost", "Removed blocks", "Differences", "How this was made", "Data")


def test_each_model_has_every_section_in_order(document: str) -> None:
    for section in document.split('<section class="model"')[1:]:
        titles = re.findall(r"<h[23][^>]*>([^<]*)</h[23]>", section)
        assert [title for title in titles if title in SECTIONS[:-2]] == list(SECTIONS[:-2])
    assert document.count('<section class="model"') == 2
    assert document.index("<h2>Failures") < document.index("<h2>How this was made") < document.index("<h2>Data")


def test_charts_have_their_numbers_as_text(grid: Results, document: str) -> None:
    shown = pictures(document)
    assert len(shown) == 2
    assert all(alt.startswith("Curves of what is retained") and alt.endswith(".") for alt, _ in shown)
    model = grid.models["tiny"]
    retained = words(part(document, "What is retained"))
    for row in model.headlines:
        for entry in row.entries.values():
            assert f"{entry.value.mean:.1%}" in retained
    agreement = words(part(document, "Rank agreement"))
    for tau in model.agreement.values():
        assert tau is None or f"{tau:.2f}".replace("-", "−") in agreement
    stability = words(part(document, "Stability"))
    for each in (removal.stability for removal in model.removals if removal.stability):
        assert f"{each.jaccard:.2f} {each.same:.0%} equal" in stability
    cost = words(part(document, "Cost"))
    for scored in model.scored.values():
        assert scored.cost is None or f"{scored.cost:.3g}" in cost
    importance = part(document, "Importance of each block")
    assert importance.count(" title=") == len(model.scored) * model.num_blocks
    assert re.search(r'title="avss, block 4: score [^,]*, rank 0\.\d\d"', importance)
    assert re.search(r'title="gbis, block \d+: \d+% removed"', part(document, "Removed blocks"))


def test_pictures_share_no_ids_and_keep_no_fixed_colours(document: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', document)
    assert len(ids) == len(set(ids))
    for _, picture in pictures(document):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', picture)) <= set(ids)
        assert not re.search(r"#[0-9a-f]{6}", re.sub(r"#m\d[^\")]*", "", picture))
        assert "var(--ink)" in picture or "var(--muted)" in picture


def test_nothing_is_fetched(document: str) -> None:
    addresses = re.findall(r'(?:src|href)="([^"]*)"', document)
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)|<script", document)


def test_downloads_are_the_tables_and_the_findings(grid: Results, document: str) -> None:
    files = downloads(document)
    assert files["results.csv"].decode() == as_csv(grid)
    content = json.loads(files["results.json"])
    assert content["models"]["tiny"]["num_blocks"] == 12
    assert content["models"]["tiny"]["scored"]["depth"]["cost"] == 0
    assert content["request"]["repeats"] == 4
    assert Results.model_validate(content).models["tiny"].headlines == grid.models["tiny"].headlines


def test_what_no_other_beats_is_bold(grid: Results, document: str) -> None:
    best = [label for _, row in grid.everything for label in row.best]
    bars = [label for model in grid.models.values() for row in model.headlines for label in row.best]
    tables = re.sub(r"<p class=.note.>.*?</p>", "", document)
    assert tables.count('<span class="first">') == len(best) + len(bars) > 0


def test_failures_are_told_and_escaped(document: str) -> None:
    text = words(document)
    assert "&lt;script&gt;alert(&#39;reason&#39;)&lt;/script&gt; out of memory" in text
    assert "score tiny by lrp (seed 0)" in text
    assert "8 failed" in text


def test_no_folder_of_this_machine_is_shown(grid: Results) -> None:
    home = "/home/ann/my work"
    recipe = grid.design.models["tiny"]
    text = recipe.calibration.model_copy(update={"source": f"task:{home.replace(' ', '')}/mood.yaml"})
    recipe = recipe.model_copy(update={"model": f"{home}/big-model", "calibration": text})
    scorers = {"mine": ComponentSpec(name="mine", options={"file": "/home/ann/weights.pt"})}
    design = grid.design.model_copy(
        update={
            "models": grid.design.models | {"tiny": recipe},
            "measured": grid.design.measured | {"tiny": ["/home/ann/tasks/mood.yaml", "org/name"]},
            "scorers": grid.design.scorers | scorers,
        }
    )
    error = f"cannot read '{home}/x.bin' (/home/ann/lib/plugin.py, line 3)"
    changed = grid.model_copy(
        update={
            "failures": [Failure(what="score /home/ann/a/b by x", error=error)],
            "notes": ["the text /home/ann/text.jsonl is short"],
            "design": design,
        }
    )
    document = page(changed)
    text = words(document)
    assert "ann" not in re.findall(r"\w+", text)
    assert "my work" not in text
    for left in ("big-model", "task:mood.yaml", "cannot read", "x.bin", "(plugin.py, line 3)", "text.jsonl is short"):
        assert left in text
    for left in ("mood.yaml and org/name", "score b by x", "file weights.pt"):
        assert left in text
    data = downloads(document)["results.json"].decode()  # a page is sent to others, and so are its data
    assert "x.bin" in data
    assert "/home/ann" not in data


def test_what_models_write_stays_whole(grid: Results) -> None:
    written = {"prompt": "either/or", "chat": False, "intact": "the /etc/hosts file", "text": "km/h /usr/bin/env"}
    generation = Generation(
        same_tokens=1, empty=0, loops=0, intact_empty=0, intact_loops=0, samples=[Sample.model_validate(written)]
    )
    fidelity = Fidelity(generation=generation, missing={"copying": "no /home/ann/text.jsonl"})
    tiny = grid.models["tiny"]
    first, *others = tiny.removals
    models = [first.models[0].model_copy(update={"fidelity": fidelity}), *first.models[1:]]
    tiny = tiny.model_copy(update={"removals": [first.model_copy(update={"models": models}), *others]})
    document = page(grid.model_copy(update={"models": grid.models | {"tiny": tiny}}))
    stored = json.loads(downloads(document)["results.json"])["models"]["tiny"]["removals"][0]["models"][0]["fidelity"]
    assert stored["generation"]["samples"] == [written]
    assert stored["missing"] == {"copying": "no text.jsonl"}


def test_the_document_is_always_the_same(grid: Results, document: str) -> None:
    assert page(grid) == document
