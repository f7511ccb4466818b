"""Seams from end to end: wherever a user can name them, the result is the model without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_footprint import Footprint
from support.by_label import by_label
from support.mood import Run
from support.tiny import tiny
from transformers import AutoModelForCausalLM

import layerimp
from layerimp import PrunePlan
from layerimp.checkpoint.record import read_record
from layerimp.report import Size
from layerimp.testing import BLOCKS, tiny_tokenizer


def left_of(model: Any, halves: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """The weights of a Llama whose blocks have the attention of one and the MLP of another, by their new names."""
    weights = {}
    for name, tensor in model.state_dict().items():
        head, _, rest = name.partition("layers.")
        if not rest:
            weights[name] = tensor
            continue
        block, _, inside = rest.partition(".")
        half = 0 if inside.startswith(("self_attn.", "input_layernorm.")) else 1
        for new, old in enumerate(halves):
            if old[half] == int(block):
                weights[f"{head}layers.{new}.{inside}"] = tensor
    return weights


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


EXPECTED = [(0, 0), (1, 2), (3, 3)]
"""What is left of four blocks without the seam 1/2."""


def test_a_seam_is_cut_by_name_and_by_plan(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "named"
    printed, _ = layerimp_command.done("prune", "--model", model_dir, "--blocks", "1/2", "--output", out, "--json")
    results = by_label(printed)
    assert results["scorers"]["blocks"]["removed"] == ["1/2"]
    pruned = out / "checkpoints" / "blocks"
    intact = AutoModelForCausalLM.from_pretrained(model_dir)
    loaded = AutoModelForCausalLM.from_pretrained(pruned)
    assert loaded.config.num_hidden_layers == BLOCKS - 1
    assert same(loaded.state_dict(), left_of(intact, EXPECTED))
    counts = [sum(p.numel() for p in model.parameters()) for model in (intact, loaded)]
    assert results["parameters"] == {"original": counts[0], "pruned": {"blocks": counts[1]}}
    assert results["bytes"]["pruned"]["blocks"] == 4 * counts[1]
    record = read_record(pruned)
    assert record is not None
    assert (record.num_blocks, record.removed) == (BLOCKS, ("1/2",))
    assert json.loads((pruned / "layerimp.json").read_text())["removed"] == ["1/2"]
    assert "- Seam 1/2: the MLP of block 1 and the attention of block 2;" in (pruned / "README.md").read_text()
    arguments = ["--model", model_dir, "--plan", out / "plan.json", "--output", tmp_path / "again"]
    printed, _ = layerimp_command.done("prune", *arguments)
    assert "seam 1/2: the MLP of block 1 and the attention of block 2;" in " ".join(printed.split())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again" / "checkpoints" / "blocks")
    assert same(again.state_dict(), loaded.state_dict())


@pytest.mark.parametrize("pruner", ["lowest", "greedy"])
def test_a_run_cuts_a_seam_and_the_weakest_of_the_other_blocks(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, pruner: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"blocks: [1/2]\ncount: 2\npruner: {pruner}\ntasks: []\nevaluators: [footprint]\n"
    )
    arguments = ["run", *scoring, "--scorer", "block-influence", "--recipe", tmp_path / "recipe.yaml"]
    printed, _ = layerimp_command.done(*arguments, "--json")
    scorer = by_label(printed)["scorers"]["block-influence"]
    assert scorer["removed"][0] == "1/2"
    assert scorer["removed"][1] in (0, 3)
    printed, _ = layerimp_command.done(*arguments)
    assert printed.count("½ 1st (1/2)") == 2
    assert printed.count("✗ 2nd") == 1


def test_python_takes_seams() -> None:
    for steps in ([3, "1/2"], PrunePlan(num_blocks=BLOCKS, blocks=[3, "1.mlp,2.attn"])):
        model, intact = tiny("llama"), tiny("llama")
        assert layerimp.prune(model, steps) is model
        assert same(model.state_dict(), left_of(intact, EXPECTED[:2]))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "bert"])
def test_a_seam_makes_the_model_smaller_by_what_went(name: str) -> None:
    def measured(model: Any) -> dict[str, float]:
        config = Footprint.Config(seq_length=8, repeats=2)
        return {metric.name: metric.value for metric in Footprint(config).evaluate(model, tiny_tokenizer())}

    model, block, seam = tiny(name), tiny(name), tiny(name)
    layerimp.prune(block, [1])
    layerimp.prune(seam, ["1/2"])
    sizes = [Size.of(layerimp.find_blocks(each)) for each in (model, block, seam)]
    assert sizes[2] == sizes[1]  # blocks of the same kind have halves of the same size
    assert sizes[2].blocks == sizes[0].blocks - 1
    costs = [measured(each) for each in (model, block, seam)]
    assert costs[2]["parameters"] == costs[1]["parameters"] < costs[0]["parameters"]
    assert costs[2]["bytes"] == costs[1]["bytes"]
    if name != "bert":
        ids = torch.arange(8)[None]
        caches = [each(ids, use_cache=True).past_key_values for each in (model, block, seam)]
        assert [len(cache) for cache in caches] == [BLOCKS, BLOCKS - 1, BLOCKS - 1]
