"""What is kept of each document, for comparisons and for the search for overlaps."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lm_tasks import (
    documents,
    harness,
    named,
)

from layerimp.evaluator import unigram


def test_the_metrics_follow_from_what_is_kept_of_the_documents(folder, model, tokenizer):
    metrics = named(harness(folder, "choice", "rolling", "generate").evaluate(model, tokenizer))
    for metric in metrics.values():
        if metric.name == "f1":  # of the whole corpus
            assert metric.documents is metric.likelihood is metric.count is None
        elif metric.likelihood is None:
            assert metric.value == pytest.approx(sum(metric.documents) / metric.count)
        else:
            assert metric.value == pytest.approx(metric.likelihood.metric(metric.likelihood.loss))
    kept = [metric.likelihood for (task, _), metric in metrics.items() if task == "rolling"]
    assert len({likelihood.totals for likelihood in kept}) == len({likelihood.unigram for likelihood in kept}) == 1
    assert len({likelihood.units for likelihood in kept}) == 2  # words, and bytes twice
    assert metrics["choice", "acc"].floor == max(Counter(doc["label"] for doc in documents()).values()) / 9
    assert metrics["generate", "exact_match"].floor == 0.0


def test_equal_documents_have_equal_hashes_whatever_is_asked_of_them(folder, model, tokenizer):
    lines = (folder / "docs.jsonl").read_text().splitlines()
    (folder / "docs.jsonl").write_text("\n".join([*lines, lines[0]]))
    metrics = named(harness(folder, "choice", "rolling").evaluate(model, tokenizer))
    kept = {metric.hashes for metric in metrics.values()}
    assert len(kept) == 1
    (hashes,) = kept
    assert hashes[-1] == hashes[0]
    assert len(set(hashes)) == len(set(lines))
    assert all(0 <= each < 2**48 for each in hashes)
    fewer = named(harness(folder, "choice", limit=2).evaluate(model, tokenizer))
    assert fewer["choice", "acc"].hashes == hashes[:2]


def naive_unigram(documents, vocabulary, share):
    totals = []
    for tokens in documents:
        others = [token for each in documents if each != tokens for token in each]
        chances = [(1 - share) * others.count(token) / max(len(others), 1) + share / vocabulary for token in tokens]
        totals.append(sum(map(math.log, chances)))
    return totals


@settings(derandomize=True, max_examples=30, deadline=None, database=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=5))
def test_the_unigram_model_leaves_out_its_document_and_has_the_best_share(documents):
    total = sum(unigram(documents, 9))
    shares = [step / 500 for step in range(1, 501)]
    naive = max(sum(naive_unigram(documents, 9, share)) for share in shares)
    assert total == pytest.approx(naive, abs=0.05)
    assert total >= naive - 1e-3


def test_tokens_are_those_that_the_model_predicts(folder, model, tokenizer):
    likelihood = named(harness(folder, "rolling").evaluate(model, tokenizer))["rolling", "word_perplexity"].likelihood
    texts = [json.loads(line)["text"] for line in (folder / "docs.jsonl").read_text().splitlines()]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert likelihood.unigram == unigram(tokens, model.get_input_embeddings().num_embeddings)


def test_texts_are_the_documents_as_they_are_worded(folder):
    texts = set(harness(folder, "choice", "rolling").texts())
    first = documents()[0]
    assert first["text"] in texts or len(first["text"]) < 20
    assert f"{first['text']} {['on the', 'good film'][first['label']]}" in texts
    assert not any(len(text) < 10 for text in texts)
