"""The store: one writer, nothing lost, and no other files touched."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.grids import computed, layout
from support.mood import Run

from layerimp.bench import commands as pipeline
from layerimp.bench.cells import Cell, Outcome
from layerimp.bench.store import FILE, LOCK, Store, check_place, stored_in
from layerimp.errors import OutputError


def cell() -> Cell:
    return layout().scoring("one", "avss", 0)


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    scoring = cell()
    with Store(tmp_path / "out") as store:
        store.put([(scoring, Outcome(scoring.key, computed(scoring), seconds=2.0))])
    with Store(tmp_path / "out", write=False) as store:
        (record,) = store.records().values()
    assert record.result == computed(scoring)
    assert (record.error, record.seconds) == ("", 2.0)


def test_what_a_killed_process_began_is_undone_when_the_store_is_read(tmp_path: Path) -> None:
    """Copied in the middle of a transaction, a part of which is in the file already."""
    scoring = cell()
    with Store(tmp_path / "out") as store:
        store.put([(scoring, Outcome(scoring.key, computed(scoring)))])
        store._connection.execute("PRAGMA cache_size = 1")
        store._connection.execute("UPDATE cells SET name = ?", ("x" * 10**6,))
        store._connection.execute("INSERT INTO files VALUES ('a', 'b', ?)", ("y" * 10**6,))
        shutil.copytree(tmp_path / "out", tmp_path / "killed")
    assert (tmp_path / "killed" / f"{FILE}-journal").stat().st_size > 0
    with Store(tmp_path / "killed", write=False) as store:
        assert store.records()[scoring.key].result == computed(scoring)
        assert store.digests() == {}


@pytest.mark.parametrize("left", [[LOCK], [LOCK, FILE]])
def test_a_store_that_a_killed_process_began_may_be_begun_again(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).touch()
    check_place(tmp_path)
    with stored_in(tmp_path) as none:
        assert none is None
    with Store(tmp_path) as store:
        assert store.records() == {}


def test_infinite_numbers_are_kept(tmp_path: Path) -> None:
    scoring = cell()
    with Store(tmp_path) as store:
        store.put([(scoring, Outcome(scoring.key, {"value": float("inf")}))])
        assert store.records()[scoring.key].result == {"value": float("inf")}


def test_all_cells_of_an_assignment_or_none(tmp_path: Path) -> None:
    scoring = cell()
    with Store(tmp_path) as store:
        with pytest.raises(TypeError):
            store.put([(scoring, Outcome(scoring.key, {})), (scoring, Outcome(scoring.key, {"value": object()}))])
        assert store.records() == {}


OPENING = """
import sys
from pathlib import Path
from layerimp.bench.store import Store
from layerimp.errors import OutputError
for _ in sys.stdin:
    try:
        with Store(Path(sys.argv[1])):
            print("open", flush=True)
    except OutputError as error:
        print(error, flush=True)
