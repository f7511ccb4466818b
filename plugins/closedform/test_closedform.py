"""The healers `linear` and `rescale` against least squares written out, and against what has to stay as it is."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from layerimp_closedform import Linear, Rescale
from layerimp_closedform.fits import NormFit, PlainFit, fit_of
from layerimp_closedform.rescale import AtGap, Change
from support.healing_cases import lstsq
from support.heard import Heard
from torch import nn
from transformers import PreTrainedModel

import layerimp
from layerimp.blocks import computing
from layerimp.fidelity import Distance, Loss
from layerimp.healer import Case, Repair, Writer
from layerimp.healing import Healed, State, replace
from layerimp.testing import batch, padded_batch, tiny_classifier, tiny_model

TEXT = [batch(8, 16, seed=1), padded_batch((16, 9, 12, 5), seed=2), batch(8, 16, seed=3)]


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states_of(linear: nn.Module, norm: nn.Module | None, sizes: Sequence[int], *, joined: bool = False) -> list[State]:
    """Made-up states in batches, at a gap after a map of 5 features and 3 outputs; two tokens are massive."""
    states = []
    for seed, size in enumerate(sizes):
        read, target, rest = rows(size, 5, seed), rows(size, 3, 10 + seed), rows(size, 3, 20 + seed)
        target[0] *= 1000
        with torch.no_grad():
            written = linear(read)
            normed = None if norm is None else written + rest if joined else written
            added = written if norm is None else norm(normed)
        states.append(State(added if joined else rest + added, target, read, written, normed))
    return states


class Holder(nn.Module):
    """A map, and a norm after it."""

    def __init__(self, *, bias: bool, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.down = nn.Linear(5, 3, bias=bias, dtype=torch.float64)
        self.norm = norm
        for seed, parameter in enumerate(self.parameters()):
            parameter.data = 0.5 + 0.3 * rows(1, parameter.numel(), 30 + seed).view(parameter.shape)


def whole(states: list[State], name: str) -> torch.Tensor:
    return torch.cat([getattr(state, name) for state in states])


class Tried:
    """Stands for a gap at which ridges from a least one on help, and the larger the better or the worse."""

    def __init__(self, least: float, best: float) -> None:
        self._least, self._best = least, best
        self.best, self.ridges = Change(), list[float]()

    def attempt(self, change: Callable[[], Change]) -> None:
        made = change()
        assert made.ridge is not None
        self.ridges.append(made.ridge)
        before = math.inf if self.best.ridge is None else abs(self.best.ridge - self._best)
        if made.ridge >= self._least and abs(made.ridge - self._best) < before:
            self.best = made


@pytest.mark.parametrize(
    ("least", "best", "tried"),
    [
        (0.0, 2.0, [2.0, 1.0, 3.0]),
        (0.0, 0.0, [2.0, 1.0, 0.0]),
        (0.0, 9.0, [2.0, 1.0, 3.0, 4.0]),
        (4.0, 9.0, [2.0, 3.0, 4.0]),
        (9.0, 9.0, [2.0, 3.0, 4.0]),
    ],
)
def test_larger_ridges_are_tried_where_none_helps(least: float, best: float, tried: list[float]) -> None:
    at: Any = Tried(least, best)
    fit = SimpleNamespace(values=lambda _factor, _ridge: {})
    Linear(Linear.Config(ridges=(0.0, 1.0, 2.0, 3.0, 4.0)))._search(at, fit, [1.0])  # type: ignore[arg-type]
    assert at.ridges == tried


@pytest.mark.parametrize("bias", [False, True])
def test_the_plain_fit_is_weighted_least_squares(bias: bool) -> None:
    model = Holder(bias=bias)
    states = states_of(model.down, None, (7, 30, 4))
    factor, ridge, total, scale = 1.3, 0.02, 0.8, 0.5
    fit = PlainFit(model, Writer("down", scale=scale), total)
    for state in states:
        fit.add(state)
    values = fit.values(factor, ridge)
    x, target, stream = (whole(states, name) for name in ("read", "target", "stream"))
    if bias:
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    weight = 1 / target.square().mean(dim=1).sqrt()
    change = lstsq(x, target / (total * factor) - stream, weight, ridge) / scale
    assert torch.allclose(values["down.weight"], model.down.weight + change[:, :5], atol=1e-8)
    if bias:
        assert torch.allclose(values["down.bias"], model.down.bias + change[:, 5], atol=1e-8)


@pytest.mark.parametrize("joined", [False, True])
def test_the_diagonal_fit_is_least_squares_channel_by_channel(joined: bool) -> None:
    norm = nn.LayerNorm(3, dtype=torch.float64)
    model = Holder(bias=True, norm=norm)
    states = states_of(model.down, norm, (7, 30), joined=joined)
    fit = NormFit(model, Writer("down", "norm", joined=joined), 1.0)
    for state in states:
        fit.add(state)
    aims = [fit.aim(state, 1.0) for state in states]
    values = fit.norm_values(1.0)
    aim, normed = torch.cat(aims), whole(states, "normed")
    unit = nn.functional.layer_norm(normed, (3,))
    weight = 1 / whole(states, "target").square().mean(dim=1).sqrt()
    expected = aim if joined else whole(states, "target") - (whole(states, "stream") - norm(normed).detach())
    assert torch.allclose(aim, whole(states, "target") if joined else expected)
    for channel in range(3):
        columns = torch.stack([unit[:, channel], torch.ones(len(unit), dtype=torch.float64)], dim=1)
        root = weight.sqrt()[:, None]
        solution = torch.linalg.lstsq(root * columns, root * expected[:, channel : channel + 1]).solution[:, 0]
        assert float(values["norm.weight"][channel]) == pytest.approx(float(solution[0]), rel=1e-6)
        assert float(values["norm.bias"][channel]) == pytest.approx(float(solution[1]), rel=1e-6, abs=1e-8)


def test_a_fit_through_a_norm_finds_what_was_there() -> None:
    """Where the target is another map through the norm."""
    norm = nn.RMSNorm(3, dtype=torch.float64, eps=1e-12)
    model = Holder(bias=False, norm=norm)
    states = states_of(model.down, norm, (2000,))
    angles = rows(2000, 1, 40)[:, 0]
    read = torch.cat([torch.stack([angles.cos(), angles.sin(), angles.cos()], dim=1), rows(2000, 2, 41)], dim=1)
    true = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)
    spread = torch.tensor([3.0, 0.5, 1.0], dtype=torch.float64)
    with torch.no_grad():
        written = model.down(read)
        rest = states[0].stream - norm(states[0].written)
        aim = spread * nn.functional.rms_norm(read @ true.T, (3,))
        state = State(rest + norm(written), rest + aim, read, written, written)
    fit = NormFit(model, Writer("down", "norm"), 1.0)
    fit.add(state)
    values = fit.values(1.0, 1e-9)
    healed = values["norm.weight"] * nn.functional.rms_norm(read @ values["down.weight"].T, (3,))
    assert (healed - aim).square().mean() < 0.01 * aim.square().mean()  # one step: close, and not exact


def healed(model: PreTrainedModel, gone: Sequence[int], healer: str) -> Healed:
    return layerimp.heal(model, gone, TEXT, healer)


@pytest.mark.parametrize("healer", ["linear", "rescale"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_gap_where_nothing_was_lost_stays(healer: str, architecture: str) -> None:
    """Blocks that add nothing are removed: there is nothing to heal, and nothing is changed."""
    model = tiny_model(architecture)
    for block in list(layerimp.find_blocks(model))[1:3]:
        for name, parameter in block.named_parameters():
            if name.split(".")[-2] in ("o_proj", "down_proj", "c_proj"):
                nn.init.zeros_(parameter)
    healing = healed(model, [1, 2], healer)
    assert healing.loss["pruned"] == pytest.approx(healing.loss["intact"], abs=1e-6)
    pruned: Any = healing.model
    for path in healing.changed:
        before = model.get_parameter(path)
        assert torch.allclose(pruned.get_parameter(path), before, atol=1e-4), path


def predictable(model: PreTrainedModel, scale: float = 8.0) -> list[dict[str, torch.Tensor]]:
    """Text that the intact model itself would write, so that losing blocks raises its loss."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale)
    rows_of = []
    for seed in range(4):
        ids = batch(32, 4, seed=seed)["input_ids"]
        for _ in range(12):
            with torch.no_grad():
                logits: torch.Tensor = model(input_ids=ids).logits[:, -1]
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        rows_of.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return rows_of


