"""A checkpoint loads in a process without layerimp, or it does not exist."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import ALL, EAGER_ONLY, ENCODERS, tiny
from transformers import AutoModelForCausalLM

import layerimp
from layerimp.checkpoint import saving as checkpoint
from layerimp.errors import CheckpointError, OptionError, OutputError
from layerimp.testing import batch, tiny_tokenizer

STOCK = """
import json, sys
sys.modules["layerimp"] = None  # importing it would fail
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
found = {}
for line in sys.stdin:
    directory, auto = line.split()
    model = globals()[auto].from_pretrained(directory).eval()
    with torch.no_grad():
        found[directory] = model(torch.arange(1, 13)[None]).logits.double().flatten().tolist()[:400]
print(json.dumps(found))
"""


def test_stock_transformers_loads_every_architecture(tmp_path: Path) -> None:
    expected, lines = {}, []
    for name in ALL:
        model = layerimp.prune(tiny(name, attention="eager" if name in EAGER_ONLY else "sdpa"), [1])
        directory = layerimp.save(model, None, tmp_path / name.replace(":", "-"))
        with torch.no_grad():
            expected[str(directory)] = model(torch.arange(1, 13)[None]).logits.double().flatten()[:400]
        lines.append(f"{directory} AutoModelFor{'SequenceClassification' if name in ENCODERS else 'CausalLM'}")
    done = subprocess.run(
        [sys.executable, "-c", STOCK], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    for directory, found in json.loads(done.stdout.splitlines()[-1]).items():
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected[directory], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_and_tied_weights_stay(tmp_path: Path, dtype: torch.dtype) -> None:
    model = layerimp.prune(tiny("llama", dtype=dtype, tie_word_embeddings=True), [1])
    directory = layerimp.save(model, tiny_tokenizer(), tmp_path / "out")
    weights = load_file(directory / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    assert "lm_head.weight" not in weights
    reloaded = AutoModelForCausalLM.from_pretrained(directory)
    assert reloaded.lm_head.weight.data_ptr() == reloaded.model.embed_tokens.weight.data_ptr()
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"} <= names
    assert not any(name.endswith((".bin", ".pt")) for name in names)


def test_the_saved_model_generates_as_in_memory(tmp_path: Path) -> None:
    model = layerimp.prune(tiny("gemma3_text"), [0])
    ids = batch(1, 6)["input_ids"]
    kwargs: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    expected = model.generate(ids, **kwargs)
    reloaded = AutoModelForCausalLM.from_pretrained(layerimp.save(model, None, tmp_path / "out"))
    assert torch.equal(reloaded.generate(ids, **kwargs), expected)


def spoil_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0] += 1
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def drop_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def spoil_config(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_weight, r"weight model.layers.1.mlp.down_proj.weight is not the one in memory"),
        (drop_weight, "missing keys"),
        (spoil_config, "unexpected keys|2 blocks"),
    ],
)
def test_what_does_not_load_back_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, said: str
) -> None:
    model = layerimp.prune(tiny("llama"), [1])
    save_pretrained = model.save_pretrained
    monkeypatch.setattr(model, "save_pretrained", lambda path: (save_pretrained(path), spoil(path)))
    with pytest.raises(CheckpointError, match=said):
        layerimp.save(model, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    layerimp.save(model, None, tmp_path / "unverified", verify=False)


def beyond_the_vocabulary(model: Any) -> None:
    model.config.pad_token_id = 5000


def another_vocabulary(model: Any) -> None:
    model.config.vocab_size = 10


def shared(model: Any) -> None:
    model.model.layers[0].mlp.up_proj.weight = model.model.layers[1].mlp.up_proj.weight


def no_json(model: Any) -> None:
    model.config.extra = object()


def hot(model: Any) -> None:
    model.generation_config.temperature = 0.3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (beyond_the_vocabulary, "does not load back: Padding_idx must be within num_embeddings"),
        (
            another_vocabulary,
            r"2 mismatched keys, the first is lm_head.weight, which is \[97, 32\] in the files and \[10, 32\] by",
        ),
        (shared, "LlamaForCausalLM refuses to be saved: .*layers.0.mlp.up_proj"),
        (no_json, "LlamaForCausalLM refuses to be saved: .*not JSON serializable"),
        (hot, "LlamaForCausalLM refuses to be saved: GenerationConfig is invalid: - `temperature`"),
    ],
)
def test_what_stock_code_refuses_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    model = tiny("llama")
    change(model)
    with pytest.raises(CheckpointError, match=said) as caught:
        layerimp.save(model, None, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_cache_is_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits without a cache agree, so that only logits with a cache show the error."""
    model, real = tiny("llama"), checkpoint.cached_logits

    def wrong_in_the_checkpoint(one: Any) -> torch.Tensor | None:
        found = real(one)
        return found if one.model is model or found is None else found.roll(1, dims=1)

    monkeypatch.setattr(checkpoint, "cached_logits", wrong_in_the_checkpoint)
    with pytest.raises(CheckpointError, match="cached logits are"):
        layerimp.save(model, None, tmp_path / "out")


def test_a_cache_that_only_the_checkpoint_cannot_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real = tiny("llama"), checkpoint.cached_logits

    def only_in_memory(one: Any) -> torch.Tensor | None:
        if one.model is not model:
            raise IndexError("no layer 3")
        return real(one)

    monkeypatch.setattr(checkpoint, "cached_logits", only_in_memory)
    with pytest.raises(CheckpointError, match="cannot run with a cache: IndexError: no layer 3"):
        layerimp.save(model, None, tmp_path / "out")


def test_weights_come_in_shards(tmp_path: Path) -> None:
    model = tiny("llama")
    directory = layerimp.save(model, None, tmp_path / "out", max_shard_size="30KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert max(shard.stat().st_size for shard in shards) < 40_000
    torch.testing.assert_close(
        AutoModelForCausalLM.from_pretrained(directory).state_dict(), model.state_dict(), rtol=0, atol=0
    )
    with pytest.raises(OptionError, match="'big' is no size; give one such as 5GB"):
        layerimp.save(model, None, tmp_path / "other", max_shard_size="big")


def test_an_interrupted_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")

    def interrupt(path: Path) -> None:
        (Path(path) / "half").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        layerimp.save(model, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _device: 1000)
    with pytest.raises(OutputError, match=r"GiB more memory.*--no-verify"):
        layerimp.save(tiny("llama"), None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        layerimp.save(tiny("llama"), None, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "mine"
