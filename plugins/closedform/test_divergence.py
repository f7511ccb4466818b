"""The scorer `divergence` against models that are cut, repaired by least squares and compared with the intact one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layerimp_closedform import Divergence
from layerimp_closedform.repaired import Repaired
from layerimp_closedform.rows import split_rows
from layerimp_greedy import Search
from scipy.special import rel_entr, softmax
from support.healing_cases import lstsq
from support.scored_by_hand import states
from support.tiny import tiny
from torch import Tensor
from torch.nn.functional import layer_norm

import layerimp
from layerimp import Importance
from layerimp.errors import CalibrationError
from layerimp.pruner import Budget
from layerimp.scoring.engine import measure, scored_blocks
from layerimp.surgery.removal import pruned
from layerimp.testing import batch, padded_batch, tiny_classifier

BLOCKS = 5
BARE = "scored without a repair, which cannot be fitted or has nothing to do: block 0"
SPECIAL = 3
"""The first token ids, which the configuration names as special, and which are in no row."""
TEXT = [
    inputs | {"input_ids": inputs["input_ids"].clamp(min=SPECIAL)}
    for inputs in (batch(3, 40, seed=1), padded_batch((40, 31, 22), seed=2))
]
SETTINGS: dict[str, Any] = {"rows": 2, "tokens": 140, "ridge": 0.01, "copying": 0.25}


def model_of(architecture: str = "llama") -> Any:
    return tiny(architecture, dtype=torch.float64, num_hidden_layers=BLOCKS)


def scored(model: Any, removed: Sequence[int] = (), *, text: Any = None, **how: Any) -> Importance:
    """The importance of what is left of a model."""
    stack = layerimp.find_blocks(model)
    count = len(scored_blocks(removed, len(stack), how.get("among")))
    scorers = {"d": Divergence(count, Divergence.Config(**SETTINGS))}
    return measure(stack, text or TEXT, scorers, removed=removed, **how)["d"]


def by_hand(model: Any, blocks: Sequence[int], *, repaired: bool = True) -> tuple[float, float]:
    """The mean divergence of a decoder without some blocks, repaired as a llama is: at new tokens, and at copied ones.

    Another decoder can be measured without a repair.
    """
    measured, fitted = split_rows(TEXT, SETTINGS["rows"], SETTINGS["tokens"])
    layers = model.model.layers
    new = {}
    for first in [block for block in blocks if block - 1 not in blocks]:
        last = next(block for block in range(first, len(layers)) if block + 1 not in blocks)
        if first == 0 or not repaired:
            continue
        down = layers[first - 1].mlp.down_proj
        read: list[Tensor] = []
        ends: list[Tensor] = []
        hooks = [
            down.register_forward_pre_hook(lambda _module, args, read=read: read.append(args[0])),
            layers[first - 1].register_forward_hook(lambda _module, _args, output, ends=ends: ends.append(output)),
            layers[last].register_forward_hook(lambda _module, _args, output, ends=ends: ends.append(output)),
        ]
        sums = [torch.zeros(64, 64), torch.zeros(64, 32)]
        for inputs in fitted:
            read.clear()
            ends.clear()
            with torch.no_grad():
                model(**inputs)
            real = inputs["attention_mask"].bool()
            x, y = read[0][real], (ends[1] - ends[0])[real]
            weight = 1 / ends[1][real].square().mean(dim=1, keepdim=True).sqrt()
            sums = [sums[0] + (weight * x).T @ x, sums[1] + (weight * x).T @ y]
        for hook in hooks:
            hook.remove()
        ridge = SETTINGS["ridge"] * sums[0].diagonal().mean() * torch.eye(64)
        new[down] = down.weight.detach() + torch.linalg.solve(sums[0] + ridge, sums[1]).T
    plain, copied = [], []
    for inputs in measured:
        for row, real in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
            own = row[real]
            half = own[: len(own) // 2]
            twice = torch.cat([half, half])[None]
            with torch.no_grad():
                expected = model(twice).logits[0].numpy()
                old = {down: down.weight.data for down in new}
                for down, weight in new.items():
                    down.weight.data = weight
                if blocks:
                    with pruned(model, list(blocks)):
                        logits = model(twice).logits[0].numpy()
                else:
                    logits = expected
                for down, weight in old.items():
                    down.weight.data = weight
            values = rel_entr(softmax(expected, axis=-1), softmax(logits, axis=-1)).sum(axis=-1)
            plain += values[: len(half) - 1].tolist()
            copied += values[len(half) - 1 : -1].tolist()
    return sum(plain) / len(plain), sum(copied) / len(copied)


@pytest.mark.parametrize("removed", [[], [2], [3, 1]])
def test_it_is_the_divergence_of_the_repaired_model(removed: list[int]) -> None:
    model = model_of()
    importance = scored(model, removed)
    start = by_hand(model, removed)
    for block, score, plain, copied in zip(
        importance.blocks,
        importance.scores,
        importance.columns["divergence"],
        importance.columns["divergence_copying"],
        strict=True,
    ):
        assert isinstance(block, int)
        expected = by_hand(model, [*removed, block])
        assert (plain, copied) == pytest.approx(expected, rel=1e-6)
        rises = [after - before for after, before in zip(expected, start, strict=True)]
        assert score == pytest.approx(0.75 * rises[0] + 0.25 * rises[1], rel=1e-6, abs=1e-9)


@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(st.permutations([0, 1, 2, 3]), st.integers(2, 3))
def test_the_scores_of_a_path_add_up_whatever_its_order(order: list[int], length: int) -> None:
    """So undoing a removal and making another one, as in an exchange, costs the difference of two such sums."""
    model = model_of()
    memory: dict[Any, Any] = {}
    total = 0.0
    for at, block in enumerate(order[:length]):
        total += scored(model, order[:at], among=[block], memory=memory).scores[0]
    plain, copied = by_hand(model, order[:length])
    assert total == pytest.approx(0.75 * plain + 0.25 * copied, rel=1e-6)


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3_text", "gpt2", "olmo2"])
def test_repairs_help_on_other_architectures(architecture: str) -> None:
    """Summed over blocks, the repaired models are nearer on the rows that the repairs are fitted on."""
    model = tiny(architecture, dtype=torch.float64, num_hidden_layers=BLOCKS)
    stack = layerimp.find_blocks(model)
    same = [TEXT[0], TEXT[0]]
    totals = []
    for ridge in (1e-4, 1e9):
        config = Divergence.Config(rows=3, ridge=ridge, copying=0)
        importance = measure(stack, same, {"d": Divergence(BLOCKS, config)})["d"]
        totals.append(sum(importance.columns["divergence"][1:]))
        assert list(importance.notes) == [BARE]
    assert 0 < totals[0] < totals[1]


def test_a_classifier_is_compared_by_its_labels() -> None:
    model = tiny_classifier(dtype=torch.float64)
    importance = scored(model, text=[padded_batch((12, 9, 14, 7, 11, 8))])
    assert list(importance.columns) == ["divergence"]
    assert importance.scores == importance.columns["divergence"]
    stack, text = layerimp.find_blocks(model), padded_batch((12, 9, 14, 7, 11, 8))
    config = Divergence.Config(ridge=1e9, rows=3)
    (least, *_) = measure(stack, [text], {"d": Divergence(4, config)})["d"].scores
    (measured,), _ = split_rows([text], 3, 99)
    values = []
    for row, real in zip(measured["input_ids"], measured["attention_mask"].bool(), strict=True):
        with torch.no_grad():
            expected = softmax(model(row[real][None]).logits[0].numpy())
            with pruned(model, [0]):
                logits = softmax(model(row[real][None]).logits[0].numpy())
        values.append(rel_entr(expected, logits).sum())
    assert least == pytest.approx(sum(values) / len(values), rel=1e-6)


def test_a_dry_run_counts_the_passes_over_the_measured_rows() -> None:
    """Without fits: two passes, and half a pass for each of six blocks; no more than half of the rows are measured."""
    assert Repaired(tokens=0).passes(6, 512) == 12 / 512 * (2 + 6 / 2)
    assert Repaired(tokens=0).passes(6, 8) == 1 / 2 * (2 + 6 / 2)


@pytest.mark.parametrize("block", [1, 2])
def test_a_repair_in_front_of_a_norm_is_least_squares_through_the_norm(block: int) -> None:
    """The map is fitted so that the norm's input points where its output should, and then the norm to the target."""
    model, text = tiny_classifier(dtype=torch.float64), [padded_batch((12, 9, 14, 7, 11, 8))]
    (measured,), (fitted,) = split_rows(text, SETTINGS["rows"], SETTINGS["tokens"])
    before = model.bert.encoder.layer[block - 1].output
    taken: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, args: taken.append(args[0]))
        for module in (before.dense, before.LayerNorm)
    ]
    target = states(model, "bert", fitted)[2 * block + 2]
    for hook in hooks:
        hook.remove()
    real = fitted["attention_mask"].bool()
    read, normed, target = (rows[real] for rows in (*taken, target))
    weight = 1 / target.square().mean(dim=1).sqrt()
    middle = torch.from_numpy(np.average(target, axis=0, weights=weight))
    spread = torch.from_numpy(np.average((target - middle) ** 2, axis=0, weights=weight)).sqrt()
    along = (target - middle) / spread
    length, scatter = along.square().mean(dim=1).sqrt(), normed.std(dim=1, correction=0)
    wanted = normed.mean(dim=1, keepdim=True) + (scatter / length)[:, None] * along
    x = torch.cat([read, torch.ones(len(read), 1)], dim=1)
    change = lstsq(x, wanted - normed, weight * (length / scatter) ** 2, SETTINGS["ridge"])
    repaired = copy.deepcopy(model)
    output = repaired.bert.encoder.layer[block - 1].output
    with torch.no_grad():
        output.dense.weight += change[:, :-1]
        output.dense.bias += change[:, -1]
        unit = layer_norm(normed + x @ change.T, normed.shape[1:], eps=output.LayerNorm.eps)
        for channel in range(unit.shape[1]):
            columns = torch.stack([unit[:, channel], torch.ones(len(unit))], dim=1)
            root = weight.sqrt()[:, None]
            scale, shift = torch.linalg.lstsq(root * columns, root * target[:, channel, None]).solution[:, 0]
            output.LayerNorm.weight[channel], output.LayerNorm.bias[channel] = scale, shift
        expected = softmax(model(**measured).logits.numpy(), axis=1)
        with pruned(repaired, [block]):
            logits = softmax(repaired(**measured).logits.numpy(), axis=1)
    divergence = rel_entr(expected, logits).sum(axis=1).mean()
    assert scored(model, text=text).scores[block] == pytest.approx(divergence, rel=1e-6)


