"""Endurance: a grid under attack, the memory of a long run, and what many runs leave behind.

    python benchmarks/endurance.py grid --output DIR --minutes 20
    python benchmarks/endurance.py memory
    python benchmarks/endurance.py leaks

`grid`: the process that runs a grid of some 300 cells is killed (SIGKILL, which it cannot catch) and stopped for a
while (SIGSTOP), its disk fills up, and becomes read-only; each time the same command continues. For the last two
disturbances the store is on a small file system in memory, which needs permission to mount; without it they are
skipped. At the end, every cell must have been computed once, and have the result of an undisturbed grid, except for the
times in cells of kind `costing`. If a grid finishes early, another one is started.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import typer

import layerimp
from layerimp import Recipe
from layerimp.bench.store import FILE

GRID: dict[str, Any] = {
    "scorers": ["avss", "block-influence", "relative-magnitude", "gbis", "lrp"],
    "counts": [1, 2],
    "ratios": [0.25, 0.5],
    "repeats": 8,
    "limit": 10,
    "calibration": {"samples": 8, "max_length": 64},
}
SIZE = "64m"
"""The size of the file system in memory: enough for a store, and quickly filled up."""
MIB = 1 << 20

app = typer.Typer()


def results(directory: Path) -> dict[str, Any]:
    """Return the results by key, without times."""
    with sqlite3.connect(f"file:{directory / FILE}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT key, kind, result FROM cells").fetchall()
    return {key: None if kind == "costing" else json.loads(result) for key, kind, result in rows}


def count(directory: Path) -> int:
    try:
        return len(results(directory))
    except sqlite3.Error:  # there is no store yet
        return 0


class Attack:
    """Disturbances of a grid.

    Args:
        place: A separate directory, on a separate file system if one can be mounted.
        recipe: The grid.
        rng: The random generator that chooses disturbances and times.
    """

    def __init__(self, place: Path, recipe: Path, rng: random.Random) -> None:
        self._place, self._recipe, self._rng = place, recipe, rng
        self.done: Counter[str] = Counter()
        place.mkdir()
        self.mounted = mounted("-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place))
        self.directory = place / "store"

    def ways(self) -> list[Callable[[psutil.Process], None]]:
        """The disturbances that are possible on this machine."""
        return [self.kill, self.stop, *([self.fill, self.read_only] if self.mounted else [])]

    def start(self) -> psutil.Process:
        """Start the command, which begins or continues the grid."""
        return psutil.Process(launched(self._recipe, self.directory).pid)

    def disturb(self) -> None:
        """Let the grid run for a moment, and disturb it in one way."""
        driver = self.start()
        time.sleep(self._rng.uniform(0, 12))
        way = self._rng.choice(self.ways())
        if is_running(driver):
            way(driver)
            self.done[way.__name__] += 1
        self.kill(driver)

    def kill(self, driver: psutil.Process) -> None:
        """Send SIGKILL to the main process; the workers have to end by themselves."""
        workers = driver.children(recursive=True) if is_running(driver) else []
        if is_running(driver):
            driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(workers, timeout=10)
        if alive:
            raise SystemExit(f"{len(alive)} of {len(workers)} workers outlive the driver")

    def stop(self, driver: psutil.Process) -> None:
        """Stop the process for a few seconds by SIGSTOP."""
        driver.suspend()
        time.sleep(self._rng.uniform(1, 5))
        driver.resume()
        time.sleep(self._rng.uniform(1, 5))

    def fill(self, driver: psutil.Process) -> None:
        """Fill the disk for a while; the command may end, with one line."""
        ballast = self._place / "ballast"
        with suppress(OSError):
            ballast.write_bytes(bytes(psutil.disk_usage(str(self._place)).free))
        self._wait_for_the_end(driver)
        ballast.unlink()

    def read_only(self, driver: psutil.Process) -> None:
        """Make the disk read-only for a while. The system refuses to remount while a file is open for writing."""
        if mounted("-o", "remount,ro", str(self._place)):
            self._wait_for_the_end(driver)
            mounted("-o", "remount,rw", str(self._place))

    def _wait_for_the_end(self, driver: psutil.Process) -> None:
        try:
            code = driver.wait(timeout=15)
        except psutil.TimeoutExpired:
            return
        if code not in (0, 1, 2):
            raise SystemExit(f"the command ended with {code} where it could not write")

    def finish(self) -> None:
        """Run the grid to its end."""
        if launched(self._recipe, self.directory).wait():
            raise SystemExit("the last run failed")

    def close(self) -> None:
        """Unmount the file system."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self._place)], check=True)  # a killed process may still hold it


