"""The digests of texts, which are those of their content."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerimp.bench.digests import FileDigests
from layerimp.defaults import HUB_TEXT


def test_a_text_is_its_file(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a"}')
    first = FileDigests({}).of_text(str(text))
    assert first == FileDigests({}).of_file(text)
    text.write_text('{"text": "another"}')
    assert FileDigests({}).of_text(str(text)) != first


def test_a_data_set_in_a_directory_goes_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "same"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "train.jsonl").write_text('{"text": "a"}')
    first = FileDigests({}).of_text(str(tmp_path / "one"))
    assert FileDigests({}).of_text(str(tmp_path / "same")) == first
    assert FileDigests({}).of_text(f"{tmp_path / 'one'}:default:test") != first
    (tmp_path / "one" / "data" / "train.jsonl").write_text('{"text": "another"}')
    assert FileDigests({}).of_text(str(tmp_path / "one")) != first
    assert FileDigests({}).of_text("someone/texts") == "someone/texts"


def test_the_text_on_the_hub_is_named_with_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub").write_text("a file of this name is not the text `hub`")
    assert FileDigests({}).of_text("hub") == HUB_TEXT
