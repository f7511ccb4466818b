"""`layerimp bench` and `layerimp report`, as a user sees them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from layerimp_harness import tasks
from support.by_label import by_label
from support.mood import Run, done_once, mood
from support.published import checked

from layerimp.bench import commands
from layerimp.bench.grid import Grid
from layerimp.bench.scheduler import Scheduler
from layerimp.bench.store import FILE
from layerimp.recipe import validated
from layerimp.report.document import RESULTS, read_results


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipe, its task and its finished grid are."""
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def task(place: Path) -> Path:
    return mood(place)


@pytest.fixture(scope="module")
def grid(model_dir: Path, calibration_file: Path, task: Path, place: Path) -> Path:
    """A recipe of a small grid."""
    path = place / "grid.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "models": {"tiny": str(model_dir)},
                "scorers": ["avss", "lrp"],
                "counts": [1],
                "ratios": [0.5],
                "repeats": 2,
                "random_draws": 2,
                "tasks": [str(task)],
                "calibration": {"source": str(calibration_file), "samples": 4, "max_length": 16},
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def printed(grid: Path, place: Path) -> tuple[str, str]:
    """What the command prints that computes the grid, and what it says meanwhile."""
    return done_once(place, "bench", "--recipe", grid, "--output", place / "computed")


@pytest.fixture(scope="module")
def computed(printed: tuple[str, str], place: Path) -> Path:
    """The output of the grid, to read or to copy."""
    return place / "computed"


def cells(directory: Path) -> dict[str, Any]:
    """The results of all finished cells by key, without times."""
    with sqlite3.connect(f"file:{directory / FILE}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT key, kind, result FROM cells").fetchall()
    return {key: json.loads(result) if kind != "costing" else None for key, kind, result in rows}


def test_a_grid_from_a_recipe_to_all_reports(
    layerimp_command: Run, grid: Path, printed: tuple[str, str], computed: Path
) -> None:
    (out, err), output = printed, computed
    for said in ("lowest, 1 block", "lowest, 50%", "block-influence", "mood † (n = ", "report.html"):
        assert said in out
    assert "failed" not in err
    before = cells(output)

    code, again, err = layerimp_command("bench", "--recipe", grid, "--output", output)
    assert (code, again) == (0, out)
    assert cells(output) == before

    code, terminal, _ = layerimp_command("report", output)
    assert (code, terminal) == (0, out)
    _, markdown, _ = layerimp_command("report", output, "--format", "markdown")
    assert "| data set | metric | original | avss | lrp | random | depth | block-influence |" in markdown
    _, latex, _ = layerimp_command("report", output, "--format", "latex")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 4, "quality and fidelity at two amounts"
    _, text, _ = layerimp_command("report", output, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["task"] for row in rows if row["kind"] == "quality"} == {"mood"}  # which a random model does not know
    _, document, _ = layerimp_command("report", output, "--format", "json")
    results = json.loads(document)
    (row,) = [row for row in results["models"]["tiny"]["rows"] if row["task"] == "mood" and row["amount"] == 1]
    measured = [line for line in rows if line["kind"] == "quality"]
    (line,) = [line for line in measured if (line["task"], line["amount"], line["scorer"]) == ("mood", "1", "avss")]
    assert float(line["mean"]) == row["entries"]["avss"]["value"]["mean"]
    code, said, _ = layerimp_command("report", output, "--format", "html")
    assert Path(said.strip()).read_text().startswith("<!doctype html>")


def test_the_results_of_a_grid_are_read_without_its_cells(
    layerimp_command: Run, computed: Path, tmp_path: Path
) -> None:
    """The file is that of a run: what is read from it is what is made of the cells."""
    _, from_cells, _ = layerimp_command("report", computed, "--format", "json")
    assert json.loads(from_cells)["output"] == str(computed)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / RESULTS).write_bytes((computed / RESULTS).read_bytes())
    from_file, _ = layerimp_command.done("report", moved, "--format", "json")
    assert json.loads(from_file) == json.loads(from_cells) | {"output": str(moved)}
    for format_ in ("terminal", "csv"):
        tables = [layerimp_command("report", place, "--format", format_)[1] for place in (moved, computed)]
        assert tables[0].splitlines()[:20] == tables[1].splitlines()[:20]


