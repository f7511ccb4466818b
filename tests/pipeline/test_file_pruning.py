"""Pruning the files of a model, tensor by tensor: what is written is what pruning in memory writes, or nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from safetensors import safe_open
from safetensors.torch import save_file
from support.by_label import by_label
from support.mood import Run
from support.recipes import make_recipe
from support.tiny import saved, tiny
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlamaForCausalLM

import layerimp
from layerimp.checkpoint import copying
from layerimp.errors import CheckpointError, LayerimpError, OutputError, SurgeryError
from layerimp.models.offloading import open_offloaded
from layerimp.pipeline import file_pruning
from layerimp.pipeline.commands import prune_model
from layerimp.testing import BLOCKS


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


QUICK = ["gemma2", "gpt2", "bloom", "qwen3_moe", "gpt_neo", "bert"]
"""Tied weights, other names, tables outside the blocks, blocks of two kinds, and an encoder."""
WHOLE = [*QUICK, *map(slow, "llama gemma3_text phi opt mixtral gpt_oss deberta-v2 falcon granite".split())]


def weights(directory: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    return tensors


def pruned(model: Path, output: Path, blocks: Any, **options: Any) -> Path:
    recipe = {"model": str(model), "blocks": blocks, "output": str(output), **options}
    prune_model(make_recipe(recipe))
    return output / "checkpoints" / "blocks"


def compare(model: Path, tmp_path: Path, blocks: Any) -> None:
    """The same tensors to the bit under the same names, and the same configuration, as without offloading."""
    usual = pruned(model, tmp_path / "usual", blocks)
    offloaded = pruned(model, tmp_path / "offloaded", blocks, offload=True)
    ours, theirs = weights(offloaded), weights(usual)
    assert ours.keys() == theirs.keys()
    assert all(tensor.dtype == theirs[key].dtype and torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    configs = [json.loads((directory / "config.json").read_text()) for directory in (offloaded, usual)]
    assert configs[0] == configs[1]
    names = [
        {file.name for file in directory.iterdir() if "model" not in file.name} for directory in (offloaded, usual)
    ]
    assert names[0] == names[1]
    assert (offloaded / "README.md").read_text().replace("offloaded", "usual") == (usual / "README.md").read_text()


def test_the_dtype_to_compute_in_is_not_that_of_the_files(model_dir: Path, tmp_path: Path) -> None:
    """As the help of `--dtype` says; in memory a narrower one is that of the checkpoint."""
    for offload, dtype in ((True, torch.float32), (False, torch.bfloat16)):
        checkpoint = pruned(model_dir, tmp_path / str(offload), [1], offload=offload, dtype="bfloat16")
        assert {tensor.dtype for tensor in weights(checkpoint).values()} == {dtype}


@pytest.mark.parametrize("name", WHOLE)
def test_blocks_are_removed_as_in_memory(name: str, tmp_path: Path) -> None:
    compare(saved(tiny(name), tmp_path / "model"), tmp_path, [1, 2] if name in ("gpt_neo",) else [1])


@pytest.mark.parametrize("kind", ["gemma3", slow("llava")])
def test_a_model_that_sees_under_its_published_names(kind: str, tmp_path: Path) -> None:
    """The files of LLaVA and Gemma 3 hold names that Transformers changes on loading."""
    model = saved(zoo.build(kind, "image"), tmp_path / "model")
    (model / "processor_config.json").write_text('{"patch_size":  8}')
    named = {
        key.replace("vision_tower.", "vision_tower.vision_model."): tensor for key, tensor in weights(model).items()
    }
    save_file(named, model / "model.safetensors", {"format": "pt"})
    usual = pruned(model, tmp_path / "usual", [1, 4])
    written = pruned(model, tmp_path / "offloaded", [1, 4], offload=True)
    kept = [0, 2, 3, 5]
    layer = "language_model.model.layers.{}."
    moved = {layer.format(old): layer.format(new) for new, old in enumerate(kept)}
    gone = tuple(layer.format(old) for old in (1, 4))
    expected = {
        next((key.replace(old, new) for old, new in moved.items() if key.startswith(old)), key): tensor
        for key, tensor in named.items()
        if not key.startswith(gone)
    }
    tensors = weights(written)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in tensors.items())
    both = [AutoModelForImageTextToText.from_pretrained(place).state_dict() for place in (written, usual)]
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(tensor, both[1][key]) for key, tensor in both[0].items())
    for place in (written, usual):
        assert (place / "processor_config.json").read_bytes() == b'{"patch_size":  8}'
        assert "AutoModelForImageTextToText" in (place / "README.md").read_text()


def test_in_bfloat16(tmp_path: Path) -> None:
    compare(saved(tiny("qwen3", dtype=torch.bfloat16), tmp_path / "model"), tmp_path, [0, 2])


def test_a_checkpoint_in_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "SHARD_SIZE", "40KB")
    model = saved(tiny("mixtral"), tmp_path / "model", max_shard_size="40KB")
    compare(model, tmp_path, [2])
    directory = pruned(model, tmp_path / "many", [2], offload=True)
    sizes = [file.stat().st_size for file in directory.glob("*.safetensors")]
    assert len(sizes) > 2
    assert max(sizes) < 44_000
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    tensors = weights(directory)
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    loaded, _ = layerimp.load(directory)
    assert len(layerimp.find_blocks(loaded)) == BLOCKS - 1


def test_each_tensor_keeps_its_dtype(tmp_path: Path) -> None:
    """A router in float32 in a checkpoint in bfloat16, which loading as a whole would round."""
    model = tiny("llama", dtype=torch.bfloat16)
    model.model.layers[3].input_layernorm.weight.data = 1 + torch.rand(32) / 1000
    directory = saved(model, tmp_path / "model")
    tensors = weights(pruned(directory, tmp_path / "out", [1], offload=True))
    kept = tensors["model.layers.2.input_layernorm.weight"]
    assert kept.dtype == torch.float32
    assert torch.equal(kept, weights(directory)["model.layers.3.input_layernorm.weight"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_configuration_states_the_dtype_of_the_files(dtype: str, tmp_path: Path) -> None:
    """Files are copied as they are, whatever the model computes in."""
    directory = saved(tiny("llama"), tmp_path / "model")
    made = pruned(directory, tmp_path / "out", [1], offload=True, dtype=dtype)
    assert {tensor.dtype for tensor in weights(made).values()} == {torch.float32}
    assert json.loads((made / "config.json").read_text())["dtype"] == "float32"


def test_position_that_decides_is_refused(tmp_path: Path) -> None:
    model = saved(tiny("gemma4_text"), tmp_path / "model")
    errors = []
    for offload in (False, True):
        with pytest.raises(LayerimpError) as error:
            pruned(model, tmp_path / str(offload), [BLOCKS - 1], offload=offload)
        errors.append(type(error.value))
        assert not (tmp_path / str(offload)).exists()
    assert errors[0] == errors[1]


def test_a_wrong_tensor_is_found_by_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tiny("llama"), tmp_path / "model")
    right = file_pruning.kept_tensors

    def swapped(*args: Any) -> Any:
        tensors = right(*args)
        first, second = (f"model.layers.{index}.mlp.up_proj.weight" for index in (0, 1))
        return tensors | {first: tensors[second], second: tensors[first]}

    monkeypatch.setattr(file_pruning, "kept_tensors", swapped)
    with pytest.raises(SurgeryError, match="computes differently without block 2 than past it"):
        pruned(model, tmp_path / "out", [2], offload=True)
    assert not (tmp_path / "out").exists()


def test_a_byte_that_was_not_copied_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tiny("llama"), tmp_path / "model")
    right = copying.save_file

    def broken(tensors: Any, file: Path, *args: Any) -> None:
        right(tensors, file, *args)
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)

    monkeypatch.setattr(copying, "save_file", broken)
    with pytest.raises(CheckpointError, match=r"the checkpoint's weight .* is not the one that was copied"):
        pruned(model, tmp_path / "out", [2], offload=True)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tiny("llama"), tmp_path / "model")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write the weights in blocks: .*No space left"):
        pruned(model, tmp_path / "out", [2], offload=True)
    assert not (tmp_path / "out").exists()


def test_one_block_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tiny("llama"), tmp_path / "model")
    most: list[int] = []
    stacks: list[Any] = []

    def remembering(*args: Any, **options: Any) -> Any:
        stack = open_offloaded(*args, **options)
        stacks.append(stack)
        for block in stack:
            block.register_forward_pre_hook(lambda *_: None)
            block.register_forward_hook(lambda *_: most.append(sum(map(resident, stacks))))
        return stack

    def resident(stack: Any) -> int:
        return sum(not next(block.parameters()).is_meta for block in stack)

    monkeypatch.setattr(file_pruning, "open_offloaded", remembering)
    pruned(model, tmp_path / "out", [1], offload=True)
    assert most
    assert max(most) <= 1


@pytest.mark.parametrize("amount", [["--count", 1], ["--target", "kv-cache=0.6", "--target", "parameters=0.9"]])
def test_the_command_scores_and_prunes(
    amount: list[object], layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    options = [*scoring, "--scorer", "block-influence", *amount, "--json"]
    reports = []
    for more in ([], ["--offload"]):
        output = tmp_path / f"out{len(reports)}"
        out, _ = layerimp_command.done("prune", *options, *more, "--output", output)
        report = by_label(out.replace(output.name, "out"))
        reports.append(report)
        assert weights(output / "checkpoints" / "block-influence").keys()
    assert reports[0] == reports[1]


def test_other_commands_do_not_offload(layerimp_command: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("offload: true\n")
    err = layerimp_command.refused("evaluate", "--recipe", tmp_path / "recipe.yaml")
    assert "layerimp evaluate measures a whole model in memory; leave out offload" in err


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tiny("llama"), tmp_path / "model")
    monkeypatch.setattr(LlamaForCausalLM, "__module__", "transformers_modules.mine")
    with pytest.raises(SurgeryError, match="LlamaForCausalLM comes with code of its own"):
        pruned(model, tmp_path / "out", [1], offload=True)
    assert not (tmp_path / "out").exists()


def test_a_stock_model_that_names_code_of_its_own_is_pruned(tmp_path: Path) -> None:
    """The code does not run unless that is allowed."""
    model = saved(tiny("llama"), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "mine.Mine"}}))
    pruned(model, tmp_path / "out", [1], offload=True)