def mounted(*arguments: str) -> bool:
    """Whether a mount succeeds."""
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode == 0


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def launched(recipe: Path, directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "layerimp", "bench", "--recipe", str(recipe), "--output", str(directory)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@app.command()
def grid(
    output: Annotated[Path, typer.Option(help="A new directory.")],
    minutes: Annotated[float, typer.Option()] = 20,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Disturb grids for a while, and compare each result with an undisturbed grid."""
    output.mkdir(parents=True)
    recipe, calm = output / "grid.json", output / "calm"
    recipe.write_text(json.dumps(GRID))
    began = time.monotonic()
    if launched(recipe, calm).wait():
        raise SystemExit("the undisturbed grid failed")
    print(f"undisturbed: {count(calm)} cells in {time.monotonic() - began:.0f} s", flush=True)
    rng, began, number = random.Random(seed), time.monotonic(), 0
    while (time.monotonic() - began) / 60 < minutes:
        attack = Attack(output / f"disturbed {number}", recipe, rng)
        try:
            while count(attack.directory) < count(calm) and (time.monotonic() - began) / 60 < minutes:
                attack.disturb()
            attack.finish()
            with sqlite3.connect(attack.directory / FILE) as connection:
                ((here, attempts),) = connection.execute("SELECT count(*), sum(attempts) FROM cells").fetchall()
            same = results(attack.directory) == results(calm)
            disturbances = ", ".join(f"{way} {times}" for way, times in sorted(attack.done.items()))
            print(f"grid {number}: {disturbances}; {here} cells, computed {attempts} times; equal: {same}", flush=True)
            if not same:
                raise SystemExit("the disturbed grid differs from the undisturbed one")
        finally:
            attack.close()
        number += 1


@app.command()
def memory(batches: Annotated[int, typer.Option()] = 2000) -> None:
    """The resident memory of one scoring over many batches, after the first hundred and at the end."""
    model, _ = layerimp.load("starter")
    process, sizes = psutil.Process(), {}

    def text() -> Iterator[dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for number in range(batches):
            if number in (100, batches - 1):
                gc.collect()
                sizes[number] = process.memory_info().rss
            ids = torch.randint(3, 1000, (4, 32), generator=generator)
            yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    layerimp.score(model, text(), ["avss", "block-influence", "gbis", "lrp"])
    grown = (sizes[batches - 1] - sizes[100]) / MIB
    print(f"{batches} batches: {sizes[100] / MIB:.0f} MiB after 100, {grown:+.1f} MiB at the end")


@app.command()
def leaks(runs: Annotated[int, typer.Option()] = 50) -> None:
    """File descriptors, threads and temporary files after the third and after the last of many runs in one process."""
    calibration = {"samples": 4, "max_length": 64, "packing": "rows"}
    process, counts = psutil.Process(), {}
    with tempfile.TemporaryDirectory() as place:
        os.environ["TMPDIR"] = tempfile.tempdir = place
        for number in range(1, runs + 1):
            recipe = Recipe.model_validate({"calibration": calibration, "tasks": ["starter_stories"], "limit": 4})
            layerimp.run(recipe.model_copy(update={"output": Path(place, "out"), "overwrite": True}))
            if number in (3, runs):
                gc.collect()
                files = sum(len(names) for _, _, names in os.walk(place))
                counts[number] = process.num_fds(), threading.active_count(), files
    for number, (descriptors, threads, files) in counts.items():
        print(f"after {number} runs: {descriptors} file descriptors, {threads} threads, {files} files")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    app()
