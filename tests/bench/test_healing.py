"""Healing as a dimension of a grid: cells, repeats, comparisons, and a small real grid."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layerimp_closedform
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import stats
from support.broken_healers import Idle
from support.grids import BLOCKS, DOCUMENTS, Arithmetic, Watching, computed, drive, harm_of, layout
from support.mood import Run

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.bench.executors import worker
from layerimp.bench.executors.base import Assignment
from layerimp.bench.executors.in_process import InProcess
from layerimp.bench.findings import find
from layerimp.bench.grid import Grid
from layerimp.bench.resolve import resolve
from layerimp.bench.scheduler import Scheduler
from layerimp.bench.store import FILE, Store
from layerimp.errors import InputError
from layerimp.healer import Repair
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, made
from layerimp.registry.catalog import registry
from layerimp.report import schema
from layerimp.report.findings import Contender, Findings, Row
from layerimp.report.formats import as_csv, as_latex, as_markdown
from layerimp.report.json_export import as_document
from layerimp.report.tables import paper_tables, summaries

HEALED: dict[str, Any] = {"healers": ["linear"], "counts": [2], "ratios": []}


def keys(one: Layout) -> set[str]:
    """All cells of a grid that is computed to the end."""
    known: dict[str, Result] = {}
    while True:
        fresh = {key: cell for key, cell in one.cells(known.get, "one").items() if key not in known}
        if not fresh:
            return set(known)
        for key, cell in fresh.items():
            known[key] = computed(cell) if cell.kind != "planning" else _plan(known, cell)


def _plan(known: dict[str, Result], cell: Cell) -> Result:
    scores = known[cell.content["scoring"]]["scores"]
    return {"blocks": sorted(range(BLOCKS), key=lambda block: scores[block])[: cell.content["count"]]}


def findings(directory: Path, what: Callable[[Cell], Result] = computed, **changes: Any) -> tuple[Findings, Layout]:
    made_layout, _ = drive(directory, Arithmetic(what=what), **HEALED | changes)
    with Store(directory, write=False) as store:
        return find(made_layout, store.records()), made_layout


def row(found: Findings, task: str = "mood") -> Row:
    (one,) = [each for each in found.models["one"].rows if each.task == task]
    return one


def evaluated(executor: Arithmetic) -> list[Cell]:
    return [cell for cell in executor.cells if cell.kind == "evaluation" and cell.content["blocks"]]


def test_a_healer_adds_cells_and_changes_none() -> None:
    without, healed = keys(layout(counts=[2], ratios=[])), keys(layout(**HEALED))
    assert without < healed


def test_a_store_without_healers_is_read() -> None:
    document = layout().model_dump(mode="json")
    del document["healers"], document["grid"]["healers"]
    for subject in document["models"].values():
        del subject["recipe"]["healers"]
    assert Layout.model_validate(document) == layout()


def test_every_repeat_heals_on_its_own_text(tmp_path: Path) -> None:
    executor = Arithmetic()
    made_layout, _ = drive(tmp_path, executor, **HEALED | {"repeats": 3, "tasks": ["mood"]})
    repeats = {label: made_layout.repeats(one) for label, one in made_layout.contenders.items()}
    assert repeats["avss"] == repeats["avss+linear"] == [(0, 0), (1, 1), (2, 2)]
    assert repeats["random"] == repeats["random+linear"] == [(n, n) for n in range(5)]
    # What no text changes is scored once, and healed on the text of every repeat.
    assert (repeats["depth"], repeats["depth+linear"]) == ([(0, 0)], [(0, 0), (0, 1), (0, 2)])
    first = sorted(range(BLOCKS))[-2:]  # depth removes the last blocks
    seeds = [each.content["healing"]["calibration"]["seed"] for each in evaluated(executor) if each.healer]
    mine = [cell for cell in evaluated(executor) if cell.content["blocks"] == first]
    assert sum(not cell.healer for cell in mine) == 1
    assert {cell.seed for cell in mine if cell.healer} >= {0, 1, 2}
    assert set(seeds) == set(range(5))


def test_the_text_of_a_repeat_is_what_its_scorers_read() -> None:
    one = layout(**HEALED | {"seed": 7})
    measure = one.models["one"].measures[0]
    scoring, healed = one.scoring("one", "avss", 2), one.evaluation("one", (1,), measure, "linear", 2)
    assert healed.content["healing"]["calibration"] == scoring.content["calibration"]
    assert healed.seed == scoring.seed == 9
    assert str(healed) == "evaluate mood on one without block 1, healed by linear (seed 9)"


def test_what_changes_healing_is_another_cell() -> None:
    def cell(text: int = 0, **changes: Any) -> Cell:
        one = layout(**HEALED | changes)
        return one.evaluation("one", (1,), one.models["one"].measures[0], "linear", text)

    other = layout(**HEALED)
    edited = other.model_copy(update={"healers": {"linear": other.healers["linear"].model_copy(update={"code": "1"})}})
    different = [
        cell(),
        cell(1),
        cell(calibration={"samples": 3}),
        cell(healers={"linear": {"options": {"ridges": [0.1]}}}),
        cell(healers={"linear": {"name": "rescale"}}),
        edited.evaluation("one", (1,), edited.models["one"].measures[0], "linear", 0),
    ]
    assert len({each.key for each in different}) == len(different)
    assert cell(seed=1).key == cell(1).key


def test_equal_choices_of_one_repeat_share_a_healed_cell(tmp_path: Path) -> None:
    alone, both = Arithmetic(), Arithmetic()
    drive(tmp_path / "alone", alone, **HEALED | {"scorers": ["avss"]})
    drive(tmp_path / "both", both, **HEALED | {"scorers": {"avss": None, "twin": {"name": "avss"}}})
    assert {cell.key for cell in evaluated(alone)} == {cell.key for cell in evaluated(both)}


def test_a_healed_model_is_one_assignment_with_all_its_tasks(tmp_path: Path) -> None:
    executor = Arithmetic()
    made_layout, _ = drive(tmp_path, executor, **HEALED | {"repeats": 2, "seed": 4})
    subject = made_layout.models["one"]
    assert {len(each.cells) for each in executor.assignments if each.cells[0].healer} == {len(subject.measures)}
    for assignment in executor.assignments:
        if assignment.cells[0].kind == "evaluation":
            # What is measured does not change with the repeat, by which only the text is drawn.
            assert assignment.recipe == subject.recipe
            assert [each.task for each in assignment.measures] == [cell.content["task"] for cell in assignment.cells]


def test_a_task_that_fails_leaves_the_others_of_its_model(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        if cell.healer and cell.content["task"] == "prose" and cell.seed == 1:
            raise MemoryError
        return computed(cell)

    found, _ = findings(tmp_path, broken, repeats=2)
    assert {cell.partition(" on ")[0] for cell, _ in found.failures} == {"evaluate prose"}
    assert row(found).entries.keys() > row(found, "prose").entries.keys()


def test_healed_rows_by_hand(tmp_path: Path) -> None:
    found, made_layout = findings(tmp_path, repeats=3)
    pruned, entries = found.models["one"].pruned, row(found).entries
    assert list(entries) == [
        label
        for scorer in ("avss", "gbis", "random", "depth", "block-influence")
        for label in (scorer, f"{scorer}+linear")
    ]
    values: dict[str, list[float]] = {}
    for label, contender in made_layout.contenders.items():
        sets = [one.blocks for one in pruned["lowest", 2, contender.scorer]]
        for draw, text in made_layout.repeats(contender):
            healing = {"calibration": {"seed": text}} if contender.healer else None
            values.setdefault(label, []).append(0.9 - harm_of(sets[draw], healing) / 100)
        assert list(entries[label].values) == pytest.approx(values[label])
    assert len(values["depth"]) == 1
    assert len(values["depth+linear"]) == 3
    assert entries["depth+linear"].value.low is not None
    healed = found.models["one"].healed["lowest", 2, Contender("avss", "linear")]
    assert [one.blocks for one in healed] == [one.blocks for one in pruned["lowest", 2, "avss"]]
    assert [one.healing and one.healing["recovered"] for one in healed] == [0.5] * 3
    assert all(one.healing is None for one in pruned["lowest", 2, "avss"])
    kept = found.models["one"].retained["lowest", 2, "avss+linear"].tasks["mood"]
    assert kept
    assert kept.points.tolist() == pytest.approx([(value - 0.5) / 0.4 for value in values["avss+linear"]])


def test_what_is_healed_is_compared_with_what_is_healed(tmp_path: Path) -> None:
    found, _ = findings(tmp_path, repeats=5)
    one = row(found)
    for healer in ("", "linear"):
        baselines = [Contender(scorer, healer).label for scorer in ("random", "depth", "block-influence")]
        assert one.baselines[healer] == max(baselines, key=lambda label: one.entries[label].value.mean)
    ours, theirs = one.entries["avss+linear"], one.entries["random+linear"]
    assert ours.to_random
    assert ours.to_random.mean == pytest.approx(ours.value.mean - theirs.value.mean)
    assert theirs.to_random is None
    assert one.entries["random"].to_random is None
    assert one.entries["avss"].to_random
    assert one.entries["avss"].to_random.mean == pytest.approx(
        one.entries["avss"].value.mean - one.entries["random"].value.mean
    )
    best = one.entries[one.baselines["linear"]]
    assert best.to_baseline is None
    assert ours.to_baseline
    assert ours.to_baseline.mean == pytest.approx(ours.value.mean - best.value.mean)


def test_healed_blind_scorers_are_compared_repeat_by_repeat(tmp_path: Path) -> None:
    """Both were healed on the same text, so its common effect is no error of their difference."""
    found, _ = findings(tmp_path, repeats=5, baselines=["depth"], tasks=["mood"])
    one = row(found)
    ours, theirs = (np.array(one.entries[label].values) for label in ("avss+linear", "depth+linear"))
    right = [
        np.array([np.arange(DOCUMENTS) < round(100 * v) for v in values]).mean(axis=0) for values in (ours, theirs)
    ]
    paired = (right[0] - right[1]).std(ddof=1) / math.sqrt(DOCUMENTS) * stats.t.ppf(0.975, DOCUMENTS - 1)
    text = stats.sem(ours - theirs) * stats.t.ppf(0.975, 4)
    assert one.entries["avss+linear"].to_baseline
    low, high = one.entries["avss+linear"].to_baseline.low, one.entries["avss+linear"].to_baseline.high
    assert low is not None
    assert high is not None
    assert (high - low) / 2 == pytest.approx(math.hypot(paired, text), rel=0.03)


def test_what_healing_brings_is_compared_with_the_same_models_unhealed(tmp_path: Path) -> None:
    found, _ = findings(tmp_path, repeats=5, tasks=["mood"])
    entries = row(found).entries
    for scorer in ("avss", "random"):  # both remove the same blocks, healed or not, repeat by repeat
        ours, theirs = (np.array(entries[label].values) for label in (f"{scorer}+linear", scorer))
        right = [
            np.array([np.arange(DOCUMENTS) < round(100 * v) for v in each]).mean(axis=0) for each in (ours, theirs)
        ]
        documents = (right[0] - right[1]).std(ddof=1) / math.sqrt(DOCUMENTS) * stats.t.ppf(0.975, DOCUMENTS - 1)
        gain = entries[f"{scorer}+linear"].to_unhealed
        assert gain
        assert gain.mean == pytest.approx((ours - theirs).mean())
        assert gain.high is not None
        half = math.hypot(documents, stats.sem(ours - theirs) * stats.t.ppf(0.975, 4))
        assert gain.high - gain.mean == pytest.approx(half, rel=0.03)
        assert entries[scorer].to_unhealed is None
    gain = entries["depth+linear"].to_unhealed  # one model against five
    assert gain
    assert gain.mean == pytest.approx(np.mean(entries["depth+linear"].values) - entries["depth"].values[0])


def test_one_set_healed_on_several_texts_is_several_models(tmp_path: Path) -> None:
    """By no scorer's choice do two of these differ, and yet their repeats do."""

    def constant(cell: Cell) -> Result:
        result = dict(computed(cell))
        if cell.kind == "scoring":
            result["scores"] = [float(BLOCKS - block) for block in range(BLOCKS)]
        return result

    found, _ = findings(tmp_path, constant, repeats=3, baselines=["random"])
    entries = row(found).entries
    assert entries["avss"].to_random == entries["gbis"].to_random
    assert entries["avss"].to_random
    assert entries["avss"].to_random.p == 1.0
    assert len(set(entries["avss+linear"].values)) == 3
    assert entries["avss+linear"].to_random
    # Five texts against three: not the same, and not told apart.
    assert entries["avss+linear"].to_random.low != entries["avss+linear"].to_random.high


