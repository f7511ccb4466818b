"""A terminal shows a bar for each stage under way; a log gets a line for each that is done, and others in between."""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from typing import Any

import pytest
from rich.console import Console

from layerimp.bench.work_queue import Tally
from layerimp.cli import progress
from layerimp.cli.progress import Reporter


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Reporter:
    """A reporter whose stderr is a file."""
    return Reporter(Console(file=io.StringIO(), force_terminal=False, width=100), clock)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Reporter:
    monkeypatch.setenv("TERM", "xterm")
    return Reporter(Console(file=io.StringIO(), force_terminal=True, width=120, legacy_windows=False))


def written(reporter: Reporter) -> str:
    return reporter.err.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_what_is_under_way(log: Reporter, clock: Clock) -> None:
    with log.stage("distill", 60, unit="steps") as advance:
        clock.now += 30
        assert (
            log.under_way() == "distill: 0 of 60 steps, 0:00:30 so far"
        )  # a single long unit is no reason for silence
        advance(12)
        clock.now += 30
        assert log.under_way() == "distill: 12 of 60 steps, 0:01:00 so far"
        advance(12)
        clock.now += 30
        assert log.under_way() == "distill: 24 of 60 steps, 0:01:30 so far, about 2 min left"
    assert written(log) == "distill: 90.0 s\n"


def test_the_innermost_stage_is_told_and_then_the_outer_one(log: Reporter, clock: Clock) -> None:
    with log.stage("heal"):
        with log.stage("copy", 3_000_000, unit="bytes") as advance:
            for _ in range(2):
                clock.now += 20
                advance(1_000_000)
            assert log.under_way() == "copy: 2.0 MB of 3.0 MB, 0:00:40 so far, about 20 s left"
        clock.now += 40
        assert log.under_way() == "heal: 0:01:20 so far"
    clock.now += 40
    assert log.under_way() == "at work for 0:02:00 so far"  # also between stages


def test_work_of_an_interrupted_run_was_not_done_now(log: Reporter, clock: Clock) -> None:
    with log.stage("distill", 100, unit="%") as advance:
        clock.now += 1
        advance(80)
        clock.now += 99
        advance(10)
        assert log.under_way() == "distill: 90%, 0:01:40 so far, about 2 min left"


def test_a_line_breaks_the_silence_while_the_work_holds_on(log: Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    said = threading.Event()
    say = log.say
    monkeypatch.setattr(log, "say", lambda line: [say(line), said.set()])
    with log, log.stage("evaluate mood"):
        said.clear()
        assert said.wait(60)
    assert "evaluate mood: 0:00:00 so far\n" in written(log)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_silence_comes_back_with_the_end(log: Reporter, error: Any) -> None:
    with pytest.raises(error) if error else nullcontext(), log:
        (thread,) = beats()
        assert thread.daemon
        with log.stage("heal"):
            if error:
                raise error
    thread.join(60)
    assert not thread.is_alive()
    assert ("heal" in written(log)) == (error is None)


def beats() -> list[threading.Thread]:
    """The threads that break the silence."""
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_an_error_before_any_work_is_the_only_line(log: Reporter) -> None:
    log.__enter__()
    log.note("something")
    log.__exit__(RuntimeError)
    assert written(log) == ""
    with log:
        log.note("something")
    assert written(log) == "note: something\n"


@pytest.mark.parametrize(("unit", "count"), [("bytes", "5 bytes of 10 bytes "), ("batches", "5 of 10 batches ")])
def test_a_terminal_has_bars_which_go_with_their_stages(terminal: Reporter, unit: str, count: str) -> None:
    with terminal:
        assert not beats()
        with terminal.stage("score avss", 10, unit=unit) as advance:
            advance(2)
            advance(3)
            terminal._bars.refresh()
            assert count in written(terminal)
            print("a warning of a library")
            with terminal.stage("inside"):
                terminal._bars.refresh()
            assert terminal._bars.live.is_started
        assert not terminal._bars.live.is_started
    assert "score avss: 0.0 s" in written(terminal)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_takes_the_bars_away(terminal: Reporter, error: type[BaseException]) -> None:
    with pytest.raises(error), terminal, terminal.stage("heal"):
        raise error
    assert not terminal._bars.live.is_started


def test_a_grid_tells_how_many_cells_are_done(log: Reporter) -> None:
    with log.grid() as watcher:
        assert log.under_way() == "compute the cells: 0:00:00 so far"
        for done in (0, 1, 2):
            watcher.update(Tally(done, 0, 1, 3))
        assert log.under_way().startswith("2 of 3 cells done, 1 running: ")
        watcher.failed("a cell", "no memory")  # type: ignore[arg-type]
        watcher.update(Tally(2, 1, 0, 3))
    assert written(log).splitlines() == [
        "0 of 3 cells done, 1 running",
        "failed: a cell: no memory",
        "2 of 3 cells done, 1 failed",
    ]