def test_the_table_says_what_a_run_says(
    layerimp_command: Run, computed: Path, task: Path, model_dir: Path, calibration_file: Path
) -> None:
    _, document, _ = layerimp_command("report", computed, "--format", "json")
    (removed,) = [
        removal
        for removal in json.loads(document)["models"]["tiny"]["removals"]
        if (removal["scorer"], removal["amount"]) == ("lrp", 0.5)
    ]
    for seed in (0, 1):
        _, out, _ = layerimp_command(
            *("run", "--model", model_dir, "--calibration", calibration_file, "--samples", 4, "--max-length", 16),
            *("--tasks", task, "--scorer", "lrp", "--ratio", 0.5, "--seed", seed, "--no-baselines", "--json"),
        )
        assert by_label(out)["scorers"]["lrp"]["removed"] == removed["models"][seed]["plan"]["blocks"]


def test_amounts_of_the_command_line_replace_those_of_a_recipe(
    layerimp_command: Run, grid: Path, tmp_path: Path
) -> None:
    arguments = ("bench", "--recipe", grid, "--output", tmp_path / "out", "--repeats", 1)
    out, _ = layerimp_command.done(*arguments, "--count", 2, "--count", 1, "--no-baselines")
    assert ("lowest, 2 blocks" in out, "lowest, 50%" in out) == (True, False)
    _, document, _ = layerimp_command("report", tmp_path / "out", "--format", "json")
    results = json.loads(document)
    assert (results["request"]["counts"], results["request"]["ratios"]) == ([2, 1], [])
    assert {row["amount"] for row in results["models"]["tiny"]["rows"]} == {1, 2}
    out, _ = layerimp_command.done(*arguments, "--ratio", 0.5, "--no-baselines")
    assert ("lowest, 50%" in out, "lowest, 2 blocks" in out) == (True, False)


