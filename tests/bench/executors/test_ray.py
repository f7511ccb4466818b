"""The Ray engine on a real cluster of two nodes on this machine, one of which is killed during the run."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.grids import Watching

from layerimp.bench import commands as pipeline
from layerimp.bench.grid import Grid
from layerimp.bench.store import FILE
from layerimp.bench.work_queue import Tally
from layerimp.errors import InputError, OptionError
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, validated
from layerimp.report.document import Results

cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


LOOPBACK = "127.0.0.2"
"""Another loopback address than 127.0.0.1, which Ray would replace by the machine's address on the network."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each."""
    alone = {"num_cpus": 1, "node_ip_address": LOOPBACK, "include_dashboard": False, "object_store_memory": 80 << 20}
    made_cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=alone)
    made_cluster.second = made_cluster.add_node(**alone)
    made_cluster.wait_for_nodes()
    yield made_cluster
    made_cluster.shutdown()


@pytest.fixture
def grid(model_dir: Path, calibration_file: Path, task: Path) -> Grid:
    return validated(
        Grid,
        {
            "models": {"tiny": str(model_dir)},
            "scorers": ["avss", "lrp"],
            "counts": [1],
            "ratios": [0.5],
            "healers": ["rescale"],
            "repeats": 2,
            "tasks": [str(task)],
            "calibration": {"source": str(calibration_file), "samples": 16, "max_length": 16},
            "batch_size": 4,
        },
    )


def run(grid: Grid, output: Path, watcher: Watching, **how: Any) -> Results:
    return pipeline.run_grid(grid, output, permissions=Permissions(), progress=SILENT, watcher=watcher, **how)


def without_time_and_place(results: Results) -> dict[str, Any]:
    document = results.model_dump(mode="json")
    del document["seconds"], document["output"]
    for scored in document["models"]["tiny"]["scored"].values():
        del scored["cost"]
    return document


def differences(value: Any, other: Any, place: str = "") -> list[str]:
    """The places where two documents differ, numbers by more than rounding."""
    if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
        return [each for key in value for each in differences(value[key], other[key], f"{place}/{key}")]
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        return [
            each for n, pair in enumerate(zip(value, other, strict=True)) for each in differences(*pair, f"{place}/{n}")
        ]
    equal = value == pytest.approx(other, rel=1e-6, abs=1e-9) if isinstance(value, float) else value == other
    return [] if equal else [f"{place}: {value} and {other}"]


class Killing(Watching):
    """Kills a node when some cells are done and others are in progress."""

    def __init__(self, cluster: Any) -> None:
        super().__init__()
        self._cluster = cluster
        self.killed = False

    def update(self, tally: Tally) -> None:
        super().update(tally)
        if tally.done >= 12 and tally.running == 2 and not self.killed:
            self._cluster.remove_node(self._cluster.second, allow_graceful=False)
            self.killed = True


@pytest.mark.slow
def test_a_node_dies_and_the_tables_are_those_of_one_machine(cluster: Any, grid: Grid, tmp_path: Path) -> None:
    watcher = Killing(cluster)
    distributed = run(grid, tmp_path / "ray", watcher, engine="ray", address=cluster.address)
    assert watcher.killed
    assert watcher.failures == []
    alone = run(grid, tmp_path / "alone", Watching())
    assert differences(without_time_and_place(distributed), without_time_and_place(alone)) == []
    with sqlite3.connect(tmp_path / "ray" / FILE) as connection:
        assert connection.execute("SELECT max(attempts) FROM cells").fetchone() == (1,)
    assert distributed.cells["open"] == 0


def test_without_ray_the_extra_is_named(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'layerimp\[ray\]'"):
        run(grid, tmp_path / "out", Watching(), engine="ray")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"engine": "rai"}, "unknown engine 'rai'. Did you mean 'ray'"),
        ({"engine": "ray", "device": "cpu"}, "--device is for the local engine"),
        ({"workers": 2}, "--workers is for a Ray cluster; it needs --engine ray"),
        ({"address": "somewhere:1"}, "needs --engine ray"),
    ],
)
def test_what_does_not_go_together_is_said(grid: Grid, tmp_path: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(grid, tmp_path / "out", Watching(), **how)
    assert not (tmp_path / "out").exists()


def test_nobody_at_an_address_is_said(grid: Grid, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no Ray cluster answers at 127\.0\.0\.2:9: Connection refused"):
        run(grid, tmp_path / "out", Watching(), engine="ray", address=f"{LOOPBACK}:9")
