"""The documents of the benchmarks' own tasks are those of their templates, and have one right answer each."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from layerimp_harness import Harness
from task_documents import COUNTRIES, GRAMMAR, KNOWLEDGE, PAIRS_OF_A_KIND, TASKS, documents, in_pairs


@pytest.mark.parametrize("name", documents())
def test_the_files_are_up_to_date(name: str) -> None:
    kept = [json.loads(line) for line in (TASKS / name).read_text(encoding="utf-8").splitlines()]
    assert kept == documents()[name], "python benchmarks/task_documents.py"


def test_pairs_differ_in_one_word_and_no_word_is_always_right() -> None:
    pairs = documents()["grammar.jsonl"]
    kinds = dict.fromkeys((kind.__name__ for kind in GRAMMAR), PAIRS_OF_A_KIND)
    assert Counter(pair["kind"] for pair in pairs) == kinds
    assert len({(pair["start"], pair["right"]) for pair in pairs}) == len(pairs)
    right, wrong = Counter[str](), Counter[str]()
    for pair in pairs:
        first, *rest = pair["right"].split()
        other, *same = pair["wrong"].split()
        assert first != other
        assert rest == same
        right[first] += pair["kind"] != "participle"  # there, a verb's form decides, which is right in every sentence
        wrong[other] += pair["kind"] != "participle"
    for word in ("was", "is", "himself.", "than"):
        assert 0.3 < right[word] / (right[word] + wrong[word]) < 0.7


def test_what_is_known_is_of_as_many_kinds_as_said() -> None:
    pairs = documents()["knowledge.jsonl"]
    assert {pair["kind"] for pair in pairs} == {kind.__name__ for kind in KNOWLEDGE}
    assert len({pair["start"] for pair in pairs}) == len(pairs)
    capitals = dict(in_pairs(", ".join(COUNTRIES.values())))
    assert len(capitals) == len(set(capitals.values()))
    answers = {(pair["start"], pair["right"]) for pair in pairs}
    for pair in pairs:
        assert pair["right"] != pair["wrong"]
        assert (pair["start"], pair["wrong"]) not in answers


@pytest.mark.parametrize("name", ["grammar", "knowledge"])
def test_the_two_endings_are_the_choices(name: str) -> None:
    harness = Harness(Harness.Config(tasks=(str(TASKS / f"{name}.yaml"),)))
    harness.prepare()
    assert harness._loaded is not None
    task = harness._loaded.tasks[name]
    for pair in documents()[f"{name}.jsonl"]:
        assert task.doc_to_text(pair) == pair["start"]
        assert task.doc_to_choice(pair) == [pair["right"], pair["wrong"]]
    assert len(task.eval_docs) == len(documents()[f"{name}.jsonl"])


def test_what_comes_next_was_in_the_list_once() -> None:
    for one in documents()["copying.jsonl"]:
        whole, begun = one["text"].split("\n")
        assert whole.startswith(begun[:-1])
        assert whole.removeprefix(begun).removesuffix(".").strip().startswith(one["next"])
        words = whole.removesuffix(".").split(", ")
        assert len(set(words)) == len(words)
