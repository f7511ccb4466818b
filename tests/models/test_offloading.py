"""A model that is read block by block: the same numbers as in memory, one block at a time, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.offloaded import TEXT, Busiest, scores
from support.tiny import ALL, classifier, each_of, saved, tiny
from torch import nn
from transformers import LlamaForCausalLM

import layerimp
from layerimp.errors import ModelError
from layerimp.models import offloading
from layerimp.models.offloading import open_offloaded
from layerimp.registry.attribution import create
from layerimp.scoring.engine import measure
from layerimp.testing import BLOCKS


@pytest.mark.same_bits("the scores of an offloaded model, and in memory")
@pytest.mark.parametrize("name", each_of(sorted(ALL)))
def test_scores_are_those_in_memory_to_the_bit(name: str, tmp_path: Path) -> None:
    """Dense and with experts, sandwich norms, parallel branches, sliding windows, tied heads and others."""
    directory = saved(tiny(name), tmp_path / "model")
    model, _ = layerimp.load(directory)
    stack = open_offloaded(directory)
    assert stack.offloaded
    assert scores(stack) == scores(layerimp.find_blocks(model))


@pytest.mark.same_bits("the scores of an offloaded model, and in memory")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "bfloat16") for name in ("llama", "gptj", "gemma2", "mixtral", "bert")),
        *((name, "float64") for name in ("llama", "gemma2")),
    ],
)
def test_other_dtypes(name: str, dtype: str, tmp_path: Path) -> None:
    directory = saved(tiny(name), tmp_path / "model")
    model, _ = layerimp.load(directory, dtype=dtype)
    stack = open_offloaded(directory, dtype=dtype)
    assert scores(stack) == scores(layerimp.find_blocks(model))
    for kept, offloaded in zip(model.named_buffers(), stack.model.named_buffers(), strict=True):
        assert kept[0] == offloaded[0]
        assert torch.equal(kept[1], offloaded[1])


def test_a_checkpoint_in_many_files(tmp_path: Path) -> None:
    directory = saved(tiny("mixtral"), tmp_path / "model", max_shard_size="40KB")
    assert len(list(directory.glob("*.safetensors"))) > 4
    model, _ = layerimp.load(directory)
    assert scores(open_offloaded(directory)) == scores(layerimp.find_blocks(model))


def test_what_is_left_without_a_block(tmp_path: Path) -> None:
    directory = saved(tiny("qwen3"), tmp_path / "model")
    stacks = [layerimp.find_blocks(layerimp.load(directory)[0]), open_offloaded(directory)]
    importances = []
    for stack in stacks:
        scorer = create("scorer", "block-influence", {}, len(stack) - 1)
        importances.append(measure(stack, TEXT, {"block-influence": scorer}, removed=[1]))
    assert importances[0] == importances[1]


@pytest.mark.parametrize("scorer", ["gbis", "lrp", "taylor", "perplexity", "cim"])
def test_what_needs_all_blocks_is_refused_by_name(scorer: str, tmp_path: Path) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))
    with pytest.raises(ModelError, match=f"'{scorer}' cannot score an offloaded model: .* needs all blocks in memory"):
        scores(stack, [scorer])


def test_a_tied_head_and_one_of_its_own(tmp_path: Path) -> None:
    for tied in (False, True):
        directory = saved(tiny("llama", tie_word_embeddings=tied), tmp_path / str(tied))
        stack = open_offloaded(directory)
        assert stack.model.lm_head.weight.is_meta is not tied
        assert scores(stack) == scores(layerimp.find_blocks(layerimp.load(directory)[0]))


def test_the_embedding_stored_under_the_name_of_the_head(tmp_path: Path) -> None:
    directory = saved(tiny("llama", tie_word_embeddings=True), tmp_path / "model")
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, file, {"format": "pt"})
    assert scores(open_offloaded(directory)) == scores(layerimp.find_blocks(layerimp.load(directory)[0]))


def changed(directory: Path, key: str, value: torch.Tensor | None) -> None:
    """Put another tensor into a checkpoint, or take one out."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(key)
    save_file(tensors if value is None else tensors | {key: value}, file, {"format": "pt"})


PARTS = ["model.layers.2.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"]


@pytest.mark.parametrize("key", PARTS)
def test_a_missing_tensor_is_named_before_anything_is_read(key: str, tmp_path: Path) -> None:
    directory = saved(tiny("llama"), tmp_path / "model")
    changed(directory, key, None)
    with pytest.raises(ModelError, match=f"do not fit its configuration: 1 missing keys, the first is {key}"):
        open_offloaded(directory)


def test_more_blocks_than_the_configuration_counts(tmp_path: Path) -> None:
    directory = saved(tiny("llama"), tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"weights of a block 3 \(model\.layers\.3\..*but its configuration counts 3"):
        open_offloaded(directory)