def test_a_new_scorer_and_greedy_plans_join_what_is_there(
    layerimp_command: Run, grid: Path, computed: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(computed, tmp_path / "out")
    before = cells(output)
    out, _ = layerimp_command.done(
        *("bench", "--recipe", grid, "--output", output),
        *("--scorer", "avss", "--scorer", "perplexity", "--pruner", "lowest", "--pruner", "greedy", "--set"),
        "greedy.protect_first=1",
    )
    assert "greedy, 50%" in out
    after = cells(output)
    assert {key: after[key] for key in before} == before
    assert len(after) > len(before)


def test_a_scorer_that_does_not_fit_fails_alone(layerimp_command: Run, grid: Path, tmp_path: Path) -> None:
    out, err = layerimp_command.done(
        *("bench", "--recipe", grid, "--output", tmp_path / "out", "--repeats", 1, "--count", 1),
        *("--scorer", "avss", "--scorer", "far=angular", "--set", "far.window=9"),
    )
    assert "failed: score tiny by far (seed 0)" in err
    assert "avss" in out


def test_a_grid_of_which_nothing_works_exits_with_1(layerimp_command: Run, grid: Path, tmp_path: Path) -> None:
    far = ["--scorer", "far=angular", "--set", "far.window=9", "--no-baselines"]
    code, out, err = layerimp_command("bench", "--recipe", grid, "--output", tmp_path / "o", *far)
    assert code == 1
    assert "nothing is evaluated" in out
    assert "failed: score tiny by far (seed 0)" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a directory with --output"),
        (("--output", "out", "--model", "nowhere/at-all"), "cannot load the model 'nowhere/at-all'"),
        (("--output", "out", "--scorer", "avs"), "unknown scorer 'avs'. Did you mean 'avss'"),
        (("--output", "out", "--ratio", "half"), "--ratio"),
        (
            ("--output", "out", "--ratio", "0.5", "--ratio", "3"),
            "layerimp: ratio 3 is not between 0 and 1; a number of blocks is given as the count 3\n",
        ),
        (("--output", "out", "--count", "0"), "counts.0: Input should be greater than or equal to 1, got 0"),
        (("--output", "out", "--evaluator", "footprint"), "measures costs"),
        (("--output", "out", "--heal", "linear", "--samples", "2"), "healing needs at least 3 rows of text"),
        (("--output", "out", "--tasks", "none"), "nothing ranks the models"),
        (("--output", "out", "--tasks", "no_such_task"), "no_such_task"),
        (("--output", "out", "--calibration", "missing.jsonl"), "missing.jsonl"),
        (("--output", "out", "--dtype", "float33"), "unknown dtype 'float33'"),
        (("--output", "out", "--set", "random.seed=3"), "random"),
        (("--output", "out", "--device", "cuda:99"), "no device 'cuda:99' here"),
        (("--output", "out", "--model", "a=x", "--model", "y"), "give every model a label, or none"),
    ],
)
def test_bad_input_gets_one_line(
    layerimp_command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "whole_index", dict)  # it takes seconds to read
    code, out, err = layerimp_command("bench", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.splitlines()[-1].startswith("layerimp: ")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_nothing(layerimp_command: Run, tmp_path: Path) -> None:
    code, _, err = layerimp_command("report", tmp_path / "nothing")
    assert (code, err) == (
        2,
        f"layerimp: {tmp_path / 'nothing'} is no output of layerimp bench or run: it does not exist\n",
    )


def test_a_dry_run_counts_what_is_left_and_leaves_the_place_alone(
    layerimp_command: Run, grid: Path, computed: Path, tmp_path: Path
) -> None:
    """The dry run counts the models that there are at most; after the run nothing is left."""
    asked = ("bench", "--recipe", grid, "--output", tmp_path / "out")

    def work() -> tuple[list[int], list[str]]:
        document = checked(layerimp_command.done(*asked, "--dry-run", "--json")[0])
        (model,) = document["models"].values()
        return [stage["times"] for stage in model["stages"]], document["notes"]

    times, notes = work()
    assert not (tmp_path / "out").exists()
    assert min(times) > 0
    assert notes[0] == "0 cells are finished"
    shutil.copytree(computed, tmp_path / "out")
    stamp = (tmp_path / "out" / FILE).stat().st_mtime_ns
    times, notes = work()
    assert max(times) == 0
    assert notes[0] == f"{len(cells(tmp_path / 'out'))} cells are finished"
    assert (tmp_path / "out" / FILE).stat().st_mtime_ns == stamp
    out, _ = layerimp_command.done(*asked, "--dry-run")
    assert "blocks 4 2 to 3 50.0% to 75.0%" in " ".join(out.split())


@pytest.mark.parametrize("only", [(), ("--dry-run",)])
def test_a_directory_of_other_files_is_refused(
    layerimp_command: Run, grid: Path, tmp_path: Path, only: tuple[str, ...]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    code, _, err = layerimp_command("bench", "--recipe", grid, "--output", tmp_path / "out", *only)
    assert (code, err) == (
        2,
        f"layerimp: {tmp_path / 'out'} is no output of layerimp bench or run: it holds other files\n",
    )


def test_what_an_interrupted_grid_has_is_written(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scheduler, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        commands.run_grid(validated(Grid, yaml.safe_load(grid.read_text())), tmp_path / "out")
    results = read_results(tmp_path / "out")
    assert (results.cells["done"], results.models) == (0, {})
    assert results.cells["open"] > 0
    assert (tmp_path / "out" / "report.html").exists()


def test_an_interrupted_grid_says_what_is_kept(
    layerimp_command: Run, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "compute", interrupted)
    code, _, err = layerimp_command("bench", "--recipe", grid, "--output", tmp_path / "out")
    kept = f"finished cells are kept in {tmp_path / 'out'}, and the same command goes on with the others"
    assert (code, err.splitlines()[-1]) == (130, f"layerimp: interrupted; {kept}")


@pytest.mark.slow
def test_a_kill_and_a_second_start(layerimp_command: Run, grid: Path, computed: Path, tmp_path: Path) -> None:
    output, environment = tmp_path / "out", os.environ | {"OMP_NUM_THREADS": "1"}
    asked = ("bench", "--recipe", str(grid), "--output", str(output))
    command = [sys.executable, "-m", "layerimp", *asked]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while not _started(output):
        with pytest.raises(subprocess.TimeoutExpired):  # it goes on
            process.wait(timeout=0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = cells(output)
    layerimp_command.done(*asked)
    after = cells(output)
    assert {key: after[key] for key in before} == before
    assert after == cells(computed)
    with sqlite3.connect(output / FILE) as connection:
        assert connection.execute("SELECT max(attempts) FROM cells").fetchone() == (1,)


def _started(output: Path) -> bool:
    """Whether a first cell is finished."""
    try:
        return bool(cells(output))
    except sqlite3.OperationalError:  # there is no store yet
        return False
