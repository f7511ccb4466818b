"""What a model costs: its size against arithmetic by hand, and its latency by a clock of the test's own."""

from __future__ import annotations

import time

import pytest
import torch
from layerimp_footprint import Footprint, layerimp_evaluators
from pydantic import ValidationError
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForMaskedLM

import layerimp


def llama(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}))


def values(model, **options) -> dict[str, float]:
    return {m.name: m.value for m in Footprint(Footprint.Config(**options)).evaluate(model, None)}


def test_hook():
    assert layerimp_evaluators() == [Footprint]
    assert Footprint.kind == "cost"


def test_counts():
    model = llama(tie_word_embeddings=False)
    block = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    count = 2 * block + 16 + 2 * 40 * 16
    metrics = values(model)
    assert metrics["parameters"] == count
    assert metrics["bytes"] == 4 * count


def test_tied_weights_count_once():
    tied, untied = values(llama(tie_word_embeddings=True)), values(llama(tie_word_embeddings=False))
    assert untied["parameters"] - tied["parameters"] == 40 * 16
    assert untied["bytes"] - tied["bytes"] == 4 * 40 * 16


def test_bytes_follow_the_dtype():
    model = llama().to(torch.bfloat16)
    assert values(model)["bytes"] < 0.55 * values(llama())["bytes"]


def test_the_cache_holds_keys_and_values_of_every_block():
    """Two blocks of two heads of 8 features, keys and values in float32."""
    assert values(llama())["kv_bytes_per_token"] == 2 * 2 * 2 * 8 * 4
    assert values(llama(num_key_value_heads=1))["kv_bytes_per_token"] == 2 * 2 * 8 * 4
    assert values(llama().to(torch.bfloat16), sequences=3)["kv_bytes_per_token"] == 2 * 2 * 2 * 8 * 2


def test_without_a_block_the_cache_is_smaller():
    model = llama(num_hidden_layers=4)
    before = values(model)["kv_bytes_per_token"]
    assert values(layerimp.prune(model, [1]))["kv_bytes_per_token"] == 0.75 * before


def test_latency_is_that_of_a_forward(monkeypatch):
    """By a clock that goes on while the model runs: once for the cache, once to warm up, and three times that count."""
    model, seen, clock = llama(), [], [0.0]
    original, seconds = type(model).forward, [9.0, 5.0, 0.03, 0.02, 0.07]

    def slow(self, input_ids=None, use_cache=None, **kwargs):
        clock[0] += seconds[len(seen)]
        seen.append((tuple(input_ids.shape), use_cache, self.training, torch.is_inference_mode_enabled()))
        return original(self, input_ids=input_ids, use_cache=use_cache, **kwargs)

    monkeypatch.setattr(type(model), "forward", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    metrics = values(model, sequences=2, seq_length=10, repeats=3, warmup=1)
    assert seen == [((2, 10), True, False, True), *[((2, 10), False, False, True)] * 4]
    assert metrics["latency_ms"] == pytest.approx(30)
    assert metrics["tokens_per_second"] == pytest.approx(20 / 0.03)


def test_length_is_capped_by_the_model(monkeypatch):
    model = llama(max_position_embeddings=12)
    lengths = set()
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.add(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    values(model)
    assert lengths == {12}


@pytest.mark.parametrize(("config", "model"), [(BertConfig, BertForMaskedLM), (RobertaConfig, RobertaForMaskedLM)])
def test_encoders(config, model):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    metrics = values(model(config(vocab_size=30, max_position_embeddings=20, **sizes)))
    assert metrics["latency_ms"] > 0
    assert "kv_bytes_per_token" not in metrics


def test_the_model_is_left_as_it_was():
    model = llama().train()
    model.model.layers[0].eval()
    before, state = [m.training for m in model.modules()], torch.get_rng_state()
    values(model)
    assert [m.training for m in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)


def test_standard_errors_and_directions():
    metrics = {m.name: m for m in Footprint().evaluate(llama(), None)}
    assert metrics["parameters"].stderr is None
    assert metrics["latency_ms"].stderr >= 0
    assert [m.name for m in metrics.values() if m.higher_is_better] == ["tokens_per_second"]
    once = {m.name: m for m in Footprint(Footprint.Config(repeats=1)).evaluate(llama(), None)}
    assert once["latency_ms"].stderr is None


def test_wrong_options():
    with pytest.raises(ValidationError):
        Footprint.Config(repeats=0)
    with pytest.raises(ValidationError):
        Footprint.Config(unknown=1)


def test_without_weights_there_are_sizes_and_no_times():
    model = llama()
    with torch.device("meta"):
        shapes = LlamaForCausalLM(model.config)
    whole, sizes = values(model, repeats=1), values(shapes)
    assert sizes.keys() == {"parameters", "bytes", "kv_bytes_per_token"}
    assert sizes == {name: whole[name] for name in sizes}