def test_a_block_that_predicts_further_ahead_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Transformers does; GLM has such a block."""
    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", [rf"model\.layers\.{BLOCKS}.*"])
    directory = saved(tiny("llama"), tmp_path / "model")
    expected = scores(open_offloaded(directory))
    tensors = load_file(directory / "model.safetensors")
    further = {f"model.layers.{BLOCKS}.eh_proj.weight": torch.ones(3)}
    save_file(tensors | further, directory / "model.safetensors", {"format": "pt"})
    assert scores(open_offloaded(directory)) == expected


def test_of_a_model_on_the_hub_only_the_files_that_load_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}

    def fetched(_name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    offloading._directory("org/model")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    offloading._directory("org/model")
    assert asked == [["*.json"], ["model.safetensors"], ["*.json"], sorted(index["weight_map"].values())]


def test_a_missing_expert(tmp_path: Path) -> None:
    directory = saved(tiny("mixtral"), tmp_path / "model")
    gone = next(key for key in load_file(directory / "model.safetensors") if "layers.1." in key and "experts.2" in key)
    changed(directory, gone, None)
    stack = open_offloaded(directory)
    with pytest.raises(ModelError, match="cannot convert the weights"):
        scores(stack, ["block-influence"])


def test_another_shape(tmp_path: Path) -> None:
    directory = saved(tiny("llama"), tmp_path / "model")
    changed(directory, "model.layers.2.mlp.up_proj.weight", torch.ones(3, 5))
    stack = open_offloaded(directory)
    with pytest.raises(ModelError, match=r"model\.layers\.2\.mlp\.up_proj\.weight, which is \[3, 5\] in the files"):
        scores(stack, ["block-influence"])


def test_a_file_of_another_model(tmp_path: Path) -> None:
    """One of the files is that of another part; the error names the file that the index names."""
    directory = saved(tiny("llama"), tmp_path / "model", max_shard_size="40KB")
    files = sorted(directory.glob("*.safetensors"))
    files[2].write_bytes(files[0].read_bytes())
    with pytest.raises(
        ModelError, match=r"the first is model\.layers\.\d.* which model-00003-of-.* should hold by the index"
    ):
        open_offloaded(directory)


def test_a_model_that_writes_into_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))
    projection = type(stack[0].mlp.down_proj)
    forward = projection.forward

    def writing(self: nn.Linear, value: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.weight.data = self.weight.data
            self.weight.mul_(0.5)
        return forward(self, value)

    monkeypatch.setattr(projection, "forward", writing)
    with pytest.raises(ModelError, match="LlamaForCausalLM writes into its weights while it runs"):
        scores(stack, ["block-influence"])


def test_a_model_that_runs_its_blocks_in_a_mode_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))
    forward = type(stack.backbone).forward

    def cast(*args: Any, **options: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(*args, **options)

    monkeypatch.setattr(stack.backbone, "forward", cast.__get__(stack.backbone))
    with pytest.raises(ModelError, match="runs its blocks inside a mode of torch such as autocast"):
        scores(stack, ["block-influence"])
    assert not torch.is_autocast_enabled("cpu")


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))

    class Interrupted(Busiest):
        name = "interrupted"

        def update(self, trace: Any) -> None:
            if trace.block == 1 and trace.batch == 1:
                raise KeyboardInterrupt

    before = len(stack[0]._forward_pre_hooks)
    with pytest.raises(KeyboardInterrupt):
        measure(stack, TEXT, {"interrupted": Interrupted(len(stack))})
    assert len(stack[0]._forward_pre_hooks) == before
    assert all(parameter.is_meta for block in stack for parameter in block.parameters())
    assert torch.is_grad_enabled()


def test_a_failing_scorer_is_set_aside(tmp_path: Path) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))

    class Failing(Busiest):
        name = "failing"

        def update(self, trace: Any) -> None:
            raise RuntimeError("oops")

    from layerimp.scoring.engine import fill, finished

    good = create("scorer", "block-influence", {}, len(stack))
    filled = fill(stack, TEXT, {"bad": Failing(len(stack)), "good": good})  # type: ignore[dict-item]
    assert "oops" in str(filled["bad"].error)
    alone = scores(stack, ["block-influence"])["block-influence"]
    assert finished("good", filled["good"]).scores == alone[0]


def test_classifiers(tmp_path: Path) -> None:
    directory = saved(classifier("qwen3").float(), tmp_path / "model")
    assert scores(open_offloaded(directory)) == scores(layerimp.find_blocks(layerimp.load(directory)[0]))


def test_one_block_is_in_memory_at_a_time(tmp_path: Path) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))
    seen: list[list[int]] = []

    def look(*_: Any) -> None:
        seen.append([at for at, block in enumerate(stack) if not next(block.parameters()).is_meta])

    hooks = [block.register_forward_pre_hook(look) for block in stack]
    scores(stack, ["block-influence"])
    for hook in hooks:
        hook.remove()
    assert seen == [[at] for at in range(BLOCKS) for _ in TEXT]
    assert all(parameter.is_meta for block in stack for parameter in block.parameters())


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))
    weights = stack.residency._weights  # type: ignore[union-attr]
    read: list[str] = []
    put = weights.put
    monkeypatch.setattr(weights, "put", lambda keys: (read.extend(keys), put(keys))[1])
    scores(stack, ["block-influence", "relative-magnitude"])
    inside = [key for key in weights.tensors if ".layers." in key]
    assert sorted(read) == sorted(inside)
