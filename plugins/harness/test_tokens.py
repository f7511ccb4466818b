"""Texts are tokenised, and templates compiled, once for all models of a run."""

from __future__ import annotations

import pytest
from layerimp_harness.tokens import TokenMemory
from support.lm_tasks import (
    WORDS,
    documents,
    harness,
    make_model,
    make_tokenizer,
)
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from layerimp.errors import TaskError


def test_texts_are_tokenised_once_for_all_models_of_a_run(folder, model, tokenizer, monkeypatch):
    evaluator = harness(folder, "choice", "rolling", "generate")
    first = evaluator.evaluate(model, tokenizer)
    encoded = []
    usual = PreTrainedTokenizerFast._encode_plus
    monkeypatch.setattr(
        PreTrainedTokenizerFast,
        "_encode_plus",
        lambda self, text, *args, **kwargs: encoded.append(text) or usual(self, text, *args, **kwargs),
    )
    assert evaluator.evaluate(model, tokenizer) == first
    texts = [text for text in encoded if isinstance(text, str)]
    assert not any(doc["text"] in text for doc in documents() for text in texts)


def test_a_tokenizer_that_changes_between_two_models_is_asked_again(folder, model, tokenizer):
    evaluator = harness(folder, "choice", "rolling")
    first = evaluator.evaluate(model, tokenizer)
    changed = make_tokenizer(words=WORDS[::-1], unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    expected = harness(folder, "choice", "rolling").evaluate(model, changed)
    assert evaluator.evaluate(model, changed) == expected != first
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 2)]
    )
    expected = harness(folder, "choice", "rolling").evaluate(model, tokenizer)
    assert evaluator.evaluate(model, tokenizer) == expected != first
    with pytest.raises(TaskError, match="do not belong together"):
        evaluator.evaluate(make_model(vocab_size=5), tokenizer)


def test_tokens_of_a_tokenizer_that_cannot_be_compared_are_not_kept():
    class Odd:
        def __reduce__(self):
            raise TypeError("cannot pickle this")

    memory = TokenMemory()
    memory.open(Odd())
    memory.keep("a", [1, 2])
    assert memory.get("a") == [1, 2]
    memory.open(Odd())
    assert memory.get("a") is None


def test_a_template_is_compiled_once(folder, model, tokenizer, monkeypatch):
    import jinja2

    evaluator = harness(folder, "rolling")
    evaluator.prepare()
    compiled = []
    usual = jinja2.Environment.compile
    monkeypatch.setattr(
        jinja2.Environment, "compile", lambda self, source, *args: compiled.append(source) or usual(self, source, *args)
    )
    evaluator.evaluate(model, tokenizer)
    assert compiled.count("{{text}}") == 1
