"""Worker processes: they compute, they are replaced, and they never outlive their scheduler."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.fake_plugins import Install, Plug
from support.grids import Arithmetic, Watching, drive, layout

from layerimp.bench.digests import FileDigests
from layerimp.bench.engine import Engine
from layerimp.bench.executors.base import Assignment
from layerimp.bench.executors.in_process import InProcess
from layerimp.bench.executors.processes import Processes, devices
from layerimp.bench.grid import Grid
from layerimp.bench.resolve import resolve
from layerimp.bench.scheduler import Scheduler
from layerimp.bench.store import Store
from layerimp.errors import OptionError
from layerimp.evaluator import Evaluator, Metric
from layerimp.models.devices import device_named
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, validated


class Size(Evaluator):
    """Counts the parameters, as if that were a quality."""

    name = "size"
    kind = "quality"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("size", "parameters", sum(part.numel() for part in model.parameters()))]


NOWHERE = str(Path(__file__).with_name("nowhere"))


def assignment() -> Assignment:
    """A scoring of a model that does not exist: the quickest assignment for a worker."""
    made = layout(models={"one": NOWHERE})
    return Assignment((made.scoring("one", "avss", 0),), made, Permissions())


@pytest.fixture(scope="module")
def local() -> Iterator[Processes]:
    executor = Processes(["cpu"])
    yield executor
    executor.stop()


def test_what_goes_wrong_is_an_outcome_here() -> None:
    executor = InProcess("cpu")
    executor.start(assignment())
    _, (outcome,) = executor.finished()
    assert outcome.result is None
    assert f"the model directory '{NOWHERE}' does not exist" in outcome.error


@pytest.mark.slow
def test_what_goes_wrong_is_an_outcome_elsewhere(local: Processes) -> None:
    local.start(assignment())
    done, (outcome,) = local.finished()
    assert done.cells == assignment().cells
    assert f"the model directory '{NOWHERE}' does not exist" in outcome.error


def test_a_worker_that_dies_is_replaced(local: Processes) -> None:
    local._workers[0].process.kill()
    local._workers[0].process.join()
    local.start(assignment())
    lost, (outcome,) = local.finished()
    assert "ended by SIGKILL" in outcome.error
    assert not outcome.lasting
    local.start(lost)
    done, (outcome,) = local.finished()
    assert done.cells == assignment().cells
    assert f"the model directory '{NOWHERE}' does not exist" in outcome.error


@pytest.mark.slow
def test_workers_die_with_their_driver(tmp_path: Path) -> None:
    script = tmp_path / "scheduler.py"
    script.write_text(
        """
import sys
from layerimp.bench.executors.processes import Processes
if __name__ == "__main__":
    executor = Processes(["cpu"])
    print(*(worker.process.pid for worker in executor._workers), flush=True)
    sys.stdin.read()
"""
    )
    scheduler = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert scheduler.stdout
    workers = [psutil.Process(int(pid)) for pid in scheduler.stdout.readline().split()]
    assert len(workers) == 1
    scheduler.send_signal(signal.SIGKILL)
    scheduler.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


class Many(InProcess):
    """Accepts three assignments at once, and computes them one after the other."""

    slots = 3

    def __init__(self) -> None:
        super().__init__("cpu")
        self.shards: list[tuple[int, int]] = []

    def start(self, assignment: Assignment) -> None:
        super().start(assignment)
        self.shards.append(assignment.shard)


def test_a_scoring_in_shards_is_that_of_one_pass(
    model_dir: Path, calibration_file: Path, tmp_path: Path, plugged: Plug, install: Install
) -> None:
    scorers = ["avss", "gbis", "perplexity"]  # a sweep forward, one back, and one for each block
    values = {
        "models": {"tiny": str(model_dir)},
        "scorers": scorers,
        "baselines": [],
        "evaluators": ["size"],
        "tasks": [],
        "repeats": 1,
        "calibration": {"source": str(calibration_file), "samples": 14, "max_length": 16},
        "batch_size": 4,
    }
    plugged(install("size", layerimp_evaluators=lambda: [Size]))
    results = {}
    for executor in (Many(), InProcess("cpu")):
        with Store(tmp_path / type(executor).__name__) as store:
            grid, _ = resolve(validated(Grid, values), FileDigests({}), Engine(device="cpu"), Permissions(), SILENT)
            Scheduler(grid, store, Permissions(), Watching()).run(executor)
            cells = [grid.scoring("tiny", scorer, 0).key for scorer in scorers]
            results[type(executor).__name__] = [store.records()[key].result for key in cells]
    for scorer, sharded, whole in zip(scorers, results["Many"], results["InProcess"], strict=True):
        assert sharded, scorer
        assert whole, scorer
        assert sharded["scores"] == pytest.approx(whole["scores"], rel=1e-6), scorer
        assert sharded["calibration"] == whole["calibration"]


def test_only_idle_workers_share_a_scoring(tmp_path: Path) -> None:
    busy, idle = Arithmetic(slots=2), Arithmetic(slots=9)
    drive(tmp_path / "busy", busy, repeats=5)
    drive(tmp_path / "idle", idle, repeats=1, calibration={"samples": 32})
    assert {each.shard for each in busy.assignments if each.cells[0].kind == "scoring"} == {(0, 1)}
    scorings = [each for each in idle.assignments if each.cells[0].kind == "scoring"]
    # 4 batches; the blind scorers and the two evaluations of the intact model want a worker each.
    assert sorted(each.shard for each in scorings if each.shard[1] > 1) == [(index, 4) for index in range(4)]


def test_one_worker_for_each_device() -> None:
    assert devices("cpu", None) == ["cpu"]
    assert devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert len(devices(None, 3)) == 3


def test_a_device_that_is_not_here_is_said() -> None:
    with pytest.raises(OptionError, match="no device 'cuda:99' here"):
        device_named("cuda:99")
