"""Worker processes: they work, they are replaced, and they never outlive their driver."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from grids import layout

from layerimp.bench.engines import Assignment, WorkerError
from layerimp.bench.engines.here import Here
from layerimp.bench.engines.local import Local, devices
from layerimp.errors import OptionError
from layerimp.model import device_named
from layerimp.recipe import Permissions


def assignment() -> Assignment:
    """A scoring of a model that does not exist: the quickest thing that a worker can be asked for."""
    made = layout(models={"one": "/nowhere"})
    recipe = made.models["one"].recipe.model_copy(update={"scorers": {"avss": made.scorers["avss"].spec}})
    return Assignment((made.scoring("one", "avss", 0),), recipe, Permissions())


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    engine = Local(["cpu"])
    yield engine
    engine.stop()


def test_what_goes_wrong_is_an_outcome_here() -> None:
    engine = Here("cpu")
    engine.start(assignment())
    _, (outcome,) = engine.finished()
    assert outcome.result is None
    assert "the model directory '/nowhere' does not exist" in outcome.error


def test_what_goes_wrong_is_an_outcome_elsewhere(local: Local) -> None:
    local.start(assignment())
    done, (outcome,) = local.finished()
    assert done.cells == assignment().cells
    assert "the model directory '/nowhere' does not exist" in outcome.error


def test_a_worker_that_dies_is_replaced(local: Local) -> None:
    local._workers[0].process.kill()
    local._workers[0].process.join()
    local.start(assignment())
    with pytest.raises(WorkerError, match="ended by SIGKILL") as died:
        local.finished()
    local.start(died.value.assignment)
    _, (outcome,) = local.finished()
    assert "does not exist" in outcome.error


def test_workers_die_with_their_driver(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        """
import sys
from layerimp.bench.engines.local import Local
if __name__ == "__main__":
    engine = Local(["cpu", "cpu"])
    print(*(worker.process.pid for worker in engine._workers), flush=True)
    sys.stdin.read()
"""
    )
    driver = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout
    workers = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
    assert len(workers) == 2
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


def test_one_worker_for_each_device() -> None:
    assert devices("cpu", None) == ["cpu"]
    assert devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert len(devices(None, 3)) == 3


def test_a_device_that_is_not_here_is_said() -> None:
    with pytest.raises(OptionError, match="no device 'cuda:99' here"):
        device_named("cuda:99")
