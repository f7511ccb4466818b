"""A directory appears complete under its name, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from layerimp.checkpoint.staging import check_target, staged
from layerimp.errors import OutputError
from layerimp.pipeline.output import why_not_ours


def always(_: Path) -> None:
    """Allows replacing any directory."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "out"


def full(target: Path, text: str = "old") -> Path:
    target.mkdir(parents=True)
    (target / "file").write_text(text)
    return target


def names(directory: Path) -> list[str]:
    """The content of a directory; empty if it does not exist."""
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_nothing_has_the_name_before_the_end(out: Path) -> None:
    with staged(out) as stage:
        (stage / "file").write_text("new")
        assert not out.exists()
        assert stage.parent == out.parent
    assert (out / "file").read_text() == "new"
    assert names(out.parent) == ["out"]
    assert out.stat().st_mode & 0o700 == 0o700


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
@pytest.mark.parametrize("before", ["absent", "empty", "full"])
def test_a_failure_leaves_what_was(out: Path, error: type[BaseException], before: str) -> None:
    if before == "full":
        full(out)
    elif before == "empty":
        out.mkdir(parents=True)

    def fail() -> None:
        with staged(out, why_not=always) as stage:
            (stage / "file").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(out.parent) == ([] if before == "absent" else ["out"])
    assert out.parent.exists() == (before != "absent")
    if before == "full":
        assert (out / "file").read_text() == "old"


def test_others_may_read_an_output_as_the_umask_says(out: Path) -> None:
    """safetensors writes files that only their owner may read."""
    mask = os.umask(0o027)
    try:
        with staged(out) as stage:
            (stage / "inner").mkdir()
            (stage / "inner" / "weights").touch(0o600)
    finally:
        os.umask(mask)
    places = (out, out / "inner", out / "inner" / "weights")
    assert [stat.S_IMODE(place.stat().st_mode) for place in places] == [0o750, 0o750, 0o640]


def test_an_existing_output_stays(out: Path) -> None:
    full(out)
    with pytest.raises(OutputError, match=r"out exists; .*--overwrite"), staged(out):
        pytest.fail("entered")
    with (
        pytest.raises(OutputError, match=r"does not replace .*: it holds 'file', which layerimp did not write"),
        staged(out, why_not=why_not_ours),
    ):
        pytest.fail("entered")
    assert (out / "file").read_text() == "old"
    assert names(out.parent) == ["out"]


def file_at(path: Path) -> None:
    path.write_text("a file")


def dangling_link_at(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def link_to_empty_at(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("make", [file_at, dangling_link_at, link_to_empty_at])
def test_only_an_empty_directory_counts_as_absent(tmp_path: Path, make: Callable[[Path], None]) -> None:
    target = tmp_path / "out"
    make(target)
    for why_not in (None, why_not_ours):
        with pytest.raises(OutputError):
            check_target(target, why_not=why_not)


def test_an_output_may_be_replaced(out: Path) -> None:
    full(out)
    (out / "other").write_text("old too")
    with staged(out, why_not=lambda path: None if path == out else "another") as stage:
        (stage / "file").write_text("new")
        assert (out / "file").read_text() == "old"
    assert names(out) == ["file"]
    assert (out / "file").read_text() == "new"
    assert names(out.parent) == ["out"]


def test_an_empty_directory_is_filled(out: Path) -> None:
    out.mkdir(parents=True)
    with staged(out) as stage:
        (stage / "file").write_text("new")
    assert names(out) == ["file"]
    assert names(out.parent) == ["out"]


def test_what_appears_meanwhile_is_not_lost(out: Path) -> None:
    def run() -> None:
        with staged(out) as stage:
            (stage / "file").write_text("new")
            full(out, "somebody else's")

    with pytest.raises(OutputError, match="exists"):
        run()
    assert (out / "file").read_text() == "somebody else's"
    assert names(out.parent) == ["out"]


def test_a_failed_exchange_is_rolled_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(out)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == out and (self / "file").read_text() == "new":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="No space left"), staged(out, why_not=always) as stage:
        (stage / "file").write_text("new")
    assert (out / "file").read_text() == "old"
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("after", ["old", "new"])
def test_an_interrupt_of_an_exchange_loses_nothing(out: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Once the old output has moved away, or once the new one has its name."""
    full(out)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        content = (self / "file").read_text()
        moved = rename(self, target)
        if content == after and (self == out) == (after == "old"):
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(out, why_not=always) as stage:
        (stage / "file").write_text("new")
    assert (out / "file").read_text() == after
    assert names(out.parent) == ["out"]


def test_a_full_disk_is_an_output_error(out: Path) -> None:
    def write() -> None:
        with staged(out):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"cannot write .*out: No space left"):
        write()
    assert names(out.parent) == []


def test_an_error_about_another_file_is_not_about_the_output(out: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="data"), staged(out):
        (tmp_path / "data").read_text()
    assert names(out.parent) == []


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "parent").write_text("")
    with pytest.raises(OutputError, match=r"cannot write in .*parent"), staged(tmp_path / "parent" / "out"):
        pytest.fail("entered")


def test_a_relative_target_is_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with staged("out"):
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert (tmp_path / "out").is_dir()
