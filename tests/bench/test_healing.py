"""Small real grids with healers: a model is healed once for all tasks, on the text that is its own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import layerimp_closedform
import pytest
from support.broken_healers import Idle
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.grids import Watching
from support.mood import Run

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.bench.digests import FileDigests
from layerimp.bench.engine import Engine
from layerimp.bench.executors import worker
from layerimp.bench.executors.base import Assignment
from layerimp.bench.executors.in_process import InProcess
from layerimp.bench.grid import Grid
from layerimp.bench.prepare import prepared_grid
from layerimp.bench.resolve import resolve
from layerimp.bench.results import grid_results
from layerimp.bench.scheduler import Scheduler
from layerimp.bench.store import FILE, Store
from layerimp.calibration.further_text import FurtherText
from layerimp.errors import InputError
from layerimp.healer import Repair
from layerimp.pipeline import memory
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, validated
from layerimp.report.document import Results
from layerimp.report.results.rows import Row


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
        real(model_dir, calibration_file, [task], healers=healers)


def test_an_edited_healer_is_another_one(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = real(model_dir, calibration_file, [task]).healers
    package = tmp_path / "edited"
    shutil.copytree(Path(str(layerimp_closedform.__file__)).parent, package)
    (package / "rescale.py").write_text((package / "rescale.py").read_text() + "# edited\n")
    monkeypatch.setattr(layerimp_closedform, "__file__", str(package / "__init__.py"))
    after = real(model_dir, calibration_file, [task]).healers
    assert before["linear"].code != after["linear"].code


def test_an_edited_part_makes_another_healer(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source of the healer in `distill.first` counts as well."""

    def code(place: str) -> str:
        healers = {"distill": {"options": {"first": "linear"}}}
        return real(model_dir, calibration_file, [task], healers=healers).healers["distill"].code

    before = code("before")
    package = tmp_path / "edited"
    shutil.copytree(Path(str(layerimp_closedform.__file__)).parent, package)
    (package / "rescale.py").write_text((package / "rescale.py").read_text() + "# edited\n")
    monkeypatch.setattr(layerimp_closedform, "__file__", str(package / "__init__.py"))
    assert code("after") != before


def test_further_text_is_part_of_a_healed_cell_and_of_no_other(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    """Healing on different text gives a different model; unhealed models stay the same."""
    more = tmp_path / "more.txt"

    def cells(**changes: Any) -> set[str]:
        grid = real(model_dir, calibration_file, [task], healers=["distill"], **changes)
        measure = grid.models["tiny"].measures[0]
        return {grid.evaluation("tiny", (1,), measure, healer).key for healer in ("", "distill")}

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
    training = {"distill": {"name": "distill", "options": {"steps": 1}}}
    grid = real(model_dir, calibration_file, [task], heal_text=str(more), repeats=1, healers=training)
    _, results = run(grid, tmp_path / "out")
    assert results.failures == []
    assert read
    assert all(read)


@pytest.fixture
def another_task(task: Path) -> Path:
    """A task whose documents are others when they are written as text."""
    other = task.with_name("other.yaml")
    other.write_text(task.read_text().replace("task: mood", "task: other").replace('"{{text}}"', '"w1 {{text}}"'))
    return other


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    folder = tmp_path / "data_set"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps({"text": "w1 w2 w3 w4 w5 " * 9}) + "\n")
    return folder


