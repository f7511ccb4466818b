"""The description of a model without its weights agrees with the loaded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_footprint import Footprint
from safetensors.torch import save_file
from support.mood import Run
from support.published import checked
from support.tiny import ALL, UNPRUNABLE, each_of, tiny
from transformers import AutoConfig, PreTrainedModel

import layerimp
from layerimp.errors import ModelError, SurgeryError
from layerimp.models.configuration import without_weights
from layerimp.models.discovery import find_blocks
from layerimp.models.sizing import language_model, ledger_of
from layerimp.pipeline import inspection
from layerimp.pipeline.inspection import inspect_model
from layerimp.recipe import Permissions
from layerimp.surgery.removal import prepare

MADE: dict[str, dict[str, Any]] = {
    "llama:tied": {"tie_word_embeddings": True},
    "llama:large-padding": {"vocab_size": 300, "pad_token_id": 299},
    "qwen3_moe:uneven": {"mlp_only_layers": [1, 3], "intermediate_size": 256},
}


def made(name: str) -> PreTrainedModel:
    changes = MADE.get(name, {})
    return tiny(name.split(":")[0] if name in MADE else name, **changes)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes loading of weights an error."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)


@pytest.mark.parametrize("name", each_of([*ALL, *MADE]))
def test_it_is_what_the_loaded_model_shows(name: str, tmp_path: Path, unread: None) -> None:
    model = made(name)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    inspected = inspect_model(str(tmp_path), Permissions())
    checked(json.dumps(inspected.model_dump(mode="json")))
    stack = layerimp.find_blocks(model)
    measured = {metric.name: metric.value for metric in Footprint(Footprint.Config(repeats=1)).evaluate(model, None)}
    assert inspected.architecture == type(model).__name__
    assert (inspected.parameters, inspected.bytes) == (measured["parameters"], measured["bytes"])
    assert inspected.kv_bytes_per_token == measured.get("kv_bytes_per_token", 0)
    assert inspected.files is not None
    assert inspected.files.files == len(list(tmp_path.glob("*.safetensors"))) > 1
    assert inspected.files.bytes == measured["bytes"]
    assert not inspected.notes
    for index, block in enumerate(inspected.blocks):
        assert block.parameters == sum(parameter.numel() for parameter in stack[index].parameters())
        assert block.bytes == 4 * block.parameters
        assert not block.not_removed
    inside = sum(block.parameters for block in inspected.blocks)
    assert inside + inspected.outside.parameters == inspected.parameters


@pytest.mark.parametrize("name", [*UNPRUNABLE])
def test_blocks_that_stock_code_cannot_do_without_are_named_with_the_reason(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    model.save_pretrained(tmp_path)
    stack = layerimp.find_blocks(model)
    refused = {}
    for block in range(len(stack)):
        try:
            prepare(stack, [block])
        except SurgeryError as error:
            refused[block] = str(error)
    assert refused
    blocks = inspect_model(str(tmp_path), Permissions()).blocks
    assert {block.block: block.not_removed for block in blocks if block.not_removed} == refused


@pytest.mark.parametrize(
    ("name", "whole", "language"),
    [("gemma-3-4b", 4_300_079_472, 3_880_263_168), ("qwen3-vl-8b", 8_767_123_696, 8_190_735_360)],
)
def test_published_models_that_see(name: str, whole: int, language: int) -> None:
    fields = json.loads((Path(__file__).parent / "configurations" / f"{name}.json").read_text())
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    stack = find_blocks(without_weights(config))
    assert ledger_of(stack).left(()).parameters == whole
    size = language_model(stack)
    assert size is not None
    assert (size.parameters, size.bytes) == (language, 2 * language)


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    made("qwen3_moe:uneven").save_pretrained(tmp_path)
    blocks = inspect_model(str(tmp_path), Permissions()).blocks
    assert [block.alike for block in blocks] == [0, 1, 0, 1]
    tiny("gemma2").save_pretrained(tmp_path / "other")
    kinds = [block.kind for block in inspect_model(str(tmp_path / "other"), Permissions()).blocks]
    assert kinds == ["sliding_attention", "full_attention"] * 2


def test_bytes_are_those_that_are_stored(tmp_path: Path) -> None:
    tiny("mixtral", dtype=torch.bfloat16).save_pretrained(tmp_path)
    inspected = inspect_model(str(tmp_path), Permissions())
    assert inspected.stored_dtype == "bfloat16"
    assert inspected.bytes == 2 * inspected.parameters
    assert inspected.kv_bytes_per_token == 2 * 4 * 2 * 2 * 8  # keys and values of 4 blocks, each of 2 heads of 8


def test_files_and_configuration_that_disagree_are_noted(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5, "dtype": "bfloat16"}))
    first, second = inspect_model(str(tmp_path), Permissions()).notes
    assert "numbers, and the configuration describes" in first
    assert second == "the configuration says bfloat16, and the weights in the files are float32"


def test_only_the_files_that_are_read_count(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    save_file({"twice": torch.zeros(7)}, tmp_path / "consolidated.safetensors")
    files = inspect_model(str(tmp_path), Permissions()).files
    assert files is not None
    assert files.files == 1


def test_what_is_broken_is_refused(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[0].write_bytes(b"nothing")
    with pytest.raises(ModelError, match=f"cannot read .*{shards[0].name}"):
        inspect_model(str(tmp_path), Permissions())
    shards[0].unlink()
    with pytest.raises(ModelError, match=f"cannot read .*{shards[0].name}"):
        inspect_model(str(tmp_path), Permissions())
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match=r"is no index of weight files"):
        inspect_model(str(tmp_path), Permissions())
    shutil.rmtree(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        inspect_model(str(tmp_path), Permissions())


def test_the_command_shows_it(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    out, _ = layerimp_command.done("inspect", model_dir)
    assert "LlamaForCausalLM, 4 blocks, stored in float32" in out
    assert "0-3" in out
    assert "stock code builds the model without any one of its blocks" in out
    assert max(map(len, out.splitlines())) <= 120
    out, _ = layerimp_command.done("inspect", model_dir, "--json")
    checked(out)
    code, out, err = layerimp_command("inspect", tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("free", [1000, 1 << 40])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_whether_a_model_fits(
    free: int, device: str, tmp_path: Path, layerimp_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    directory = tmp_path / "model"
    model.save_pretrained(directory)
    monkeypatch.setattr(inspection, "device_named", lambda _device: torch.device(device))
    monkeypatch.setattr(inspection, "free_bytes", lambda _device: free)
    memory = inspect_model(str(directory), Permissions()).memory
    sizes = [sum(parameter.nbytes for parameter in block.parameters()) for block in layerimp.find_blocks(model)]
    ends = model.get_input_embeddings().weight.nbytes + model.model.norm.weight.nbytes
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert memory.model_dump() == {
        "device": device,
        "weights": weights,
        "offloaded": max(sizes) + ends,
        "free": free,
    }
    out, _ = layerimp_command.done("inspect", directory)
    assert f"the model {'fits' if free > 1000 else 'does not fit, and is offloaded'} (--offload: " in out
