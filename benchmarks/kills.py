"""Kills a grid at random moments, has it go on each time, and compares the end with a grid that nobody disturbed.

    python benchmarks/kills.py --output DIR

The process that drives the grid gets SIGKILL, which it cannot see coming; its workers have to be gone by themselves. At
the end every cell must be there, computed once, and with the result of the undisturbed grid; the times that cells of
kind `costing` hold are left out. A grid that is through before all kills are done is followed by another one.
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
    "counts": [1, 2],
    "ratios": [0.25, 0.5],
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
    recipe, calm = output / "grid.json", output / "calm"
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
    killed, round_, cells, computed = 0, 0, 0, 0
    while killed < kills:
        disturbed = output / f"disturbed {round_}"
        driver, before = psutil.Process(start(disturbed).pid), count(disturbed)
        # Every other kill falls into the start; the rest once something new is finished.
        if killed % 2:
            time.sleep(rng.uniform(0, 8))
        else:
            while driver.status() != psutil.STATUS_ZOMBIE and count(disturbed) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1))
        workers = driver.children(recursive=True)
        if driver.status() != psutil.STATUS_ZOMBIE:
            driver.kill()
            driver.wait()
            killed += 1
            _, alive = psutil.wait_procs(workers, timeout=10)
            done = count(disturbed)
            said = f"{len(workers)} processes below it, {len(alive)} left after it; {done - before} new cells"
            print(f"kill {killed}: {said}, {done} of {total}", flush=True)
        if count(disturbed) == total or killed == kills:
            if start(disturbed).wait():
                raise SystemExit("the last run failed")
            with sqlite3.connect(disturbed / FILE) as connection:
                ((here, attempts),) = connection.execute("SELECT count(*), sum(attempts) FROM cells").fetchall()
            same = results(disturbed) == results(calm)
            print(
                f"grid {round_}: {here} cells, computed {attempts} times in all; equal to the undisturbed one: {same}"
            )
            round_, cells, computed = round_ + 1, cells + here, computed + attempts
    print(f"in the end: {killed} kills, {cells} cells, computed {computed} times in all")


if __name__ == "__main__":
    typer.run(main)
