"""The same grid by the local engine and by Ray: cells per minute, what Ray adds to a cell, and whether they agree.

    python benchmarks/engines.py --output DIR

Each engine computes a part of the grid of `endurance.py` on the starter in a new directory, with one thread per
worker. The time is from the first to the last cell; a first run fills the disk's caches. With --kill, one of two nodes
is killed when some cells are done.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}

import typer
from endurance import GRID, results
from ray.cluster_utils import Cluster

from layerimp.bench import commands as pipeline
from layerimp.bench.cells import Cell
from layerimp.bench.grid import Grid
from layerimp.bench.scheduler import Watcher
from layerimp.bench.work_queue import Tally
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, validated

LOOPBACK = "127.0.0.2"
NODE = {"num_cpus": 1, "node_ip_address": LOOPBACK, "include_dashboard": False, "object_store_memory": 80 << 20}


class Clock(Watcher):
    """Records when the first and the last cell finished; `when` is called with each tally."""

    def __init__(self, when: Callable[[Tally], None] = lambda _: None) -> None:
        self.start: float | None = None
        self.end = 0.0
        self.tally: Tally | None = None
        self._when = when

    def update(self, tally: Tally) -> None:
        self.start = self.start or time.monotonic()
        self.end, self.tally = time.monotonic(), tally
        self._when(tally)

    def failed(self, cell: Cell, error: str) -> None:
        print(f"failed: {cell}: {error}")


def close(result: Any, other: Any) -> bool:
    """Whether two results are equal, numbers to a millionth: shards are summed in another order."""
    if isinstance(result, dict):
        return result.keys() == other.keys() and all(close(result[key], other[key]) for key in result)
    if isinstance(result, list):
        return len(result) == len(other) and all(map(close, result, other))
    return (
        abs(result - other) <= 1e-6 * max(abs(result), abs(other), 1e-3)
        if isinstance(result, float)
        else result == other
    )


def main(
    output: Annotated[Path, typer.Option(help="A new directory.")],
    kill: Annotated[bool, typer.Option("--kill", help="Kill one of two nodes during the run.")] = False,
) -> None:
    grid = validated(Grid, GRID | {"counts": [1], "ratios": [0.25]})

    def timed(name: str, clock: Clock, **how: Any) -> float:
        pipeline.run_grid(grid, output / name, permissions=Permissions(), progress=SILENT, watcher=clock, **how)
        assert clock.start
        assert clock.tally
        seconds = clock.end - clock.start
        per_cell = seconds / clock.tally.done
        print(f"{name}: {clock.tally.done} cells in {seconds:.1f} s, {60 / per_cell:.0f} a minute", flush=True)
        return per_cell

    timed("warm-up", Clock(), workers=1, device="cpu")
    local = timed("local, 1 worker", Clock(), workers=1, device="cpu")
    timed("local, 2 workers", Clock(), workers=2, device="cpu")
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    with_ray = timed("ray, 1 worker", Clock(), engine="ray", address=cluster.address)
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    timed("ray, 2 workers", Clock(), engine="ray", address=cluster.address)
    print(f"with one worker Ray adds {1000 * (with_ray - local):.0f} ms to a cell of {1000 * local:.0f} ms")
    names = ["ray, 1 worker", "ray, 2 workers"]
    if kill:
        killed: list[float] = []

        def when(tally: Tally) -> None:
            if not killed and tally.done > 25 and tally.running:
                cluster.remove_node(second, allow_graceful=False)
                killed.append(time.monotonic())
                print(f"killed one of two nodes: {json.dumps(tally.__dict__)}", flush=True)

        timed("ray, a node killed", Clock(when), engine="ray", address=cluster.address)
        names.append("ray, a node killed")
    expected = results(output / "local, 1 worker")
    for name in names:
        actual = results(output / name)
        same = sum(close(actual.get(key), result) for key, result in expected.items())
        print(f"{name}: {same} of {len(expected)} cells equal those of the local engine")
    cluster.shutdown()


if __name__ == "__main__":
    typer.run(main)
