"""The recipes of other tools: each does what it says, and leaves the model that it is given as it is."""

from __future__ import annotations

import copy
from functools import partial
from itertools import count
from types import SimpleNamespace

import peers
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import layerimp
from layerimp.calibration import load_calibration

COUNT = 2


@pytest.fixture(scope="module")
def task() -> peers.Task:
    """A stock model, text, and minutes of training."""
    model, tokenizer = layerimp.load("starter")
    assert tokenizer is not None
    text = list(load_calibration("starter", tokenizer, samples=16, max_length=64, batch_size=4))
    return peers.Task(model, text, text, COUNT, minutes=1)


@pytest.fixture(autouse=True)
def _a_second_passes_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "time", SimpleNamespace(monotonic=partial(next, count())))


def error(task: peers.Task, small: PreTrainedModel, window: range, left: int) -> float:
    """The squared difference of the states after a window from those of a model that has `left` blocks of it."""
    total = 0.0
    for batch in task.calibration:
        kept = batch["attention_mask"].bool()
        aim, own = (
            peers.boundaries(task.intact, batch)[window.stop],
            peers.boundaries(small, batch)[window.start + left],
        )
        total += float((own[kept] - aim[kept]).square().sum())
    return total


def values(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", ["short-transformers", "llm-streamline", "replaceme"])
def test_a_recipe_leaves_the_intact_model_as_it_is(task: peers.Task, name: str) -> None:
    before = values(task.intact)
    small = peers.RECIPES[name](task)
    after = values(task.intact)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.requires_grad for parameter in task.intact.parameters())
    assert len(layerimp.find_blocks(small)) == len(layerimp.find_blocks(task.intact)) - COUNT


def test_llm_streamline_trains_a_block_to_do_the_work_of_the_window(task: peers.Task) -> None:
    window = peers.nearest_window(task, COUNT + 1, peers.at_all_tokens)
    untrained = layerimp.prune(copy.deepcopy(task.intact), list(window[1:]))
    assert error(task, peers.llm_streamline(task), window, 1) < error(task, untrained, window, 1)


def test_replaceme_fits_the_state_after_the_window(task: peers.Task) -> None:
    window = peers.nearest_window(task, COUNT, peers.at_last_token)
    removed = layerimp.prune(copy.deepcopy(task.intact), list(window))
    folded = peers.replaceme(task)
    assert error(task, folded, window, 0) < error(task, removed, window, 0)


def test_what_is_learned_counts_at_once() -> None:
    layer, inputs = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with peers.precision(mixed=True):
        before = layer(inputs).detach()
        with torch.no_grad():
            layer.weight.add_(1)
        assert before.dtype is torch.bfloat16
        assert (layer(inputs) > before).all()
