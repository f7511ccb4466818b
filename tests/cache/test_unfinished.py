"""`layerimp cache`: the directories of interrupted work, and metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support.mood import Run

from layerimp.cache.directory import cache_directory, entries
from layerimp.cache.unfinished import Unfinished, in_use

WORK = {"healer": "distill", "steps": 5}


def interrupted(content: dict[str, object]) -> Path:
    """The directory of work that was interrupted."""
    with suppress(KeyboardInterrupt), Unfinished() as unfinished:
        directory = unfinished.directory(content, "distill of Model without block 1")
        assert directory is not None
        (directory / "state").write_bytes(bytes(2000))
        raise KeyboardInterrupt
    return directory


def test_interrupted_work_is_found_again_and_removed_once_it_is_done() -> None:
    directory = interrupted(WORK)
    assert interrupted(WORK) == directory
    assert interrupted({**WORK, "steps": 6}) != directory
    with Unfinished() as unfinished:
        assert unfinished.directory(WORK, "again") == unfinished.directory(WORK, "again") == directory
        assert (directory / "state").exists()
    assert not directory.exists()
    with suppress(KeyboardInterrupt), Unfinished() as unfinished:
        directory = unfinished.directory(WORK, "nothing is kept")
        raise KeyboardInterrupt
    assert directory is not None
    assert not directory.exists()


def test_two_processes_do_not_write_into_each_other() -> None:
    """Only one live process gets a directory; once that process is dead, the next one gets it, without half files."""
    with Unfinished() as first:
        directory = first.directory(WORK, "mine")
        assert directory is not None
        assert in_use(directory)
        assert Unfinished().directory(WORK, "yours") is None
    code = (
        "from layerimp._paths import whole\n"
        "from layerimp.cache.unfinished import Unfinished; mine = Unfinished()\n"
        f"place = mine.directory({WORK!r}, 'theirs')\n"
        "with whole(place / 'state') as new: new.write_text('half'); print(place, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(directory)
        assert in_use(directory)
        assert Unfinished().directory(WORK, "mine") is None
        other.kill()
    assert not in_use(directory)
    with Unfinished() as last:
        assert last.directory(WORK, "mine") == directory
        assert sorted(path.name for path in directory.iterdir()) == ["about.txt", "lock"]


def test_where_nothing_can_be_written_there_is_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAYERIMP_CACHE", str(tmp_path / "file"))
    assert Unfinished().directory(WORK, "mine") is None


def test_the_command_shows_and_clears(layerimp_command: Run) -> None:
    def shown(*options: str) -> str:
        code, out, _ = layerimp_command("cache", *options)
        assert code == 0
        return out

    assert "nothing" in shown()
    interrupted(WORK)
    metrics = cache_directory("metrics")
    metrics.mkdir()
    for name in ("a.json", "b.json"):
        (metrics / name).write_text("{}")
    table = shown()
    assert "distill of Model without block 1" in table
    assert "2.0 kB" in table
    with Unfinished() as running:
        assert running.directory({"steps": 7}, "running") is not None
        cleared = json.loads(shown("--clear", "unfinished", "--json"))
        assert [row["about"] for row in cleared["removed"]] == ["distill of Model without block 1"]
        assert [(row["about"], row["entries"], row["in_use"]) for row in cleared["kept"]] == [
            ("metrics of intact models", 2, False),
            ("running", 1, True),
        ]
    assert "removed" in shown("--clear", "all")
    assert not entries("metrics")