def test_a_gap_after_experts_is_scored_without_a_repair() -> None:
    """No single map ends a mixture of experts."""
    model = tiny("mixtral", num_hidden_layers=BLOCKS)  # its experts do not compute in float64
    importance = scored(model)
    assert importance.notes == (BARE.replace("block 0", "blocks 0, 1, 2, 3, 4"),)
    for block in importance.blocks:
        found = importance.columns["divergence"][block], importance.columns["divergence_copying"][block]
        assert found == pytest.approx(by_hand(model, [block], repaired=False), rel=1e-4)


def test_the_cost_of_a_path_with_exchanges_is_the_divergence_at_its_end() -> None:
    model, memory = tiny("qwen2", dtype=torch.float64, num_hidden_layers=6), {}

    def scoring(removed: Sequence[int]) -> Importance:
        return scored(model, removed, memory=memory)

    path = Search(scoring, Budget.exactly(4, 6), frozenset(), 0.0).exchanging(2)
    assert path.exchanges
    plain, copied = by_hand(model, path.blocks)
    assert path.cost == pytest.approx(0.75 * plain + 0.25 * copied, rel=1e-6)


@pytest.mark.parametrize(("lengths", "short"), [((20, 20, 20, 20), 0), ((20, 9, 20, 9), 1), ((15, 15, 15, 15), 2)])
def test_rows_that_are_too_short_for_copying_are_counted(lengths: tuple[int, ...], short: int) -> None:
    """Half of the rows are measured: those with a half of eight tokens can be copied."""
    text = padded_batch(lengths)
    importance = scored(model_of(), text=[text | {"input_ids": text["input_ids"].clamp(min=SPECIAL)}])
    assert ("divergence_copying" in importance.columns) == (short < 2)
    counts = [int(note.split()[5]) for note in importance.notes if note.startswith("copying is not measured")]
    assert counts == [short] * (short > 0)