@pytest.mark.parametrize("changes", [{}, {"architecture": "gemma3_text", "head_dim": 8, "tie_word_embeddings": False}])
def test_linear_brings_back_what_was_lost(changes: dict[str, Any], tmp_path: Any) -> None:
    model = tiny_model(**changes)
    text = predictable(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    healing = layerimp.heal(model, (1, 2), text, "linear")
    assert healing.recovered is not None
    assert healing.recovered > 0.05
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    layerimp.save(healing.model, None, tmp_path / "healed")


def test_a_post_norm_classifier_is_healed_or_left() -> None:
    model = tiny_classifier()
    for healer in ("linear", "rescale"):
        healing = healed(model, [1, 2], healer)
        assert healing.loss["healed"] <= healing.loss["pruned"]
    assert healing.changed == []
    assert "its norms do not cancel a factor" in healing.repairs[0].why


def test_experts_get_a_factor_alone() -> None:
    judging = [batch(32, 16, seed=7)]
    healing = layerimp.heal(tiny_model("mixtral", num_local_experts=4), [1], TEXT, "linear", judging=judging)
    assert healing.changed
    assert "experts" in healing.repairs[0].why
    assert all("down_proj" in path or "o_proj" in path for path in healing.changed)


def test_few_tokens_are_told() -> None:
    heard = Heard()
    layerimp.heal(tiny_model(), [1], [batch(4, 4, seed=1)], "linear", progress=heard)
    assert heard.lines[1] == "linear: block 1: 8 tokens for 64 unknowns of each output; more text helps (--samples)"


def test_each_block_runs_once_over_the_text_to_fit_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the blocks of maps that were fitted run again, for the next gap."""
    model: Any = tiny_model(num_hidden_layers=8)
    attention = type(model.model.layers[0].self_attn)
    own, runs = attention.forward, Counter[int]()

    def forward(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        runs[id(self)] += len(hidden_states) == 6  # of eight rows, one is to choose by, and one to measure on
        return own(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(attention, "forward", forward)
    monkeypatch.setattr(Distance, "is_better_than", lambda _self, _start: True)
    pruned: Any = layerimp.heal(model, [1, 3, 6], [batch(8, 16, seed=1)], "linear").model
    assert [runs[id(block.self_attn)] for block in model.model.layers] == [1] * 7 + [0]
    assert [runs[id(block.self_attn)] for block in pruned.model.layers] == [2, 2, 1, 1, 0]


class Spoiling(Linear):
    """Repairs each gap as `linear` does, and spoils the map before the last."""

    def repair(self, at: AtGap) -> tuple[Repair, Loss]:
        repair, after = super().repair(at)
        if at.gap is at.case.gaps[-1]:
            assert at.gap.writer is not None
            path = f"{at.gap.writer.path}.weight"
            replace(at.case.pruned.model, path, 30 * at.case.pruned.model.get_parameter(path))
            repair = dataclasses.replace(repair, done="spoiling")
        return repair, after


def test_a_repair_that_harms_does_not_take_the_others_along() -> None:
    model, judging = tiny_model(num_hidden_layers=6), [batch(32, 16, seed=7)]
    text = predictable(model)
    healing = layerimp.heal(model, [1, 4], text, Spoiling(), judging=judging)
    first, last = healing.repairs
    assert first.done == "linear"
    assert last.done == "nothing"
    assert last.why.startswith("spoiling was taken back: the divergence went from ")
    assert healing.distance["divergence_after"] < healing.distance["divergence_before"]
    alone = layerimp.heal(model, [1, 4], text, "linear", judging=judging)
    for path in healing.changed:
        assert torch.equal(healing.model.get_parameter(path), alone.model.get_parameter(path)), path


def test_repairs_made_one_by_one_are_never_worse_than_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may be a little worse than the one before, within its error."""
    together = iter([False])
    monkeypatch.setattr(Distance, "is_better_than", lambda _self, _start: next(together, True))
    monkeypatch.setattr(Distance, "is_worse_than", lambda _self, _start: True)
    model = tiny_model(num_hidden_layers=6)
    healing = layerimp.heal(model, [1, 4], predictable(model), "linear")
    assert {repair.done for repair in healing.repairs} == {"nothing"}


class FirstAlone(Linear):
    """Repairs the first gap alone, as `linear` does."""

    def repair(self, at: AtGap) -> tuple[Repair, Loss]:
        return super().repair(at) if at.gap is at.case.gaps[0] else (Repair(at.gap, "nothing"), at.before)


def test_a_single_repair_is_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Case] = []
    own = FirstAlone._repaired
    monkeypatch.setattr(
        FirstAlone, "_repaired", lambda self, case, *distance: runs.append(case) or own(self, case, *distance)
    )
    monkeypatch.setattr(Distance, "is_better_than", lambda _self, _start: False)
    model = tiny_model(num_hidden_layers=6)
    healing = layerimp.heal(model, [1, 4], predictable(model), FirstAlone())
    assert len(runs) == 1
    assert healing.repairs[0].why.startswith("linear was taken back: ")


