"""Every test runs offline, on the CPU, with a metrics cache of its own."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from layerimp.registry import loader

# Imports make much that stays; looking through it for garbage meanwhile takes a tenth of their time.
gc.disable()

for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
    os.environ[variable] = "1"
# Tests must be the same on machines with a GPU; `CUDA_VISIBLE_DEVICES=0 pytest -m gpu` runs those that need one.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# Tests must be the same on every processor; the tests of the decision itself set this variable again.
os.environ["LAYERIMP_CPU_HALF"] = "stored"

# A process builds its commands once, however many of them a test worker runs: that takes longer than most tests.
typer.main.get_command = cache(typer.main.get_command)


class _Unsynced(sqlite3.Connection):
    """A connection that does not wait for the disk after each transaction. Tests survive ends of processes alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        with suppress(sqlite3.Error):  # the file is no database; whoever opens it finds that out
            self.execute("PRAGMA synchronous = OFF")


sqlite3.connect = partial(sqlite3.connect, factory=_Unsynced)

from support import last_bit
from support.fake_plugins import Install, Plug, installer
from support.mood import Run, mood
from support.tiny import saved, tiny

from layerimp.cli import main
from layerimp.hookspecs import PROJECT
from layerimp.registry.assets import assets
from layerimp.registry.catalog import registry
from layerimp.registry.loader import host
from layerimp.testing.tiny import WORDS


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("layerimp")
    group.addoption(
        "--last-bit",
        action="store_true",
        help="Change the last bit of products and attention, as another processor does; see CONTRIBUTING.md.",
    )
    # Small models do not gain from threads, and parallel test workers get slower with them.
    group.addoption("--threads", type=int, default=1, help="Threads of torch, in child processes too. Default: 1.")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["OMP_NUM_THREADS"] = str(config.getoption("threads"))
    torch.set_num_threads(config.getoption("threads"))
    if config.getoption("last_bit"):
        last_bit.install()
        last_bit.follow()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what was imported, which stays: Trainer collects several times in each training."""
    collected = yield
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)  # most that a test makes is gone by then, and never looked through
    gc.enable()
    return collected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say of a test of bit-equality what must be equal: a failure is a broken promise, not another processor."""
    report = yield
    if report.failed and (marker := item.get_closest_marker("same_bits")):
        report.sections.append(("equal to the bit on every processor", marker.args[0]))
    return report


@pytest.fixture(autouse=True)
def _own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset COLUMNS, which differs between parallel test workers."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The caches of all tests. `mktemp` for each would look through those of all tests before it."""
    parent = tmp_path_factory.mktemp("caches")
    return (parent / str(number) for number in count())


@pytest.fixture(autouse=True)
def _own_cache(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERIMP_CACHE", str(next(_caches)))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Makes an entry point for a module that holds given hooks, or a given source."""
    return installer(monkeypatch, tmp_path)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plug]:
    """Adds entry points to the installed ones, for the whole process."""
    installed = entry_points(group=PROJECT)

    def forget() -> None:
        for cached in (host, registry, assets):
            cached.cache_clear()

    def plug(*points: EntryPoint) -> None:
        monkeypatch.setattr(loader, "entry_points", lambda group: [*installed, *points])
        forget()

    yield plug
    forget()


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer, as a checkpoint."""
    return saved(tiny("llama"), tmp_path_factory.mktemp("model") / "tiny-llama")


@pytest.fixture(scope="session")
def calibration_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 documents of random words."""
    rng = random.Random(0)
    lines = [json.dumps({"text": " ".join(rng.choices(WORDS[4:], k=30))}) for _ in range(40)]
    path = tmp_path_factory.mktemp("text") / "calibration.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def scoring(model_dir: Path, calibration_file: Path) -> list[object]:
    """What a command is given to score the tiny Llama on 8 short rows."""
    return ["--model", model_dir, "--calibration", calibration_file, "--samples", 8, "--max-length", 16]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of 12 documents: accuracy."""
    return mood(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser to look at pages in."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def layerimp_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives its exit code, stdout and stderr."""

    def command(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["layerimp", *map(str, args)])
        monkeypatch.setattr(sys.modules["__main__"], "__package__", "")  # click's name for us, under python -m pytest
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capfd.readouterr()
        return int(done.value.code or 0), out, err

    return Run(command)
