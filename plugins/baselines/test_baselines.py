"""The baselines against naive computations in float64, and their invariants."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from layerimp_baselines import Angular, BlockInfluence, Random, RelativeMagnitude
from layerimp_baselines.geometry import angle, one_minus_cosine
from support.tiny import shut, tiny

import layerimp
from layerimp.errors import OptionError
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.testing import BLOCKS, batch, padded_batch

FORWARD = ["block-influence", "relative-magnitude", "angular"]
Rows = list[np.ndarray]


def states(model: Any, batches: list[dict[str, torch.Tensor]]) -> list[Rows]:
    """h_0 to h_L of a Llama, each as a list of samples [token, hidden] in float64, padding dropped."""
    kept: list[Rows] = [[] for _ in range(BLOCKS + 1)]
    stream: dict[int, torch.Tensor] = {}
    blocks = model.model.layers
    handles = [
        b.register_forward_pre_hook(lambda _m, a, i=i: stream.__setitem__(i, a[0])) for i, b in enumerate(blocks)
    ]
    handles.append(blocks[-1].register_forward_hook(lambda _m, _a, out: stream.__setitem__(BLOCKS, out)))
    with torch.no_grad():
        for inputs in batches:
            model.model(**inputs, use_cache=False)
            for index, hidden in stream.items():
                for row, mask in zip(hidden.double(), inputs["attention_mask"].bool(), strict=True):
                    kept[index].append(row[mask].numpy())
    for handle in handles:
        handle.remove()
    return kept


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


def scored(model: Any, batches: list[dict[str, torch.Tensor]], scorer: str | Scorer) -> Importance:
    """What a single scorer gives."""
    (importance,) = layerimp.score(model, batches, [scorer]).values()
    return importance


@pytest.fixture(scope="module")
def setting() -> tuple[Any, list[dict[str, torch.Tensor]], list[Rows]]:
    model = tiny("llama", dtype=torch.float64)
    batches = [batch(3, 12, seed=1), padded_batch((12, 5, 9), seed=2)]
    return model, batches, states(model, batches)


def test_block_influence_of_a_trained_model() -> None:
    """Against the hidden states that Transformers gives out; those of the last block only past the final norm."""
    model, tokenizer = layerimp.load("starter", dtype="float32")
    inputs = tokenizer(
        ["Mia has the red key.", "The film was not bad, although it was long."], padding=True, return_tensors="pt"
    )
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        states = model.model(**inputs, output_hidden_states=True).hidden_states[:-1]
    rows = [hidden[mask].double().numpy() for hidden in states]
    scores = scored(model, [dict(inputs)], "block-influence").scores
    assert scores[:-1] == pytest.approx([float((1 - cosine(a, b)).mean()) for a, b in pairwise(rows)], rel=1e-4)


def test_block_influence(setting: Any) -> None:
    model, batches, kept = setting
    pairs = [(np.concatenate(a), np.concatenate(b)) for a, b in pairwise(kept)]
    scores = scored(model, batches, "block-influence").scores
    np.testing.assert_allclose(scores, [np.mean(1 - cosine(a, b)) for a, b in pairs], rtol=1e-9)


def test_relative_magnitude(setting: Any) -> None:
    model, batches, kept = setting
    pairs = [(np.concatenate(a), np.concatenate(b)) for a, b in pairwise(kept)]
    expected = [np.mean(np.linalg.norm(b - a, axis=-1) / np.linalg.norm(b, axis=-1)) for a, b in pairs]
    scores = scored(model, batches, "relative-magnitude").scores
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


@pytest.mark.parametrize("tokens", ["last", "all"])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_angular(setting: Any, window: int, tokens: str) -> None:
    model, batches, kept = setting
    chosen = [np.concatenate([row[-1:] if tokens == "last" else row for row in rows]) for rows in kept]
    windows = [
        float(np.mean(np.arccos(cosine(chosen[s], chosen[s + window])) / math.pi)) for s in range(BLOCKS - window + 1)
    ]
    scorer = Angular(BLOCKS, Angular.Config(window=window, tokens=tokens))
    importance = scored(model, batches, scorer)
    np.testing.assert_allclose(importance.spans[window], windows, rtol=1e-8)
    holders = [[w for s, w in enumerate(windows) if s <= block < s + window] for block in range(BLOCKS)]
    np.testing.assert_allclose(importance.scores, [min(each) for each in holders], rtol=1e-8)


def test_a_block_that_adds_nothing_can_score_above_others_in_wider_windows() -> None:
    model = tiny("llama", dtype=torch.float64, num_hidden_layers=6)
    with torch.no_grad():
        for block, factor in ((1, 0.0), (4, 0.05), (5, 0.05)):
            for path in ("self_attn.o_proj", "mlp.down_proj"):
                model.model.layers[block].get_submodule(path).weight.mul_(factor)
    lowest = {}
    for window in (1, 2):
        scorer = Angular(6, Angular.Config(window=window))
        lowest[window] = scored(model, [padded_batch()], scorer).weakest_first()[0]
        assert scorer.identity_scores_least == (lowest[window] == 1)
    assert lowest == {1: 1, 2: 5}


def test_angular_agrees_with_block_influence_on_one_token() -> None:
    """On a single token per row, cos(pi x angular) = 1 - block influence."""
    model, inputs = tiny("llama", dtype=torch.float64), batch(1, 1)
    importances = layerimp.score(model, [inputs], ["angular", "block-influence"])
    turned = np.cos(np.pi * np.array(importances["angular"].scores))
    np.testing.assert_allclose(turned, 1 - np.array(importances["block-influence"].scores), rtol=1e-9)


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_neox", "opt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_identity_block_scores_least(architecture: str, name: str, dtype: torch.dtype) -> None:
    model = shut(tiny(architecture, dtype=dtype), 2)
    scores = scored(model, [batch()], name).scores
    assert scores[2] == 0
    assert min(scores[:2] + scores[3:]) > 0


@pytest.mark.parametrize("scorer", [BlockInfluence, RelativeMagnitude, Angular])
def test_bypassed_blocks_are_as_if_removed(scorer: Any) -> None:
    model, inputs, name = tiny("llama", dtype=torch.float64), padded_batch(), scorer.name
    past = measure(layerimp.find_blocks(model), [inputs], {name: scorer(BLOCKS - 1)}, removed=[1])[name]
    assert past.blocks == [0, 2, 3]
    with pruned(model, [1]):
        np.testing.assert_allclose(past.scores, scored(model, [inputs], name).scores, rtol=1e-12)


def test_all_forward_scorers_share_one_pass() -> None:
    model = tiny("llama")
    calls: list[int] = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    together = layerimp.score(model, [batch()], [*FORWARD, "avss", "random", "depth"])
    assert len(calls) == 1
    for name in FORWARD:
        assert together[name].scores == scored(model, [batch()], name).scores


def test_priors() -> None:
    model = tiny("llama")

    assert scored(model, [batch()], "depth").weakest_first() == [2, 1, 0, 3]
    chances = scored(model, [batch()], "random").scores
    assert chances == scored(model, [batch()], "random").scores
    assert len(set(chances)) == BLOCKS


def test_a_search_by_random_removes_at_random() -> None:
    """Scoring again after each removal changes no number, so that the search takes what the first scores say."""
    stack, text = layerimp.find_blocks(tiny("llama", num_hidden_layers=9)), [batch()]

    def scored(*removed: int) -> dict[Any, float]:
        importance = measure(stack, text, {"r": Random(9 - len(removed))}, removed=removed)["r"]
        return dict(zip(importance.blocks, importance.scores, strict=True))

    first, later = scored(), scored(2, 5)
    assert later == {block: score for block, score in first.items() if block in later}
    assert len(set(later.values())) == len(later)


def test_a_window_that_does_not_fit_is_named() -> None:
    with pytest.raises(OptionError, match="a window of 5 blocks does not fit into 4"):
        Angular(BLOCKS, Angular.Config(window=5))


PROPERTY = settings(derandomize=True, max_examples=40, deadline=None)


@PROPERTY
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_geometry(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = (torch.from_numpy(rng.normal(size=(5, 8))) for _ in range(2))
    reference = torch.from_numpy(cosine(x.numpy(), y.numpy()))
    torch.testing.assert_close(one_minus_cosine(x, y * factor), 1 - reference)
    torch.testing.assert_close(angle(x * factor, y), torch.arccos(reference))
    torch.testing.assert_close(angle(x, -x), torch.full((5,), math.pi, dtype=torch.float64))
    half = x.bfloat16()
    assert one_minus_cosine(half, half).tolist() == [0] * 5
    assert angle(half, half).tolist() == [0] * 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_minus_cosine_of_zeros(dtype: torch.dtype) -> None:
    """A row of zeros has no direction: it is half way to any other, and none to another of zeros."""
    zero, some = torch.zeros(2, 3, dtype=dtype), torch.tensor([[1e-3, 2, -1], [1, 0, 5]], dtype=dtype)
    for x, y, expected in ((zero, some, 0.5), (some, zero, 0.5), (zero, zero, 0.0), (some, some, 0.0)):
        assert one_minus_cosine(x, y).tolist() == pytest.approx([expected] * 2, abs=1e-6 if expected else 0)


def test_one_minus_cosine_of_a_small_turn_in_float32() -> None:
    """1e-10, of which 1 - cos in float32 would leave nothing."""
    x = torch.tensor([[1.0, 0, 0]])
    y = 3 * torch.tensor([[1.0, 1e-5, 1e-5]])
    exact = 1 - cosine(x.double().numpy(), y.double().numpy())
    assert one_minus_cosine(x, y).numpy() == pytest.approx(exact, rel=1e-5)
