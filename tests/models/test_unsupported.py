"""Unsupported models are refused in one line, before any long work, and the line names a way that works."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import saved, tiny
from transformers import ByT5Tokenizer, PreTrainedModel, Qwen2ForTokenClassification

import layerimp
from layerimp.errors import ModelError
from layerimp.models.offloading import open_offloaded
from layerimp.models.unsupported import refuse_config
from layerimp.pipeline.outline import Outline
from layerimp.testing import batch

QUANTISED: list[tuple[Any, str]] = [
    ({"quant_method": "awq", "bits": 4}, r"quantised \(awq\); prune the unquantised model"),
    ({"quant_method": "gptq", "bits": 4}, r"quantised \(gptq\).*model.dequantize\(\)"),
    (SimpleNamespace(quant_method="bitsandbytes"), r"quantised \(bitsandbytes\)"),
    ({"quant_method": "gguf"}, "comes from GGUF; make a plain model first.*without quantization_config"),
]


@pytest.mark.parametrize(("config", "said"), QUANTISED)
def test_quantised_weights(config: Any, said: str, tmp_path: Path) -> None:
    model = tiny("llama")
    model.config.quantization_config = config
    for work in (
        lambda: layerimp.prune(model, [1]),
        lambda: layerimp.score(model, [batch()], ["avss"]),
        lambda: layerimp.save(model, None, tmp_path / "out"),
    ):
        with pytest.raises(ModelError, match=said):
            work()


def test_a_model_that_does_not_fit_on_its_device(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Any, place: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(PreTrainedModel, "to", full)
    with pytest.raises(ModelError, match="does not fit on cpu; a smaller dtype helps"):
        layerimp.load(model_dir)


def test_a_quantised_checkpoint_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"quantised \(awq\)"):
        layerimp.load(tmp_path)


@pytest.mark.parametrize("opened", [layerimp.load, open_offloaded, Outline.of])
def test_another_head_is_refused_rather_than_lost(opened: Any, tmp_path: Path) -> None:
    """Loaded as a language model, the head would be left out, and be missing in the pruned checkpoint."""
    config = tiny("qwen2").config
    saved(Qwen2ForTokenClassification(config), tmp_path / "model")
    with pytest.raises(ModelError, match="Qwen2ForTokenClassification is of a kind that layerimp does not load"):
        opened(str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["qwen2", "bert"])
def test_a_model_without_a_tokenizer_is_refused(name: str, tmp_path: Path) -> None:
    """Transformers makes a tokenizer for these that knows nothing but special tokens."""
    tiny(name).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="model' holds no tokenizer: save the one that the model was trained with"):
        layerimp.load(tmp_path / "model")


def test_a_tokenizer_of_bytes_knows_words(tmp_path: Path) -> None:
    tiny("gpt2").save_pretrained(tmp_path / "model")
    ByT5Tokenizer().save_pretrained(tmp_path / "model")
    assert isinstance(layerimp.load(tmp_path / "model")[1], ByT5Tokenizer)


def test_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is a GGUF file; make a plain model first"):
        layerimp.load(tmp_path / "model.gguf")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_are_merged_first(tmp_path: Path) -> None:
    wrapped: Any = get_peft_model(tiny("llama"), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(ModelError, match="not merged into its weights; merge them first"):
        layerimp.find_blocks(wrapped)
    with pytest.raises(ModelError, match="merge"):
        layerimp.save(wrapped, None, tmp_path / "out")
    wrapped.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="holds an adapter and no model; merge it into its base first"):
        layerimp.load(tmp_path / "adapter")
    merged = wrapped.merge_and_unload()
    assert len(layerimp.find_blocks(layerimp.prune(merged, [1]))) == 3


def test_an_output_directory_says_where_its_models_are(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "avss"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=f"holds no config.json; that of a model is {checkpoint}$"):
        layerimp.load(tmp_path)


def test_a_model_that_reads_sound_is_refused() -> None:
    """Sound is made up only for models that read images as well."""
    config = SimpleNamespace(audio_config=tiny("llama").config, quantization_config=None)
    with pytest.raises(ModelError, match="Sound reads audio_config beside text, but no images; layerimp can prune"):
        refuse_config(cast(Any, config), "Sound")
