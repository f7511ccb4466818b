"""The starter: its evaluation sets are large enough, and its model is small and has learnt its tasks."""

from __future__ import annotations

import json
from typing import Any

import layerimp_starter
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import layerimp
from layerimp.registry.catalog import registry


@pytest.mark.parametrize("name", ["stories", "sentiment", "questions"])
def test_an_evaluation_set_has_enough_items_and_none_twice(name: str) -> None:
    texts = [json.loads(line)["text"] for line in (layerimp_starter.DATA / f"{name}.jsonl").read_text().splitlines()]
    assert len(texts) >= 300
    assert len(set(texts)) == len(texts)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(layerimp_starter.MODEL)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=30))
def test_the_tokenizer_knows_every_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_model_is_a_small_stock_decoder() -> None:
    files = list(layerimp_starter.MODEL.iterdir())
    assert sum(file.stat().st_size for file in files) <= 12_000_000
    (weights,) = [file for file in files if file.suffix == ".safetensors"]
    with safe_open(weights, "pt") as opened:
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {torch.bfloat16}  # noqa: SIM118
    model = AutoModelForCausalLM.from_pretrained(layerimp_starter.MODEL)
    assert type(model).__module__.startswith("transformers.models.")
    assert model.config.num_hidden_layers == 12
    assert sum(p.numel() for p in model.parameters()) <= 6_000_000


def test_the_model_has_learnt_its_tasks() -> None:
    cls = registry().get("evaluator", "harness")
    tasks = ("starter_stories", "starter_sentiment", "starter_qa")
    model, tokenizer = layerimp.load("starter")
    values = {m.name: m.value for m in cls(cls.Config(tasks=tasks, limit=30)).evaluate(model, tokenizer)}
    assert values["acc"] >= 0.9
    assert values["f1"] >= 0.8
    assert values["byte_perplexity"] < 1.3
