"""Kills a grid at random moments, has it go on each time, and compares the end with a grid that nobody disturbed.

    python benchmarks/kills.py --output DIR

The process that drives the grid gets SIGKILL, which it cannot see coming; its workers have to be gone by themselves. At
the end every cell must be there, computed once, and with the result of the undisturbed grid; the times that cells of
kind `costing` hold are left out.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from layerimp.bench.store import FILE

GRID: dict[str, Any] = {
    "scorers": ["avss", "lrp"],
    "ratios": [1, 2, 0.25, 0.5],
    "repeats": 3,
    "limit": 20,
    "calibration": {"samples": 8, "max_length": 64},
}


def results(directory: Path) -> dict[str, Any]:
    """Key -> result; without times."""
    with sqlite3.connect(f"file:{directory / FILE}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT key, kind, result FROM cells").fetchall()
    return {key: None if kind == "costing" else json.loads(result) for key, kind, result in rows}


def count(directory: Path) -> int:
    try:
        return len(results(directory))
    except sqlite3.OperationalError:  # there is no store yet
        return 0


def main(
    output: Annotated[Path, typer.Option(help="A new directory.")],
    kills: Annotated[int, typer.Option()] = 20,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    output.mkdir(parents=True)
    recipe, disturbed, calm = output / "grid.json", output / "disturbed", output / "calm"
    recipe.write_text(json.dumps(GRID))
    rng = random.Random(seed)

    def start(directory: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "layerimp", "bench", "--recipe", str(recipe), "--output", str(directory)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    began = time.monotonic()
    if start(calm).wait():
        raise SystemExit("the undisturbed grid failed")
    span, total = time.monotonic() - began, count(calm)
    print(f"undisturbed: {total} cells in {span:.0f} s", flush=True)
    done = 0
    for number in range(1, kills + 1):
        driver, before = psutil.Process(start(disturbed).pid), count(disturbed)
        # Every other kill falls into the start; the rest once something new is finished.
        if number % 2:
            time.sleep(rng.uniform(0, span / 2))
        else:
            while driver.status() != psutil.STATUS_ZOMBIE and count(disturbed) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1))
        workers = driver.children(recursive=True)
        ended = driver.status() == psutil.STATUS_ZOMBIE
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(workers, timeout=10)
        done = count(disturbed)
        state = (
            "had ended by itself"
            if ended
            else f"killed with {len(workers)} processes below, {len(alive)} left after it"
        )
        print(f"{number}: {state}; {done - before} new cells, {done} of {total}", flush=True)
    if start(disturbed).wait():
        raise SystemExit("the last run failed")
    with sqlite3.connect(disturbed / FILE) as connection:
        ((cells, attempts),) = connection.execute("SELECT count(*), sum(attempts) FROM cells").fetchall()
    same = results(disturbed) == results(calm)
    print(f"in the end: {cells} cells, computed {attempts} times in all; equal to the undisturbed grid: {same}")


if __name__ == "__main__":
    typer.run(main)