"""
"""Opens the store for each line that is read, and prints a line about what came of it."""


def test_a_second_process_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, answers = process.stdin, process.stdout
        assert asked
        assert answers

        def second() -> str:
            print(file=asked, flush=True)
            return answers.readline()

        with Store(tmp_path):
            assert "another process is at work" in second()
            with Store(tmp_path, write=False) as reader:
                assert reader.records() == {}
        assert second() == "open\n"


def test_a_database_of_others_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("CREATE TABLE mine (a)")
        other.commit()
    before = (tmp_path / FILE).read_bytes()
    for write in (True, False):
        with pytest.raises(OutputError, match="holds no grid: it has other tables"):
            Store(tmp_path, write=write)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_directory_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("write", [True, False])
def test_a_broken_file_is_said(tmp_path: Path, write: bool) -> None:
    (tmp_path / FILE).write_bytes(b"no data base at all, but long enough to be looked at" * 9)
    with pytest.raises(OutputError, match="file is not a database"):
        Store(tmp_path, write=write)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def damaged(directory: Path, how: str) -> Path:
    """A store of many cells, with a page in its middle, or its end, gone."""
    with Store(directory) as store:
        store.keep_layout(layout().model_dump(mode="json"))
        for number in range(200):
            scoring = layout().scoring("one", "avss", number)
            store.put([(scoring, Outcome(scoring.key, computed(scoring) | {"notes": ["x" * 3000]}))])
    file = directory / FILE
    content = bytearray(file.read_bytes())
    page = 4096
    places = {
        "middle": range(len(content) // page // 2, len(content) // page // 2 + 3),
        "all": range(1, len(content) // page),
    }
    for number in places.get(how, ()):
        content[number * page : (number + 1) * page] = b"\xff" * page
    if how == "text":
        at = content.index(b"x" * 3000)
        content[at : at + 10] = b'\xff\xfe\xfd"' * 2 + b"\xff\xff"
    file.write_bytes(content[: len(content) // 2] if how == "end" else content)
    return file


@pytest.mark.parametrize("how", ["middle", "all", "end", "text"])
@pytest.mark.parametrize("write", [True, False])
def test_a_damaged_file_is_said_in_one_line(tmp_path: Path, how: str, write: bool) -> None:
    file = damaged(tmp_path / "out", how)
    before = file.read_bytes()

    def read() -> None:
        with Store(tmp_path / "out", write=write) as store:
            store.layout()
            store.records()

    with pytest.raises(OutputError, match=r"cannot use .*bench.sqlite: ") as caught:
        read()
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    with pytest.raises(OutputError, match=r"cannot use .*bench.sqlite: "):
        pipeline.stored_results(tmp_path / "out")


@pytest.mark.parametrize("how", ["empty", "no tables", "no grid"])
def test_a_store_with_nothing_in_it_says_so(tmp_path: Path, layerimp_command: Run, how: str) -> None:
    if how == "no grid":
        Store(tmp_path).__exit__(None, None, None)
    else:
        (tmp_path / FILE).touch()
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            connection.execute(f"PRAGMA user_version = {int(how == 'no tables')}")
            connection.commit()
    code, out, err = layerimp_command("report", tmp_path)
    assert (code, out) == (2, "")
    assert "bench.sqlite holds no grid" in err.splitlines()[-1]


def test_a_grid_of_which_nothing_is_known_has_a_report(tmp_path: Path, layerimp_command: Run) -> None:
    with Store(tmp_path) as store:
        store.keep_layout(layout().model_dump(mode="json"))
    code, out, err = layerimp_command("report", tmp_path)
    assert code == 0, err
    assert "nothing is evaluated" in out


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """A context in which no file can grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_of_a_new_store(tmp_path: Path) -> None:
    with little_room(4096), pytest.raises(OutputError, match=r"^cannot (write|use) .*bench.sqlite: ") as caught:
        Store(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_is_there(tmp_path: Path) -> None:
    first, other = cell(), layout().scoring("one", "avss", 1)

    def fill() -> None:
        with Store(tmp_path / "out") as store, little_room((tmp_path / "out" / FILE).stat().st_size + 4096):
            store.put([(other, Outcome(other.key, {"notes": ["x" * 10**6]}))])

    with Store(tmp_path / "out") as store:
        store.put([(first, Outcome(first.key, computed(first)))])
    with pytest.raises(OutputError, match=r"^cannot (write|use) .*bench.sqlite: "):
        fill()
    with Store(tmp_path / "out") as store:
        assert set(store.records()) == {first.key}


def test_a_store_that_cannot_be_opened_lets_go_of_its_lock(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store._connection.execute("PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(OutputError, match="was written by another version"):
            Store(tmp_path)
    assert (tmp_path / FILE).exists()


def test_a_missing_directory_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        Store(tmp_path / "nothing", write=False)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(("name", "why"), [("empty", "is empty"), ("file", "is a file")])
def test_what_holds_no_report_is_said(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=why):
        Store(tmp_path / name, write=False)


def test_a_grid_of_another_version_is_said(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.keep_layout(layout().model_dump(mode="json") | {"moons": 2})
    with pytest.raises(OutputError, match="of another version of layerimp"):
        pipeline.stored_results(tmp_path)


@pytest.mark.parametrize("version", [4, 99])
@pytest.mark.parametrize("write", [True, False])
def test_another_format_is_refused(tmp_path: Path, version: int, write: bool) -> None:
    with Store(tmp_path) as store:
        store._connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(OutputError, match="was written by another version"):
        Store(tmp_path, write=write)