def test_factors_of_several_gaps_multiply() -> None:
    """The healed model computes what the pruned one does with its stream scaled at each gap by what the repairs say."""
    model = tiny_model(num_hidden_layers=6, tie_word_embeddings=False)
    for index, block in enumerate(layerimp.find_blocks(model)):
        block.mlp.down_proj.weight.data *= 1 + index
    text = [
        {name: rows[:8] for name, rows in predictable(model)[0].items()}
    ]  # few rows: any gain on the one to choose by is taken
    healing = layerimp.heal(model, [1, 3], text, Rescale(Rescale.Config(shares=(1.0, 0.5, 0.25, -0.25))))
    factors = [repair.numbers.get("factor", 1.0) for repair in healing.repairs]
    plain = layerimp.heal(model, [1, 3], TEXT, Rescale(Rescale.Config(shares=(1e-9,)))).model
    blocks = layerimp.find_blocks(plain)
    ids = TEXT[0]["input_ids"]

    def scaled(forward: Any, factor: float) -> Any:
        return lambda hidden, *args, **kwargs: forward(factor * hidden, *args, **kwargs)

    with (
        torch.no_grad(),
        computing(blocks[1], scaled(blocks[1].forward, factors[0])),
        computing(blocks[2], scaled(blocks[2].forward, factors[1])),
    ):
        expected = plain(input_ids=ids).logits
    with torch.no_grad():
        logits = healing.model(input_ids=ids).logits
    assert torch.allclose(logits, expected, atol=2e-2 * float(expected.abs().max()))
    assert any(factor != 1 for factor in factors)


def test_the_fit_follows_the_writer() -> None:
    assert fit_of(Writer("down")) is PlainFit
    assert fit_of(Writer("down", norm="norm")) is NormFit
