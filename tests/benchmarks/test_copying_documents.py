"""The documents of the task `copying` are those of their script, and have one right answer each."""

from __future__ import annotations

import json

from copying_documents import FILE, documents


def test_the_file_is_up_to_date() -> None:
    kept = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    assert kept == documents(), "python benchmarks/copying_documents.py"


def test_what_comes_next_was_in_the_list_once() -> None:
    for document in documents():
        whole, begun = document["text"].split("\n")
        assert whole.startswith(begun[:-1])
        assert whole.removeprefix(begun).removesuffix(".").strip().startswith(document["next"])
        words = whole.removesuffix(".").split(", ")
        assert len(set(words)) == len(words)