def test_a_data_set_is_read_without_the_documents_of_all_tasks(
    model_dir: Path,
    calibration_file: Path,
    task: Path,
    another_task: Path,
    data_set: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task that is measured later is measured on the same healed model."""
    fingerprints = []

    def reading(*_: Any, further: FurtherText, **__: Any) -> Any:
        fingerprints.append(further.fingerprint)
        raise NotImplementedError

    monkeypatch.setattr(worker, "heal_beside", reading)
    tasks = [task, another_task]
    grid = real(model_dir, calibration_file, tasks, heal_text=str(data_set), healers=["distill"])
    cells = [grid.evaluation("tiny", (1,), measure, "distill") for measure in grid.models["tiny"].measures]
    computing = worker.Worker("cpu")
    for together in ([cells[0]], [cells[1]], cells):
        computing.compute(Assignment(tuple(together), grid, Permissions()))
    assert len(fingerprints) == 3
    assert len(set(fingerprints)) == 1


def test_the_tasks_that_a_data_set_is_read_without_stand_in_the_key(
    model_dir: Path, calibration_file: Path, task: Path, another_task: Path, data_set: Path
) -> None:
    def key(tasks: list[Path], source: Path, **changes: Any) -> str:
        grid = real(model_dir, calibration_file, tasks, heal_text=str(source), healers=["distill"], **changes)
        return grid.evaluation("tiny", (1,), grid.models["tiny"].measures[0], "distill").key

    one, both, file = [task], [task, another_task], data_set / "train.jsonl"
    assert key(one, data_set) != key(both, data_set)
    assert key(one, file) == key(both, file)
    assert key(one, data_set, allow_overlap=True) == key(both, data_set, allow_overlap=True)


def test_what_learns_is_decided_once_and_stands_in_the_key(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell in which all blocks learned is another one than that of a machine with little memory."""

    def cell(free: int, **options: Any) -> Cell:
        monkeypatch.setattr(memory, "free_bytes", lambda _device: free)
        grid = real(model_dir, calibration_file, [task], healers={"mine": {"name": "distill", "options": options}})
        return grid.evaluation("tiny", (1,), grid.models["tiny"].measures[0], "mine")

    much, little = cell(10**9), cell(0)
    assert much.content["healing"]["options"] == {"learns": "all", "rows": 4}
    assert little.content["healing"]["options"] == {"learns": "lora-beside", "rows": 4}
    assert much.key != little.key
    assert cell(10**9, learns="all", rows=4).key == cell(0, learns="all", rows=4).key == much.key


def test_what_learns_stays_where_a_grid_goes_on(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, true, learned = tmp_path / "out", worker.heal_beside, set[str]()

    def decided(free: int, added: tuple[str, ...] = (), **options: Any) -> Layout:
        monkeypatch.setattr(memory, "free_bytes", lambda _device: free)
        healers = {"distill": {"name": "distill", "options": {"steps": 1} | options}}
        healers |= {label: {"name": "distill", "options": {"steps": 2}} for label in added}
        grid = real(model_dir, calibration_file, [task], healers=healers, repeats=1).grid
        return prepared_grid(grid, out, Engine(device="cpu"), Permissions(), SILENT).layout

    def learns(layout: Layout) -> dict[str, Any]:
        return {label: each.options["learns"] for label, each in layout.models["tiny"].decided.items()}

    def healing(*arguments: Any, **more: Any) -> Any:
        learned.add(arguments[-1].config.learns)
        return true(*arguments, **more)

    little = decided(0)
    with Store(out) as store:
        store.keep_layout(little.model_dump(mode="json"), {})
    assert learns(decided(10**9)) == {"distill": "lora-beside"}
    assert learns(decided(10**9, rank=2)) == {"distill": "all"}
    assert learns(decided(10**9, added=("longer",))) == {"distill": "lora-beside", "longer": "all"}
    monkeypatch.setattr(worker, "heal_beside", healing)
    _, results = run(decided(10**9), out)
    assert results.failures == []
    assert learned == {"lora-beside"}


@pytest.mark.parametrize(
    ("changes", "learns"),
    [
        ({}, "lora-beside"),
        ({"scorers": ["avss", "angular"]}, "lora-beside"),
        ({"counts": [1, 2]}, "all"),
        ({"calibration": {"max_length": 32}}, "all"),
    ],
)
def test_what_learns_is_decided_anew_for_a_larger_healing(
    model_dir: Path,
    calibration_file: Path,
    task: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    learns: str,
) -> None:
    def decided(free: int, before: Layout | None = None, **changes: Any) -> Layout:
        monkeypatch.setattr(memory, "free_bytes", lambda _device: free)
        text = {"source": str(calibration_file), "samples": 8, "max_length": 16} | changes.pop("calibration", {})
        values = {"healers": ["distill"], "counts": [1], "calibration": text} | changes
        grid = real(model_dir, calibration_file, [task], **values).grid
        return resolve(grid, FileDigests({}), Engine(device="cpu"), Permissions(), SILENT, before)[0]

    before = decided(0)
    now = decided(10**9, before, **changes).models["tiny"].decided["distill"]
    assert now.options["learns"] == learns
    assert (now == before.models["tiny"].decided["distill"]) == (learns == "lora-beside")
    assert now.holds("cpu", replace(now.scope, gaps=now.scope.gaps - 1))
    assert not now.holds("cuda", now.scope)


def real(model: Path, text: Path, tasks: list[Path], **changes: Any) -> Layout:
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
    grid = validated(Grid, values | changes)
    return resolve(grid, FileDigests({}), Engine(device="cpu"), Permissions(), SILENT)[0]


class Remembering(InProcess):
    """Computes in this process, and records the outcomes."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.came: dict[str, Outcome] = {}

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        assignment, outcomes = super().finished()
        self.came |= {outcome.key: outcome for outcome in outcomes}
        return assignment, outcomes


def run(grid: Layout, directory: Path) -> tuple[Remembering, Results]:
    executor = Remembering()
    with Store(directory) as store:
        Scheduler(grid, store, Permissions(), Watching()).run(executor)
        return executor, grid_results(grid, store.records())


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
    grid = real(model_dir, calibration_file, [task, other])
    executor, results = run(grid, tmp_path / "out")
    assert results.failures == []
    cells = [cell for cell in grid.cells(_known(tmp_path / "out"), "tiny").values() if cell.healer]
    models = {(tuple(cell.content["blocks"]), cell.seed) for cell in cells}
    assert len(healed) == len(models) == len(cells) / 3  # two tasks and fidelity
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
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path, plugged: Plug, install: Install
) -> None:
    class Ill(Idle):
        """Fails."""

        name = "ill"

        def heal(self, case: Any) -> list[Repair]:
            raise KeyError("a site\nthat is not there")

    plugged(install("ill", layerimp_healers=lambda: [Ill]))
    grid = real(model_dir, calibration_file, [task], healers=["ill", "rescale"], baselines=[], repeats=1)
    _, results = run(grid, tmp_path / "out")
    assert results.failures
    for failure in results.failures:
        assert "healed by ill" in failure.what
        assert re.fullmatch(r"healer 'ill' \(.*\) failed: KeyError: .*", failure.error)
        assert "\n" not in failure.error
    assert set(row_of(results).entries) == {"avss", "avss+rescale"}


def row_of(results: Results) -> Row:
    (mood,) = [each for each in results.models["tiny"].rows if each.task == "mood"]
    return mood


def test_healing_on_the_documents_of_a_task_is_refused(
    model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    words = [json.loads(line)["text"] for line in task.with_name("docs.jsonl").read_text().splitlines()]
    text = tmp_path / "text.jsonl"
    text.write_text(calibration_file.read_text() + "".join(json.dumps({"text": each}) + "\n" for each in words))
    everything = {"calibration": {"source": str(text), "samples": 40, "max_length": 16}, "repeats": 1, "baselines": []}
    grid = real(model_dir, text, [task], **everything)
    _, results = run(grid, tmp_path / "refused")
    assert set(row_of(results).entries) == {"avss"}
    assert all("shares" in failure.error and "(--allow-overlap)" in failure.error for failure in results.failures)
    assert len(results.failures) == 1
    allowed = real(model_dir, text, [task], **everything, allow_overlap=True)
    _, results = run(allowed, tmp_path / "refused")  # the refusal is not remembered
    assert results.failures == []
    _, results = run(grid, tmp_path / "refused")  # nor is the permission
    assert len(results.failures) == 1


def test_a_small_grid_from_the_command_line(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    grid = (
        *("bench", "--model", f"tiny={model_dir}", "--scorer", "avss", "--count", 1, "--tasks", task),
        *("--repeats", 1, "--random-draws", 2),
        *("--calibration", calibration_file, "--samples", 8, "--max-length", 16, "--output", tmp_path / "out"),
    )
    healed = ("--heal", "rescale", "--heal", "linear", "--set", "linear.ridges=[0.1]")
    code, _, err = layerimp_command(*grid)
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
    removals = [removal for removal in model["removals"] if removal["healer"]]
    for removal in removals:
        assert len(removal["models"]) == (2 if removal["scorer"] == "random" else 1)
        for each in (pruned["healing"] for pruned in removal["models"]):
            assert set(each["loss"]) == {"intact", "pruned", "healed"}
            assert [gap["removed"] for gap in each["gaps"]]
    assert {(removal["scorer"], removal["healer"]) for removal in removals} == {
        (scorer, healer)
        for scorer in ("avss", "random", "depth", "block-influence")
        for healer in ("rescale", "linear")
    }
    assert (tmp_path / "out" / FILE).exists()


def test_a_grid_says_what_a_run_says(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    grid = real(model_dir, calibration_file, [task], baselines=[])
    _, results = run(grid, tmp_path / "grid")
    (healed,) = [removal.models for removal in results.models["tiny"].removals if removal.label == "avss+linear"]
    for seed in (0, 1):
        _, out, _ = layerimp_command(
            *("run", "--model", model_dir, "--calibration", calibration_file, "--samples", 8, "--max-length", 16),
            *("--tasks", task, "--scorer", "avss", "--count", 1, "--seed", seed, "--heal", "linear"),
            *("--no-baselines", "--json"),
        )
        report = by_label(out)
        said = report["scorers"]["avss"]["healed"]["linear"]
        ours = healed[seed].healing
        assert ours
        assert ours.recovered == pytest.approx(said["recovered"])
        assert [gap.done for gap in ours.gaps] == [gap["done"] for gap in said["gaps"]]
        value = report["metrics"]["avss+linear"]["mood"]["acc"]["value"]
        assert healed[seed].metrics["mood"]["acc"].value == pytest.approx(value)