def test_the_order_of_the_rows_does_not_matter() -> None:
    backwards = [{name: value.flip(0) for name, value in inputs.items()} for inputs in reversed(TEXT)]
    model = model_of()
    assert scored(model, text=backwards).scores == pytest.approx(scored(model).scores, rel=1e-9)


def test_rows_are_split_by_their_content() -> None:
    measured, fitted = split_rows(TEXT, 2, 999)
    assert [[len(inputs["input_ids"]) for inputs in part] for part in (measured, fitted)] == [[2], [3, 1]]
    rows = [
        row[row > 0].tolist()
        for inputs in (*measured, *fitted)
        for row in inputs["input_ids"] * inputs["attention_mask"]
    ]
    every = [row[row > 0].tolist() for inputs in TEXT for row in inputs["input_ids"] * inputs["attention_mask"]]
    assert sorted(rows) == sorted(every)
    every = [int(length) for inputs in fitted for length in inputs["attention_mask"].sum(dim=1)]
    for tokens in (1, every[0], every[0] + 1, 999):
        _, fitted = split_rows(TEXT, 2, tokens)
        lengths = [int(length) for inputs in fitted for length in inputs["attention_mask"].sum(dim=1)]
        assert lengths == every[: len(lengths)]
        assert sum(lengths[:-1]) < tokens
        assert sum(lengths) >= tokens or lengths == every
    with pytest.raises(CalibrationError, match="got one"):
        split_rows([batch(1, 8)], 2, 99)


def test_nothing_of_the_model_is_changed() -> None:
    model = model_of()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held = dict(model.named_parameters())
    scored(model, [2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter is held[name] for name, parameter in model.named_parameters())
