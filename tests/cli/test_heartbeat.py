"""Where no terminal shows a bar, a line follows whenever nothing was said for half a minute, whatever the work does."""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from typing import Any

import pytest
from rich.console import Console

from layerimp.bench.work_queue import Tally
from layerimp.cli import display
from layerimp.cli.grid_progress import watching
from layerimp.cli.heartbeat import QUIET_SECONDS, Heartbeat


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def beat(clock: Clock) -> Heartbeat:
    return Heartbeat(clock=clock)


@pytest.fixture
def screen(beat: Heartbeat) -> display.Screen:
    """A screen whose stderr is a file."""
    made = display.Screen()
    made.err, made.heartbeat = Console(file=io.StringIO(), force_terminal=False, width=100), beat
    return made


def test_a_line_follows_half_a_minute_of_silence(screen: display.Screen, beat: Heartbeat, clock: Clock) -> None:
    with screen.stage("distill", 60, unit="steps") as advance:
        clock.now += QUIET_SECONDS - 1
        assert beat.due() is None
        clock.now += 1
        assert beat.due() == "distill: 0 of 60 steps, 30 s so far"  # a single long unit is no reason for silence
        assert beat.due() is None
        advance(12)
        clock.now += QUIET_SECONDS
        assert beat.due() == "distill: 12 of 60 steps, 1 min 0 s so far"
        advance(12)
        assert beat.due() is None
        clock.now += QUIET_SECONDS
        assert beat.due() == "distill: 24 of 60 steps, 1 min 30 s so far, about 2 min left"
        advance(36)
        clock.now += QUIET_SECONDS - 1
        screen.note("something else")
        clock.now += 1
        assert beat.due() is None  # nobody has waited
        clock.now += QUIET_SECONDS
        assert beat.due() == "distill: 60 of 60 steps, 2 min 30 s so far"


def test_the_innermost_stage_is_told_and_then_the_outer_one(
    screen: display.Screen, beat: Heartbeat, clock: Clock
) -> None:
    with screen.stage("heal"):
        with screen.stage("copy", 3_000_000, unit_bytes=1) as advance:
            for _ in range(2):
                clock.now += 20
                advance(1_000_000)
            assert beat.due() == "copy: 2.0 MB of 3.0 MB, 40 s so far, about 20 s left"
        clock.now += 40
        assert beat.due() == "heal: 1 min 20 s so far"
    clock.now += 40
    assert beat.due() == "at work for 2 min 0 s so far"  # also between stages


def test_a_share_is_told_in_percent(screen: display.Screen, beat: Heartbeat, clock: Clock) -> None:
    with screen.stage("distill", 100, unit="%") as advance:
        advance(0)
        clock.now += 60
        advance(25)
        assert beat.due() == "distill: 25%, 1 min 0 s so far, about 3 min left"


def test_work_of_an_interrupted_run_was_not_done_now(screen: display.Screen, beat: Heartbeat, clock: Clock) -> None:
    with screen.stage("distill", 100, unit="%") as advance:
        clock.now += 1
        advance(80)
        clock.now += 99
        advance(10)
        assert beat.due() == "distill: 90%, 1 min 40 s so far, about 2 min left"


def test_the_thread_says_it_while_the_work_holds_on() -> None:
    heard = threading.Event()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        heard.set()

    beat = Heartbeat(quiet=0.001)
    beat.start(say)
    with beat.about(lambda: "evaluate mood"):
        heard.clear()
        assert heard.wait(60)
    beat.end()
    assert "evaluate mood" in lines


def beats() -> list[threading.Thread]:
    """The threads of heartbeats."""
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_the_thread_ends_with_the_screen(error: Any) -> None:
    with pytest.raises(error) if error else nullcontext(), display.Screen():
        (thread,) = beats()
        assert thread.daemon
        if error:
            raise error
    assert not thread.is_alive()


def test_outside_of_a_context_nothing_starts() -> None:
    display.Screen().note("something")
    assert not beats()


def test_a_terminal_has_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_console", lambda _stream: Console(file=io.StringIO(), force_terminal=True))
    with display.Screen():
        assert not beats()


def test_a_grid_tells_how_many_cells_are_done(screen: display.Screen, beat: Heartbeat, clock: Clock) -> None:
    with watching(screen) as watcher:
        clock.now += QUIET_SECONDS
        assert beat.due() == "start the workers"
        for done in (0, 1, 2):
            watcher.update(Tally(done, 0, 1, 3, None))
        clock.now += QUIET_SECONDS
        assert beat.due() == "2 of 3 cells done, 1 running"
        watcher.update(Tally(3, 0, 0, 3, None))
    said = screen.err.file.getvalue()  # type: ignore[attr-defined]
    assert said.splitlines() == ["0 of 3 cells done, 1 running", "3 of 3 cells done"]
