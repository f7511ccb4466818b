"""The same on a GPU as on the CPU, and the same offloaded to a GPU as whole on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.mood import Run
from support.offloaded import SCORERS, TEXT, scores
from support.tiny import EAGER_ONLY, saved, tiny

import layerimp
from layerimp.models.offloading import open_offloaded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA_VISIBLE_DEVICES names no GPU"),
]
OTHERS = ("gbis", "taylor", "lrp", "perplexity", "cim")


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "mixtral", "bert", "deberta-v2"])
def test_scores_are_those_of_the_cpu(name: str) -> None:
    model = tiny(name, attention="eager" if name in EAGER_ONLY else "sdpa")
    expected = layerimp.score(model, TEXT, [*SCORERS, *OTHERS])
    results = layerimp.score(model.to("cuda"), TEXT, [*SCORERS, *OTHERS])
    for scorer, importance in results.items():
        assert importance.scores == pytest.approx(expected[scorer].scores, rel=1e-3, abs=1e-5), scorer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "bert"])
def test_offloaded_scores_are_those_of_the_whole_model(name: str, dtype: str, tmp_path: Path) -> None:
    """To the bit; without experts, which a GPU may add up in any order."""
    directory = saved(tiny(name), tmp_path / "model", max_shard_size="40KB")
    whole = layerimp.find_blocks(layerimp.load(directory, dtype=dtype, device="cuda")[0])
    assert scores(open_offloaded(directory, dtype=dtype, device="cuda")) == scores(whole)


def test_one_block_is_on_the_gpu_at_a_time(tmp_path: Path) -> None:
    wide = tiny("llama", hidden_size=256, intermediate_size=2048)
    directory = saved(wide, tmp_path / "model")
    block = sum(parameter.nbytes for parameter in wide.model.layers[0].parameters())
    stack = open_offloaded(directory, device="cuda")
    scores(stack, ["block-influence"])  # from here on the workspace of the products is there
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    scores(stack, ["block-influence"])
    assert block <= torch.cuda.max_memory_allocated() - before < 2 * block
    assert torch.cuda.memory_allocated() - before < block


def test_a_run_with_healing(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    options = ["--scorer", "block-influence", "--heal", "linear", "--heal", "distill", "--set", "distill.steps=2"]
    output = tmp_path / "out"
    code, _, err = layerimp_command("run", *scoring, *options, "--tasks", task, "--output", output)
    assert code == 0, err
    for label in ("block-influence", "block-influence+linear", "block-influence+distill"):
        tensors = load_file(output / "checkpoints" / label / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values()), label


def test_files_are_pruned_as_in_memory(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    for way in ("--offload", "--no-offload"):
        code, _, err = layerimp_command(
            "prune", *scoring, "--scorer", "block-influence", "--ratio", 0.25, way, "--output", tmp_path / way
        )
        assert code == 0, err
    offloaded, whole = (
        load_file(tmp_path / way / "checkpoints" / "block-influence" / "model.safetensors")
        for way in ("--offload", "--no-offload")
    )
    assert offloaded.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[key]) for key, tensor in offloaded.items())
