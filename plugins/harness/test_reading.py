"""What an evaluation reads is known ahead, from a few documents of each task."""

from __future__ import annotations

import pytest
from layerimp_harness import reading as module
from support.lm_tasks import CHOICE, documents, harness, write_docs, write_task

from layerimp.evaluator import Reading
from layerimp.testing import tiny_classifier, tiny_tokenizer


def words(docs):
    return sum(len(doc["text"].split()) for doc in docs)


def test_small_tasks_are_counted(folder, model, tokenizer):
    read = {name: harness(folder, name).reading(model, tokenizer) for name in ("choice", "rolling", "generate")}
    every = words(documents())
    assert read["choice"] == Reading(9, rows=9, tokens=every + 9 * 4, predicted=9 * 4)  # a context is read once
    assert read["rolling"] == Reading(9, rows=9, tokens=every, predicted=every)
    assert read["generate"] == Reading(9, rows=9, tokens=every, generated=9 * 4)
    together = harness(folder, "choice", "rolling", "generate").reading(model, tokenizer)
    assert together == read["choice"] + read["rolling"] + read["generate"]
    few = harness(folder, "rolling", limit=3).reading(model, tokenizer)
    assert (few.documents, few.tokens) == (3, words(documents()[:3]))
    assert harness(folder, "rolling", max_length=2).reading(model, tokenizer).rows > 9


def test_large_tasks_are_estimated(folder, model, tokenizer, monkeypatch):
    docs = documents(400)
    write_docs(folder, docs)
    built = []
    monkeypatch.setattr(module, "SAMPLE", 40)
    real = module._requested
    monkeypatch.setattr(module, "_requested", lambda requests, *a: (built.append(len(requests)), real(requests, *a))[1])
    reading = harness(folder, "rolling").reading(model, tokenizer)
    assert built == [40]
    assert reading.documents == reading.rows == 400
    assert reading.tokens == pytest.approx(words(docs), rel=0.1)


def test_the_evaluation_is_the_same_afterwards(folder, model, tokenizer):
    asked, not_asked = harness(folder, "choice", "generate"), harness(folder, "choice", "generate")
    asked.reading(model, tokenizer)
    assert asked.evaluate(model, tokenizer) == not_asked.evaluate(model, tokenizer)


def test_a_classifier_reads_a_row_for_each_document(folder):
    write_task(
        folder, "labelled", CHOICE.replace("on the, good film", "bad, good"), metadata="{classifier_fields: text}"
    )
    reading = harness(folder, "labelled").reading(tiny_classifier(), tiny_tokenizer())
    assert (reading.documents, reading.rows, reading.predicted) == (9, 9, 0)
    assert reading.tokens > 0
