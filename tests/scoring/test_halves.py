"""Attention and MLP, scored separately: `--by sublayer`."""

from __future__ import annotations

import pytest
import torch
from support.scored_by_hand import ARCHITECTURES, SILENT, states
from support.tiny import PARALLEL, each_of, tiny
from torch import nn
from torch.nn.functional import cosine_similarity

import layerimp
from layerimp.errors import ModelError
from layerimp.progress import SILENT as NO_PROGRESS
from layerimp.recipe import ComponentSpec
from layerimp.scorer import Importance
from layerimp.scoring.engine import measure
from layerimp.scoring.selection import Selection
from layerimp.testing import BLOCKS, batch, padded_batch

TEXT = [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]


def scored(model: nn.Module, *names: str) -> dict[str, Importance]:
    """The importance of the halves of all blocks."""
    selection = Selection(NO_PROGRESS, {name: ComponentSpec(name=name) for name in names})
    scorers = {label: each for name in names for label, each in selection.create_halves(BLOCKS, name).items()}
    return measure(layerimp.find_blocks(model), TEXT, scorers)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_half_is_scored_by_the_stream_before_and_after_it(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    parts = [
        [state[inputs["attention_mask"].bool()] for state in states(model, architecture, inputs)] for inputs in TEXT
    ]
    stream = [torch.cat(rows) for rows in zip(*parts, strict=True)]
    importance = scored(model, "block-influence", "relative-magnitude")
    assert list(importance) == [
        f"{n}.{part}" for n in ("block-influence", "relative-magnitude") for part in ("attn", "mlp")
    ]
    for offset, part in enumerate(("attn", "mlp")):
        ends = [(stream[2 * block + offset], stream[2 * block + offset + 1]) for block in range(BLOCKS)]
        turned = [float((1 - cosine_similarity(before, after)).mean()) for before, after in ends]
        grown = [float(((after - before).norm(dim=-1) / after.norm(dim=-1)).mean()) for before, after in ends]
        assert importance[f"block-influence.{part}"].blocks == list(range(BLOCKS))
        assert importance[f"block-influence.{part}"].scores == pytest.approx(turned, rel=1e-8, abs=1e-12)
        assert importance[f"relative-magnitude.{part}"].scores == pytest.approx(grown, rel=1e-8)


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize("architecture", SILENT)
def test_a_half_that_adds_nothing_scores_zero(architecture: str, silent: int) -> None:
    """If the halves of the first block cannot be found, another block of the same structure shows them."""
    model = tiny(architecture, dtype=torch.float64)
    path = SILENT[architecture][silent]
    for parameter in layerimp.find_blocks(model)[0].get_submodule(path).parameters():
        nn.init.zeros_(parameter)
    for part, importance in enumerate(scored(model, "block-influence").values()):
        assert [block for block, score in enumerate(importance.scores) if score == 0] == [0] * (part == silent)


@pytest.mark.parametrize("name", each_of(sorted(PARALLEL)))
def test_parallel_branches_have_no_stream_between_them(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be divided into attention and MLP: it does not add"):
        scored(tiny(name), "block-influence")


@pytest.mark.parametrize("name", ["avss", "perplexity", "gbis", "divergence", "random"])
def test_a_scorer_that_reads_something_else_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"scorer '{name}' cannot score attention and MLP apart: only scorers can"):
        scored(tiny("llama"), name)