def test_a_healer_that_fails_takes_nothing_else_down(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        if cell.healer == "linear":
            raise ValueError("healer 'linear' fell ill")
        return computed(cell)

    found, _ = findings(tmp_path, broken, repeats=2, healers=["linear", "rescale"])
    well, _ = findings(tmp_path / "well", repeats=2, healers=["rescale"])
    assert as_markdown(found).replace("+rescale", "") == as_markdown(well).replace("+rescale", "")
    assert {why for _, why in found.failures} == {"healer 'linear' fell ill"}
    assert all("healed by linear" in cell for cell, _ in found.failures)
    (healed,) = {
        tuple(one["repeats"])
        for one in as_document(found)["models"]["one"]["healed"]
        if one["healer"] == "linear" and one["scorer"] == "avss"
    }
    assert healed == (None, None)


def test_every_format_has_both(tmp_path: Path) -> None:
    found, _ = findings(tmp_path, repeats=2, healers=["linear", "rescale"])
    (table,) = paper_tables(found)
    assert table.head[4:8] == ["avss", "avss+linear", "avss+rescale", "gbis"]
    (summary,) = summaries(found)
    assert {line[0].text for line in summary.rows} == set(found.design.contenders)
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert float(lines[0]["avss+linear"]) == row(found).entries["avss+linear"].value.mean
    assert "SCORER+HEALER: " in as_markdown(found)
    assert as_latex(found).count("avss+rescale") == 1
    assert "HEALER" not in as_markdown(findings(tmp_path / "none", healers=[])[0])
    document = as_document(found)
    TypeAdapter(schema.DOCUMENTS["layerimp.findings/2"]).validate_json(json.dumps(document), strict=True)
    model = document["models"]["one"]
    assert set(model["rows"][0]["scorers"]) == set(model["retained"][0]["retained"]) == set(found.design.contenders)
    assert set(model["scorers"]) == {one["scorer"] for one in model["removed"]} == set(found.design.scorers)
    assert model["rows"][0]["best_healed_baselines"].keys() == {"linear", "rescale"}
    assert document["grid"]["healers"]["linear"] == {"name": "linear", "options": {}}
    (one,) = [one for one in model["healed"] if (one["scorer"], one["healer"]) == ("depth", "rescale")]
    assert [each and each["recovered"] for each in one["repeats"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("healers", "said"),
    [
        (["linnear"], "unknown healer 'linnear'. Did you mean 'linear'"),
        ({"linear": {"options": {"ridge": 1}}}, "Did you mean 'ridges'"),
        ({"a+b": {"name": "linear"}}, r"'a\+b' cannot be a label"),
    ],
)
def test_what_is_wrong_with_a_healer_is_said(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, healers: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        real(model_dir, calibration_file, [task], tmp_path / "out", healers=healers)


def test_an_edited_healer_is_another_one(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = real(model_dir, calibration_file, [task], tmp_path / "before").healers
    package = tmp_path / "edited"
    shutil.copytree(Path(str(layerimp_closedform.__file__)).parent, package)
    (package / "rescale.py").write_text((package / "rescale.py").read_text() + "# edited\n")
    monkeypatch.setattr(layerimp_closedform, "__file__", str(package / "__init__.py"))
    after = real(model_dir, calibration_file, [task], tmp_path / "after").healers
    assert before["linear"].code != after["linear"].code


def test_further_text_is_part_of_a_healed_cell_and_of_no_other(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    """Healing on different text gives a different model; unhealed models stay the same."""
    more = tmp_path / "more.txt"

    def cells(**changes: Any) -> set[str]:
        grid = real(model_dir, calibration_file, [task], tmp_path / "out", **changes)
        measure = grid.models["tiny"].measures[0]
        return {grid.evaluation("tiny", (1,), measure, healer).key for healer in ("", "linear")}

    without = cells()
    with pytest.raises(InputError, match=r"more\.txt' does not exist"):
        cells(heal_text=str(more))
    more.write_text("one text\n")
    first = cells(heal_text=str(more))
    more.write_text("another text\n")
    second = cells(heal_text=str(more))
    assert len(without & first & second) == 1
    assert len(without | first | second) == 4


def test_further_text_reaches_the_healer(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, true, read = tmp_path / "more.txt", worker.heal_beside, []
    more.write_text("w1 w2 w3 w4 w5 w6 w7 w8 w9\n" * 9)

    def reading(*arguments: Any, further: Any, **options: Any) -> Any:
        read.append(sum(len(batch["input_ids"]) for batch in further))
        return true(*arguments, further=further, **options)

    monkeypatch.setattr(worker, "heal_beside", reading)
    grid = real(model_dir, calibration_file, [task], tmp_path / "out", heal_text=str(more), repeats=1)
    _, found = run(grid, tmp_path / "out")
    assert found.failures == []
    assert read
    assert all(read)


def real(model: Path, text: Path, tasks: list[Path], directory: Path, **changes: Any) -> Layout:
    """A small grid of a model that exists."""
    values = {
        "models": {"tiny": str(model)},
        "scorers": ["avss"],
        "baselines": ["depth"],
        "counts": [1],
        "repeats": 2,
        "healers": ["linear"],
        "tasks": list(map(str, tasks)),
        "calibration": {"source": str(text), "samples": 8, "max_length": 16},
    }
    with Store(directory) as store:
        grid = made(Grid, values | changes)
        return resolve(grid, store, Permissions(), SILENT, torch.device("cpu"))


class Remembering(InProcess):
    """Computes in this process, and records the outcomes."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.came: dict[str, Outcome] = {}

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        assignment, outcomes = super().finished()
        self.came |= {outcome.key: outcome for outcome in outcomes}
        return assignment, outcomes


def run(grid: Layout, directory: Path) -> tuple[Remembering, Findings]:
    executor = Remembering()
    with Store(directory) as store:
        Scheduler(grid, store, Permissions(), Watching()).run(executor)
        return executor, find(grid, store.records())


def test_a_model_is_healed_once_for_all_tasks(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = task.with_name("other.yaml")
    other.write_text(task.read_text().replace("task: mood", "task: other"))
    healed, true = [], worker.heal_beside

    def counting(intact: Any, pruned: Any, removed: Any, *rest: Any, **options: Any) -> Any:
        healed.append(tuple(removed))
        return true(intact, pruned, removed, *rest, **options)

    monkeypatch.setattr(worker, "heal_beside", counting)
    grid = real(model_dir, calibration_file, [task, other], tmp_path / "out")
    executor, found = run(grid, tmp_path / "out")
    assert found.failures == []
    cells = [cell for cell in grid.cells(_known(tmp_path / "out"), "tiny").values() if cell.healer]
    models = {(tuple(cell.content["blocks"]), cell.seed) for cell in cells}
    assert len(healed) == len(models) == len(cells) / 2
    for cell in cells:
        result = executor.came[cell.key].result
        assert result
        assert result["healing"]["gaps"][0]["removed"] == cell.content["blocks"]
        assert set(result["healing"]["loss"]) == {"intact", "pruned", "healed"}


def _known(directory: Path) -> Callable[[str], Result | None]:
    with Store(directory, write=False) as store:
        records = store.records()
    return lambda key: records[key].result if key in records else None


def test_a_real_healer_that_fails_fails_its_cells_in_one_line(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ill(Idle):
        """Fails."""

        name = "ill"

        def heal(self, case: Any) -> list[Repair]:
            raise KeyError("a site\nthat is not there")

    monkeypatch.setitem(registry()._classes["healer"], "ill", Ill)
    grid = real(model_dir, calibration_file, [task], tmp_path / "out", healers=["ill", "rescale"])
    _, found = run(grid, tmp_path / "out")
    assert found.failures
    for cell, why in found.failures:
        assert "healed by ill" in cell
        assert re.fullmatch(r"healer 'ill' \(.*\) failed: KeyError: .*", why)
        assert "\n" not in why
    assert set(row_of(found).entries) == {"avss", "avss+rescale", "depth", "depth+rescale"}


def row_of(found: Findings) -> Row:
    (one,) = [each for each in found.models["tiny"].rows if each.task == "mood"]
    return one


def test_healing_on_the_documents_of_a_task_is_refused(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    words = [json.loads(line)["text"] for line in task.with_name("docs.jsonl").read_text().splitlines()]
    text = tmp_path / "text.jsonl"
    text.write_text(calibration_file.read_text() + "".join(json.dumps({"text": each}) + "\n" for each in words))
    everything = {"calibration": {"source": str(text), "samples": 40, "max_length": 16}, "repeats": 1}
    grid = real(model_dir, text, [task], tmp_path / "refused", **everything)
    _, found = run(grid, tmp_path / "refused")
    assert set(row_of(found).entries) == {"avss", "depth"}
    assert all("shares" in why and "(--allow-overlap)" in why for _, why in found.failures)
    assert len(found.failures) == 2
    allowed = real(model_dir, text, [task], tmp_path / "allowed", **everything, allow_overlap=True)
    _, found = run(allowed, tmp_path / "allowed")
    assert found.failures == []


def test_a_small_grid_from_the_command_line(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    grid = (
        *("bench", "--model", f"tiny={model_dir}", "--scorer", "avss", "--count", 1, "--repeats", 2, "--tasks", task),
        *("--calibration", calibration_file, "--samples", 8, "--max-length", 16, "--output", tmp_path / "out"),
    )
    healed = ("--heal", "rescale", "--heal", "linear", "--set", "linear.ridges=[0.1]", "--workers", 0)
    code, _, err = layerimp_command(*grid, "--workers", 0)
    assert code == 0, err
    with Store(tmp_path / "out", write=False) as store:
        before = store.records()
    code, out, err = layerimp_command(*grid, *healed)
    assert code == 0, err
    for said in ("avss+rescale", "avss+linear", "depth+linear", "SCORER+HEALER"):
        assert said in out
    with Store(tmp_path / "out", write=False) as store:
        after = store.records()
    assert before.items() <= after.items()
    code, again, _ = layerimp_command(*grid, *healed)
    assert (code, again) == (0, out)
    _, document, _ = layerimp_command("report", tmp_path / "out", "--format", "json")
    model = json.loads(document)["models"]["tiny"]
    for one in model["healed"]:
        assert len(one["repeats"]) == (5 if one["scorer"] == "random" else 2)
        for each in one["repeats"]:
            assert set(each["loss"]) == {"intact", "pruned", "healed"}
            assert [gap["removed"] for gap in each["gaps"]]
    assert {(one["scorer"], one["healer"]) for one in model["healed"]} == {
        (scorer, healer)
        for scorer in ("avss", "random", "depth", "block-influence")
        for healer in ("rescale", "linear")
    }
    assert (tmp_path / "out" / FILE).exists()


def test_a_grid_says_what_a_run_says(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    grid = real(model_dir, calibration_file, [task], tmp_path / "grid")
    _, found = run(grid, tmp_path / "grid")
    (healed,) = [one for key, one in found.models["tiny"].healed.items() if key[2] == Contender("avss", "linear")]
    for seed in (0, 1):
        _, out, _ = layerimp_command(
            *("run", "--model", model_dir, "--calibration", calibration_file, "--samples", 8, "--max-length", 16),
            *("--tasks", task, "--scorer", "avss", "--count", 1, "--seed", seed, "--heal", "linear"),
            *("--no-baselines", "--json"),
        )
        report = json.loads(out)
        said = report["scorers"]["avss"]["healed"]["linear"]
        ours = healed[seed].healing
        assert ours
        assert ours["recovered"] == pytest.approx(said["recovered"])
        assert [gap["done"] for gap in ours["gaps"]] == [gap["done"] for gap in said["gaps"]]
        value = report["metrics"]["avss+linear"]["mood"]["acc"]["value"]
        assert healed[seed].metrics["mood", "acc"].value == pytest.approx(value)
