"""What was read in place of data sets on the network, in few words."""

from __future__ import annotations

import hashlib

from layerimp.evaluator import DataFile
from layerimp.report.results.data import Read, by_folder, distinct, documents_asked


def file(path: str, rows: int = 10, sha256: str = "ab", licence: str = "MIT", task: str = "t") -> DataFile:
    return DataFile(task=task, split="test", path=path, rows=rows, sha256=sha256, licence=licence)


def test_a_file_that_two_models_read_is_listed_once() -> None:
    files = [file("b.jsonl"), file("a.jsonl"), file("b.jsonl", task="u"), file("b.jsonl", sha256="cd")]
    expected = [("a.jsonl", "ab"), ("b.jsonl", "ab"), ("b.jsonl", "cd")]
    assert [(each.path, each.sha256) for each in distinct(files)] == expected


def test_a_folder_with_many_files_is_one_line_whose_digest_is_of_all_of_them() -> None:
    many = [file(f"blimp/{name}.jsonl", 100 + n, sha256=f"{n:064x}") for n, name in enumerate("dcba")]
    alone = file("boolq/validation.jsonl", 3, licence="")
    folder, single = by_folder([alone, *many])
    digest = hashlib.sha256("".join(f"{n:064x}" for n in (3, 2, 1, 0)).encode()).hexdigest()
    assert folder == Read("blimp: 4 files", 406, digest, "MIT")
    assert single == Read("boolq/validation.jsonl", 3, "ab", "")
    assert [each.where for each in by_folder(many[:3])] == [f"blimp/{name}.jsonl" for name in "bcd"]


def test_limits_of_single_tasks_are_named_beside_that_of_the_others() -> None:
    assert documents_asked(None, {}) == ""
    assert documents_asked(200, {}) == "first 200 documents"
    assert documents_asked(200, {"blimp": 670}) == "first 200 documents; 670 of blimp"
    assert documents_asked(None, {"blimp": 670}) == "670 of blimp"
