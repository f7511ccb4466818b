"""The store: one writer, nothing lost, nothing foreign touched."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from grids import computed, layout

from layerimp.bench import commands as pipeline
from layerimp.bench.cells import Cell, Outcome
from layerimp.bench.store import FILE, Store
from layerimp.errors import OutputError


def cell() -> Cell:
    return layout().scoring("one", "avss", 0)


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    one = cell()
    with Store(tmp_path / "out") as store:
        store.put([(one, Outcome(one.key, computed(one), seconds=2.0))])
    with Store(tmp_path / "out", write=False) as store:
        (record,) = store.records().values()
    assert record.result == computed(one)
    assert (record.error, record.seconds, record.attempts) == ("", 2.0, 1)


def test_infinite_numbers_are_kept(tmp_path: Path) -> None:
    one = cell()
    with Store(tmp_path) as store:
        store.put([(one, Outcome(one.key, {"value": float("inf")}))])
        assert store.records()[one.key].result == {"value": float("inf")}


def test_all_cells_of_an_assignment_or_none(tmp_path: Path) -> None:
    one = cell()
    with Store(tmp_path) as store:
        with pytest.raises(TypeError):
            store.put([(one, Outcome(one.key, {})), (one, Outcome(one.key, {"value": object()}))])
        assert store.records() == {}


def _open(directory: str, said: multiprocessing.Queue[str]) -> None:
    try:
        with Store(Path(directory)):
            said.put("open")
    except OutputError as error:
        said.put(str(error))


def test_a_second_process_is_refused_in_one_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    said: multiprocessing.Queue[str] = context.Queue()

    def second() -> str:
        process = context.Process(target=_open, args=(str(tmp_path), said))
        process.start()
        answer = said.get(timeout=60)
        process.join()
        return answer

    with Store(tmp_path):
        assert "another process is at work" in second()
        with Store(tmp_path, write=False) as reader:
            assert reader.records() == {}
    assert second() == "open"


def test_a_directory_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("write", [True, False])
def test_a_broken_file_is_said(tmp_path: Path, write: bool) -> None:
    (tmp_path / FILE).write_bytes(b"no data base at all, but long enough to be looked at" * 9)
    with pytest.raises(OutputError, match="is no store"):
        Store(tmp_path, write=write)


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
        pipeline.findings(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="newer"):
        Store(tmp_path)
