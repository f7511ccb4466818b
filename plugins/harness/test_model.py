"""Tokenizers and models of all kinds are measured, or refused in one line."""

from __future__ import annotations

import pytest
import torch
from support.lm_tasks import (
    CHOICE,
    GENERATE,
    harness,
    make_model,
    make_tokenizer,
    write_docs,
    write_task,
)
from transformers import BertConfig, BertForMaskedLM

from layerimp.errors import ModelError, TaskError


def test_tokenizer_without_bos_and_eos(folder, model):
    bare = make_tokenizer(pad_token="<unk>")
    assert harness(folder, "choice", "rolling", "generate").evaluate(model, bare)
    none = make_tokenizer()
    assert harness(folder, "choice", "generate").evaluate(model, none)
    with pytest.raises(TaskError, match=r"'rolling'.*special token"):
        harness(folder, "rolling").evaluate(model, none)


def test_context_of_nothing_but_space(folder, model, tokenizer):
    write_docs(folder, [{"text": text, "label": 0} for text in ("", "   ", "the cat")])
    assert harness(folder, "choice", "generate").evaluate(model, tokenizer)


def test_tokenizer_of_another_model(folder, tokenizer):
    with pytest.raises(TaskError, match="do not belong together"):
        harness(folder, "choice").evaluate(make_model(vocab_size=5), tokenizer)
    with pytest.raises(TaskError, match="tokenizer"):
        harness(folder, "choice").evaluate(make_model(), None)


def test_requests_that_do_not_fit(folder, model, tokenizer):
    write_task(folder, "long", GENERATE.replace("4", "400"))
    with pytest.raises(TaskError, match="'long'"):
        harness(folder, "long").evaluate(model, tokenizer)
    write_task(folder, "wide", CHOICE.replace("good film", " ".join(["good"] * 50)))
    with pytest.raises(TaskError, match="'wide': a continuation of 50 tokens"):
        harness(folder, "wide").evaluate(model, tokenizer)


def test_encoders_are_refused(folder, tokenizer):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        harness(folder, "choice").evaluate(BertForMaskedLM(BertConfig(vocab_size=30, **sizes)), tokenizer)


def test_sixteen_bits(folder, tokenizer):
    whole, half = make_model(), make_model().to(torch.bfloat16)
    values = [harness(folder, "rolling").evaluate(m, tokenizer)[2].value for m in (whole, half)]
    assert values[1] == pytest.approx(values[0], rel=0.02)
