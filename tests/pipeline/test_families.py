"""The model families of the AVSS paper, end to end: scored, pruned, measured and saved, on a task of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from support.recipes import make_recipe
from support.sst2 import write_sst2
from support.tiny import saved, tiny

import layerimp
from layerimp.blocks.bypass import bypassed
from layerimp.pipeline.commands import run
from layerimp.testing import BLOCKS, batch

ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 1 and 2 (7B, 13B)": ("llama", {"num_key_value_heads": 4}),
    "Llama 2 (70B), grouped queries": ("llama", {"num_key_value_heads": 2}),
    "Llama 3.1, rope scaling": ("llama", {"num_key_value_heads": 2, "rope_parameters": ROPE}),
    "Llama 3.2 (1B), tied": ("llama", {"num_key_value_heads": 2, "rope_parameters": ROPE, "tie_word_embeddings": True}),
    "StableLM 3B, partial rotary": ("stablelm", {"num_key_value_heads": 4, "partial_rotary_factor": 0.25}),
    "StableLM 2 (1.6B), biases": ("stablelm", {"num_key_value_heads": 4, "use_qkv_bias": True}),
    "StableLM 2 (12B), parallel": (
        "stablelm",
        {"use_parallel_residual": True, "qk_layernorm": True, "partial_rotary_factor": 0.25},
    ),
    "DistilBERT": ("distilbert", {"num_labels": 2}),
}
QUICK = {"Llama 3.2 (1B), tied", "StableLM 2 (12B), parallel", "DistilBERT"}
"""A sequential and a parallel decoder, and a classifier: the others are built as the first."""
SENTENCES = ["an awful film", "a great film", "the film was bad", "good and big", "he was awful", "a good cat"] * 2
families = pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[pytest.mark.slow] * (family not in QUICK)) for family in FAMILIES]
)


@families
def test_a_family_goes_through_a_run(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    name, changes = FAMILIES[family]
    saved(tiny(name, **changes), tmp_path / "model")
    write_sst2(tmp_path, SENTENCES, SENTENCES)
    scorers = ["avss", "gbis", "lrp", "cim"]
    values = {
        "model": str(tmp_path / "model"),
        "scorers": scorers,
        "calibration": {"source": "task:layerimp_sst2", "samples": 6, "max_length": 16},
        "tasks": ["layerimp_sst2"],
        "data_dir": tmp_path,
        "blocks": [BLOCKS - 1],
        "ratio": 0.25,
        "evaluators": ["harness"],
        "baselines": [],
        "output": tmp_path / "out",
    }
    results = run(make_recipe(values)).model
    assert list(results.importance) == scorers
    metrics = [results.metrics, *(results.pruned[label].metrics for label in scorers)]
    assert all(len(each["layerimp_sst2"]) == 1 for each in metrics)
    assert results.calibration
    assert results.calibration.labels == ({"0": 3, "1": 3} if name == "distilbert" else None)
    auto = getattr(transformers, str(results.loader))
    for label in scorers:
        model = auto.from_pretrained(results.pruned[label].checkpoint).eval()
        assert model.config.num_hidden_layers == BLOCKS - 1
        assert model.config.num_labels == 2
        with torch.no_grad():
            assert torch.isfinite(model(**batch()).logits).all()


@families
def test_a_family_is_pruned_exactly(family: str, tmp_path: Path) -> None:
    name, changes = FAMILIES[family]
    model: Any = tiny(name, **changes)
    with bypassed(layerimp.find_blocks(model), [0, 2]), torch.no_grad():
        expected = model(**batch()).logits
    layerimp.prune(model, [0, 2])
    layerimp.save(model, None, tmp_path / "out")
    auto = (
        transformers.AutoModelForSequenceClassification
        if "num_labels" in changes
        else (transformers.AutoModelForCausalLM)
    )
    reloaded = auto.from_pretrained(tmp_path / "out").eval()
    assert reloaded.config.num_hidden_layers == BLOCKS - 2
    with torch.no_grad():
        torch.testing.assert_close(reloaded(**batch()).logits, expected, rtol=1e-4, atol=1e-4)
