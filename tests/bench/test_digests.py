"""The digests of texts: of their content, and of the images that they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerimp.bench.digests import FileDigests
from layerimp.defaults import HUB_TEXT


def test_an_image_is_a_part_of_the_text_that_names_it(tmp_path: Path) -> None:
    text, image, other = tmp_path / "text.jsonl", tmp_path / "a.png", tmp_path / "b.png"
    image.write_bytes(b"a")
    other.write_bytes(b"b")
    records = [
        {"text": "a"},
        {"text": "a", "image": "a.png"},
        {"text": "a", "image": ["a.png", "nowhere.png", "x" * 999, 3]},
    ]
    text.write_text("\n".join(map(json.dumps, records)))
    digests = FileDigests({})
    first = digests.of_text(str(text))
    assert first != digests.of_file(text)
    other.write_bytes(b"another")
    assert digests.of_text(str(text)) == first
    image.write_bytes(b"another")
    assert digests.of_text(str(text)) != first


def test_a_text_without_images_is_its_file(tmp_path: Path) -> None:
    for name, content in (("text.jsonl", '{"text": "an image"}'), ("text.txt", '{"image": "text.jsonl"}')):
        (tmp_path / name).write_text(content)
        digests = FileDigests({})
        assert digests.of_text(str(tmp_path / name)) == digests.of_file(tmp_path / name)


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
