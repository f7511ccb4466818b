"""What an evaluation reads is known ahead, from the first documents of each task."""

from __future__ import annotations

import pytest
from layerimp_harness.reading import SAMPLE
from support.lm_tasks import CHOICE, documents, harness, write_docs, write_task

from layerimp.evaluator import Reading
from layerimp.testing import tiny_classifier, tiny_tokenizer


def words(docs):
    return sum(len(doc["text"].split()) for doc in docs)


def test_small_tasks_are_counted(folder, model, tokenizer):
    read = {name: harness(folder, name).reading(model, tokenizer, 8, 16) for name in ("choice", "rolling", "generate")}
    every = words(documents())
    assert read["choice"] == Reading(9, tokens=every + 9 * 4, predicted=9 * 4)  # a question is read once
    assert read["rolling"] == Reading(9, tokens=every, predicted=every)
    assert read["generate"] == Reading(9, tokens=every + 9 * 4, predicted=9 * 4)
    together = harness(folder, "choice", "rolling", "generate").reading(model, tokenizer, 8, 16)
    assert together.tokens == sum(each.tokens for each in read.values())
    few = harness(folder, "rolling", limit=3).reading(model, tokenizer, 8, 16)
    assert (few.documents, few.tokens) == (3, words(documents()[:3]))


def test_large_tasks_are_estimated_from_their_first_documents(folder, model, tokenizer):
    docs = documents(400)
    write_docs(folder, docs)
    reading = harness(folder, "rolling").reading(model, tokenizer, 8, 16)
    assert reading.documents == 400
    assert reading.tokens == words(docs[:SAMPLE]) * 400 / SAMPLE
    assert reading.tokens == pytest.approx(words(docs), rel=0.5)


def test_the_evaluation_is_the_same_afterwards(folder, model, tokenizer):
    asked, not_asked = harness(folder, "choice", "generate"), harness(folder, "choice", "generate")
    asked.reading(model, tokenizer, 8, 16)
    assert asked.evaluate(model, tokenizer) == not_asked.evaluate(model, tokenizer)


def test_a_classifier_reads_its_documents(folder):
    write_task(
        folder, "labelled", CHOICE.replace("on the, good film", "bad, good"), metadata="{classifier_fields: text}"
    )
    reading = harness(folder, "labelled").reading(tiny_classifier(), tiny_tokenizer(), 8, 16)
    assert reading.documents == 9
    assert reading.tokens > 0
