"""The report of a grid: its content, special cases, and rendering in a browser."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerimp.bench.cell_graph import Chooser, Entrant, Layout, Measure, Mender, Subject
from layerimp.bench.cells import Cell
from layerimp.bench.findings import find
from layerimp.bench.grid import Grid
from layerimp.bench.store import Record
from layerimp.evaluation.packing import packed
from layerimp.evaluator import Likelihood, Metric
from layerimp.pipeline.resolve import resolve
from layerimp.recipe import ComponentSpec
from layerimp.report.findings import Contender, Findings
from layerimp.report.formats import as_csv
from layerimp.report.html.page import page
from layerimp.report.html.svg import looks

BASELINES = ("random", "depth", "block-influence")
SECTIONS = (
    "Quality of the pruned model",
    "What is retained",
    "How many blocks may go",
    "Importance of each block",
    "Rank agreement",
    "Stability",
)
SECTIONS += ("Cost", "Removed blocks", "Differences", "How this was made", "Data")


def layout_of(
    models: Sequence[str],
    scorers: Sequence[str],
    tasks: Sequence[str],
    pruners: Sequence[str],
    baselines: Sequence[str] = BASELINES,
    **grid: Any,
) -> Layout:
    named = {name: ComponentSpec(name=name) for name in scorers}
    company = {name: ComponentSpec(name=name) for name in baselines}
    made = Grid(models=list(models), scorers=named, baselines=company, pruners=list(pruners), tasks=("arc",), **grid)
    measures = tuple(Measure(evaluator="harness", task=task, tag=task) for task in tasks)
    return Layout(
        grid=made,
        models={m: Subject(recipe=resolve(made.recipe(m)), identity=m, text=m, measures=measures) for m in models},
        scorers={
            label: Entrant(spec=spec, blind=label in ("random", "depth"), seeded=label == "random", code="")
            for label, spec in (named | company).items()
        },
        pruners={label: Chooser(spec=spec, nested=True, code=label) for label, spec in made.pruners.items()},
        healers={label: Mender(spec=spec, code=label) for label, spec in made.healers.items()},
    )


class World:
    """Makes up results: later blocks matter less, and the quality falls with what is removed."""

    def __init__(self, num_blocks: int, infinite: bool = False) -> None:
        self.num_blocks, self.infinite = num_blocks, infinite
        self.plans: dict[str, list[float]] = {}

    def truth(self, block: int) -> float:
        return 0.15 + abs(math.sin(1.7 * block)) * 0.5 + (1.2 if block in (0, self.num_blocks - 1) else 0)

    def result(self, cell: Cell) -> Mapping[str, Any]:
        draw = random.Random(cell.key)
        if cell.kind == "scoring":
            noise = {"random": 9.0, "depth": 0.0}.get(cell.scorer, 0.05 + (sum(map(ord, cell.scorer)) % 7) * 0.07)
            right = 0 if cell.scorer in ("random", "depth") else 1
            scores = [
                right * self.truth(n) + draw.gauss(0, noise) - (0.1 * n if cell.scorer == "depth" else 0)
                for n in range(self.num_blocks)
            ]
            self.plans[cell.key] = scores
            return {"scores": scores, "blocks": {}, "columns": [], "notes": [], "spans": {}}
        if cell.kind == "planning":
            scores = self.plans[cell.content["scoring"]]
            order = sorted(range(self.num_blocks), key=lambda n: scores[n])
            if cell.content["pruner"] != "lowest":
                order = order[1:] + order[:1]
            return {"blocks": order[: cell.content["count"]]}
        if cell.kind == "costing":
            return {"bare_passes": 1.1 * 2.3 ** (sum(map(ord, cell.scorer)) % 6), "seconds": 1.0}
        blocks = cell.content["blocks"]
        whole = sum(map(self.truth, range(self.num_blocks)))
        left = 1 - sum(map(self.truth, blocks)) / whole
        healing = {}
        if "healing" in cell.content:
            left += (1 - left) * draw.uniform(0.2, 0.5)
            gap = {"gap": "a gap", "removed": blocks, "done": "half", "why": "", "numbers": {}}
            healing = {"healing": {"gaps": [gap], "loss": {}, "accuracy": None, "recovered": 0.3}}
        task = cell.content["task"]
        right = round(800 * left**2)
        metrics = [
            Metric(task, "acc", right / 1000, 0.01, floor=0.1, documents=(1.0,) * right + (0.0,) * (1000 - right))
        ]
        if task.startswith("wiki"):
            loss = math.inf if self.infinite and blocks else 2.5 + 3 * (1 - left)
            totals = tuple(-50 * loss + (-1) ** n for n in range(40))
            likelihood = Likelihood(totals, (50.0,) * 40, (-400.0,) * 40)
            metrics = [Metric("wikitext", "word_perplexity", math.exp(loss), 0.1, False, likelihood=likelihood)]
        size = self.num_blocks - len(blocks)
        sizes = {"blocks": size, "parameters": 10**6 * (size + 3), "bytes": 4 * 10**6}
        return {**packed(metrics), "size": sizes, **healing}


def found_of(
    models: Sequence[str] = ("tiny",),
    scorers: Sequence[str] = ("avss", "gbis", "lrp", "cim"),
    tasks: Sequence[str] = ("arc_easy", "boolq", "wikitext"),
    pruners: Sequence[str] = ("lowest",),
    num_blocks: int = 12,
    infinite: bool = False,
    fails: str = "",
    only: Sequence[str] = ("scoring", "planning", "evaluation", "costing"),
    **grid: Any,
) -> Findings:
    """Findings of made-up results: cells whose name holds `fails` fail, and those not `only` stay open."""
    layout = layout_of(models, scorers, tasks, pruners, **{"counts": (1,), "ratios": (0.25, 0.5), "repeats": 4, **grid})
    world, records = World(num_blocks, infinite), dict[str, Record]()
    while True:
        results = {key: record.result for key, record in records.items() if record.result is not None}
        cells = {key: cell for model in layout.models for key, cell in layout.cells(results.get, model).items()}
        fresh = {key: cell for key, cell in cells.items() if key not in records and cell.kind in only}
        if not fresh:
            return find(layout, records)
        for key, cell in fresh.items():
            failed = fails and fails in str(cell)
            error = "<script>alert('reason')</script> out of memory" if failed else ""
            records[key] = Record(None if failed else world.result(cell), error, 1.5, 1, "layerimp 0, torch 2")


def without_pictures(document: str) -> str:
    return re.sub(r"<svg.*?</svg>|<style.*?</style>|data:[^\"]*", "", document, flags=re.DOTALL)


def words(document: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", without_pictures(document)).replace("\N{NO-BREAK SPACE}", " ").split())


def pictures(document: str) -> list[tuple[str, str]]:
    """The alternative text and the content of each picture."""
    found = re.findall(r'<svg [^>]*role="img" aria-label="([^"]*)">(.*?)</svg>', document, flags=re.DOTALL)
    assert len(found) == document.count("<svg")
    return found


def downloads(document: str) -> dict[str, bytes]:
    found = re.findall(r'href="data:[^;]+;charset=utf-8;base64,([^"]*)" download="([^"]*)"', document)
    return {name: base64.b64decode(content) for content, name in found}


@pytest.fixture(scope="module")
def found() -> Findings:
    return found_of(models=("tiny", "other"), fails="by lrp")


@pytest.fixture(scope="module")
def document(found: Findings) -> str:
    return page(found)


def test_each_model_has_every_section_in_order(document: str) -> None:
    for part in document.split('<section class="model"')[1:]:
        titles = re.findall(r"<h[23][^>]*>([^<]*)</h[23]>", part)
        assert [title for title in titles if title in SECTIONS[:-2]] == list(SECTIONS[:-2])
    assert document.count('<section class="model"') == 2
    assert document.index("<h2>Failures") < document.index("<h2>How this was made") < document.index("<h2>Data")


def test_pictures_say_in_words_what_they_show(found: Findings, document: str) -> None:
    shown = pictures(document)
    assert len(shown) == 2 * 7
    assert all(re.search(r"\d", alt) and len(alt) > 60 and alt.endswith(".") for alt, _ in shown)
    row = next(r for r in found.models["tiny"].headlines if r.ratio == 0.5)
    best = max(row.entries.values(), key=lambda entry: entry.value.mean)
    assert f"at 50% from {best.label} with {best.value.mean:.1%}" in shown[0][0]


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


def test_downloads_are_the_tables_and_the_findings(found: Findings, document: str) -> None:
    files = downloads(document)
    assert files["bench.csv"].decode() == as_csv(found)
    content = json.loads(files["bench.json"])
    assert content["models"]["tiny"]["num_blocks"] == 12
    assert content["models"]["tiny"]["scorers"]["depth"]["cost_in_bare_passes"] == 0
    assert content["grid"]["repeats"] == 4


def test_ranks_become_bold_and_underlined(found: Findings, document: str) -> None:
    ranks = [entry.rank for model in found.models.values() for row in model.rows for entry in row.entries.values()]
    tables = re.sub(r"<p class=.note.>.*?</p>", "", document)
    assert tables.count('<span class="first">') == ranks.count(1)
    assert tables.count('<span class="second">') == ranks.count(2)


def test_failures_are_told_and_escaped(document: str) -> None:
    said = words(document)
    assert "&lt;script&gt;alert(&#39;reason&#39;)&lt;/script&gt; out of memory" in said
    assert "score tiny by lrp (seed 0)" in said
    assert "8 failed" in said


def test_no_folder_of_this_machine_is_shown(found: Findings) -> None:
    home = "/home/ann/my work"
    recipe = found.design.models["tiny"]
    text = recipe.calibration.model_copy(update={"source": f"task:{home.replace(' ', '')}/mood.yaml"})
    recipe = recipe.model_copy(update={"model": f"{home}/big-model", "calibration": text})
    scorers = {"mine": ComponentSpec(name="mine", options={"file": "/home/ann/weights.pt"})}
    told = replace(
        found,
        failures=[("score /home/ann/a/b by x", f"cannot read '{home}/x.bin' (/home/ann/lib/plugin.py, line 3)")],
        notes=["the text /home/ann/text.jsonl is short"],
        design=replace(
            found.design,
            models=found.design.models | {"tiny": recipe},
            measured=found.design.measured | {"tiny": ["/home/ann/tasks/mood.yaml", "org/name"]},
            scorers=found.design.scorers | scorers,
        ),
    )
    document = page(told)
    said = words(document)
    assert "ann" not in re.findall(r"\w+", said)
    assert "my work" not in said
    for left in ("big-model", "task:mood.yaml", "cannot read", "x.bin", "(plugin.py, line 3)", "text.jsonl is short"):
        assert left in said
    for left in ("mood.yaml and org/name", "score b by x", "file weights.pt"):
        assert left in said
    assert f"{home}/x.bin" in downloads(document)["bench.json"].decode()  # the data say all


def test_the_document_is_always_the_same(found: Findings, document: str) -> None:
    assert page(found) == document


def test_names_cannot_act() -> None:
    evil = '</title><script>alert("$x$")</script>&'
    found = found_of(tasks=(evil,))
    model = found.models["tiny"]
    design = replace(
        found.design,
        models={evil: found.design.models["tiny"]},
        measured={evil: [evil]},
        scorers={evil: found.design.scorers["avss"]},
    )
    changed = replace(
        model,
        label=evil,
        scored={evil: model.scored["avss"]},
        pruned={(p, r, evil): each for (p, r, s), each in model.pruned.items() if s == "avss"},
        removable={(p, evil): each for (p, s), each in model.removable.items() if s == "avss"},
        stability={(p, r, evil): each for (p, r, s), each in model.stability.items() if s == "avss"},
        rows=[
            replace(
                row,
                task=evil,
                entries={evil: replace(row.entries["avss"], contender=Contender(evil))},
                baselines={"": evil},
            )
            for row in model.rows
        ],
    )
    document = page(replace(found, design=design, models={evil: changed}, failures=[(evil, evil)], versions=[evil]))
    assert "<script" not in document
    assert document.count("&lt;script&gt;") > 20


def test_healed_models_are_told_from_the_others() -> None:
    found = found_of(healers=["linear", "rescale"])
    styles = looks(list(found.design.scorers), found.design.baselines, found.design.healers)
    assert list(styles) == list(found.design.contenders)
    assert len(set(map(repr, styles.values()))) == len(styles)
    assert styles["avss+linear"].colour == styles["avss"].colour != styles["gbis"].colour
    document = page(found)
    said = words(document)
    assert "what is left is measured, as it is and healed by linear and rescale." in said
    assert "best baselines: " in said
    assert "What is healed is compared with what the same healer made of random and of the baselines." in said
    assert re.search(r"(than|from) random\+(linear|rescale)", said)
    assert "Healers linear rescale" in said
    table = document.split("<h3>Healing</h3>")[1].split("</table>")[0]
    assert table.count('<th scope="row">') == len(found.models["tiny"].headlines) * 2 * len(found.design.scorers)
    assert words(table).count("30.0%") >= 3 * 2 * len(found.design.scorers)
    assert pictures(document)[0][0].startswith("Line chart of what 7 scorers, healed and not, retain: ")
    assert "avss+linear" in pictures(document)[0][1]
    assert pictures(document)[1][0].startswith("Bars of how many of 12 blocks may go. While 95% is retained: ")
    assert "avss+linear" in pictures(document)[1][1]
    # Scores and removed blocks exist only for scorers, not for scorers with healers.
    assert all("+" not in picture for _, picture in pictures(document)[2:])
    assert "heal" not in words(page(found_of())).lower()


def answer(**grid: Any) -> str:
    return words(page(found_of(**grid)).split('<section class="model"')[1].split("Quality of the pruned model")[0])


def test_the_answer_says_who_and_whether_that_means_anything() -> None:
    assert "one draw of calibration text" in words(page(found_of(repeats=1)))
    said = answer(scorers=("gbis",))
    assert re.search(r"retains? most at", said)
    assert re.search(r"(Cannot be told apart from|Significantly better than) random \([+−][\d.]+ points, 95 % CI", said)
    alone = answer(scorers=("gbis",), baselines=("depth",), tasks=("wikitext",), repeats=1)
    assert "Significantly better than the best baseline, depth" in alone
    assert "There is no random baseline to compare with." in alone
    assert "all scorers retain the same at every ratio" in answer(infinite=True, tasks=("wikitext",))
    nobody = answer(scorers=("gbis",), baselines=("random",), pruners=("lowest", "greedy"))
    assert "With the pruner greedy, " in nobody
    assert "No other baseline retains more than random." in nobody


EMPTY: dict[str, dict[str, Any]] = {
    "one repeat": {"repeats": 1},
    "one ratio": {"counts": (), "ratios": (0.25,)},
    "no baselines": {"scorers": ("avss",), "baselines": ()},
    "infinite": {"infinite": True},
    "all infinite": {"infinite": True, "tasks": ("wikitext",)},
    "nothing": {"only": ()},
    "nothing evaluated": {"only": ("scoring", "planning")},
    "only scores": {"only": ("scoring",)},
    "all failed": {"fails": " "},
    "evaluation failed": {"fails": "evaluate"},
    "few cells failed": {"fails": "without block 2", "num_blocks": 6},
    "two blocks": {"num_blocks": 2, "ratios": ()},
    "two healers": {"healers": ["linear", "rescale"]},
    "healing failed": {"healers": ["linear"], "fails": "healed by linear"},
    "healed partly": {"healers": ["linear"], "fails": "healed by linear (seed 1)"},
    "same counts": {"ratios": (0.1,)},
    "two pruners": {"pruners": ("lowest", "greedy")},
    "many": {
        "scorers": [f"scorer-{n}-with-a-rather-long-name" for n in range(12)],
        "num_blocks": 40,
        "counts": (),
        "ratios": (0.25,),
    },
}


@pytest.mark.parametrize("case", EMPTY)
def test_no_case_is_too_empty_or_too_full(case: str) -> None:
    document = page(found_of(**EMPTY[case]))
    assert all(alt for alt, _ in pictures(document))
    assert not re.search(r"\b(nan|None|inf)\b", words(document))


def test_a_model_without_findings_is_named() -> None:
    assert "Nothing is known of this model yet." in words(page(found_of(only=())))
    assert "It is not known yet what is retained" in words(page(found_of(only=("scoring", "planning"))))
    assert "At least two repeats are needed" in words(
        page(found_of(repeats=1, scorers=("avss",), ratios=(), only=("scoring",)))
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(browser: Any, document: str, tmp_path: Path, width: int, scheme: str) -> None:
    (tmp_path / "report.html").write_text(document, encoding="utf-8")
    address = (tmp_path / "report.html").as_uri()
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, accept_downloads=True)
    shown, troubles, asked = context.new_page(), [], []
    shown.on("console", lambda message: troubles.append(message.text))
    shown.on("pageerror", lambda error: troubles.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(address)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    boxes = shown.evaluate("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().toJSON())")
    assert len(boxes) == len(pictures(document))
    assert all(box["width"] > 200 and box["height"] > 80 for box in boxes)
    cut = """[...document.querySelectorAll('figure svg')].flatMap(s => {
        const frame = s.getBoundingClientRect();
        return [...s.querySelectorAll('text')].filter(t => {
            const b = t.getBoundingClientRect();
            return b.left < frame.left - 1 || b.right > frame.right + 1
                || b.top < frame.top - 1 || b.bottom > frame.bottom + 1;
        }).map(t => t.textContent);
    })"""
    assert shown.evaluate(cut) == []
    ink = shown.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert (sum(map(int, re.findall(r"\d+", ink))) > 380) == (scheme == "dark")
    with shown.expect_download() as download:
        shown.click("a[download='bench.csv']")
    assert download.value.suggested_filename == "bench.csv"
    context.close()
    assert troubles == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
