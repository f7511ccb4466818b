"""Where no terminal shows a bar, a line follows whenever nothing was said for half a minute, whatever the work does."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from layerimp.bench.work_queue import Tally
from layerimp.cli import display
from layerimp.cli.grid_progress import watching
from layerimp.cli.heartbeat import QUIET_SECONDS, Heartbeat, beating, heartbeat


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
        assert beat.due() == "distill: 12 of 60 steps, 1 min 0 s so far, about 4 min left"
        advance(48)
        clock.now += QUIET_SECONDS - 1
        screen.note("something else")
        clock.now += 1
        assert beat.due() is None  # nobody has waited
        clock.now += QUIET_SECONDS
        assert beat.due() == "distill: 60 of 60 steps, 2 min 0 s so far"


def test_the_innermost_stage_is_told_and_then_the_outer_one(
    screen: display.Screen, beat: Heartbeat, clock: Clock
) -> None:
    with screen.stage("heal"):
        with screen.stage("copy", 3_000_000, unit_bytes=1) as advance:
            advance(1_000_000)
            clock.now += 40
            assert beat.due() == "copy: 1.0 MB of 3.0 MB, 40 s so far, about 80 s left"
        clock.now += 40
        assert beat.due() == "heal: 1 min 20 s so far"
    clock.now += 40
    assert beat.due() == "at work for 2 min 0 s so far (last: heal)"  # also between stages


def test_a_share_is_told_in_percent(beat: Heartbeat, clock: Clock) -> None:
    with beat.stage("distill", 100, "%", 0) as advance:
        advance(25)
        clock.now += 60
        assert beat.due() == "distill: 25%, 1 min 0 s so far, about 3 min left"


def test_work_of_an_interrupted_run_was_not_done_now(beat: Heartbeat, clock: Clock) -> None:
    with beat.stage("distill", 100, "%", 0) as advance:
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

    with Heartbeat(quiet=0.001) as beat:
        beat.start(say)
        with beat.stage("evaluate mood", 8, "requests", 0):
            heard.clear()
            assert heard.wait(60)
    assert lines[-1].startswith("evaluate mood: 0 of 8 requests, ")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_the_thread_ends_with_the_command(error: Any) -> None:
    threads: list[threading.Thread] = []

    @beating
    def command() -> Any:
        heartbeat().start(print)
        threads.extend(one for one in threading.enumerate() if one.name == "heartbeat")
        if error:
            raise error
        return 5

    if error:
        with pytest.raises(error):
            command()
    else:
        assert command() == 5
    (thread,) = threads
    assert thread.daemon
    assert not thread.is_alive()


def test_outside_of_commands_nothing_starts() -> None:
    heartbeat().start(print)
    assert all(one.name != "heartbeat" for one in threading.enumerate())


def test_a_terminal_has_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_console", lambda _stream: Console(file=io.StringIO(), force_terminal=True))
    started: list[bool] = []

    @beating
    def command() -> None:
        display.Screen()
        started.extend(one.name == "heartbeat" for one in threading.enumerate())

    command()
    assert not any(started)


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
