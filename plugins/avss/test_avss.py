"""AVSS against a naive computation that keeps every activation, and its invariants."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from layerimp_avss import AVSS, AVSSConfig

import layerimp
from layerimp import stats
from layerimp.errors import CalibrationError, OptionError
from layerimp.registry.catalog import registry
from layerimp.sweep import Trace
from layerimp.testing import BLOCKS, Check, batch, padded_batch, parametrize, tiny_model

COLUMNS = {
    "variance",
    "std",
    "normalized_variance",
    "sparsity",
    "normalized_sparsity",
    "sparsity_deviation",
    "avss",
    "normalized_avss",
    "cumulative_avss",
}


@parametrize(
    AVSS(BLOCKS, AVSSConfig(variant="paper")),
    AVSS(BLOCKS, AVSSConfig(variant="paper", epsilon=0.3)),
    AVSS(BLOCKS, AVSSConfig(variant="reference")),
)
def test_contract(check: Check) -> None:
    check()


def kept_activations(model: Any, batches: list[dict[str, torch.Tensor]], site: str) -> list[list[np.ndarray]]:
    """Per block, each sample's activations [token, feature] at a site of a Llama, padding dropped, in float64."""
    seen: dict[int, dict[str, torch.Tensor]] = {}
    handles = []
    for index, block in enumerate(model.model.layers):
        at = seen.setdefault(index, {})
        handles += [
            block.register_forward_pre_hook(lambda _m, args, at=at: at.__setitem__("block_in", args[0])),
            block.register_forward_hook(lambda _m, _a, out, at=at: at.__setitem__("block_out", out)),
            block.self_attn.register_forward_hook(lambda _m, _a, out, at=at: at.__setitem__("attn_out", out[0])),
            block.mlp.register_forward_hook(lambda _m, _a, out, at=at: at.__setitem__("mlp_out", out)),
            block.mlp.down_proj.register_forward_pre_hook(lambda _m, args, at=at: at.__setitem__("mlp_act", args[0])),
        ]
    kept: list[list[np.ndarray]] = [[] for _ in model.model.layers]
    with torch.no_grad():
        for inputs in batches:
            model.model(**inputs, use_cache=False)
            for index, at in seen.items():
                act = at["block_out"] - at["block_in"] if site == "block_delta" else at[site]
                for row, mask in zip(act.double(), inputs["attention_mask"].bool(), strict=True):
                    kept[index].append(row[mask].numpy())
    for handle in handles:
        handle.remove()
    return kept


def naive(kept: list[list[np.ndarray]], config: AVSSConfig) -> dict[str, np.ndarray]:
    """Equations 1 to 9, as they stand in the paper."""
    samples = [[sample[1:] if config.exclude_first_token else sample for sample in block] for block in kept]
    values = [np.concatenate(block) for block in samples]
    if config.variant == "reference":
        s2 = np.array([np.mean([np.var(sample.mean(0), ddof=1) for sample in block]) for block in samples])
    else:
        s2 = np.array([np.mean((block - block.mean()) ** 2) for block in values])
    threshold = [
        config.epsilon * (np.sqrt((block**2).mean(1, keepdims=True)) if config.epsilon_mode == "relative" else 1)
        for block in values
    ]
    inactive = [np.mean(np.abs(block) < limit) for block, limit in zip(values, threshold, strict=True)]
    s = np.maximum(inactive, config.sparsity_floor)
    avss = s2 / s
    return {
        "variance": s2,
        "std": np.sqrt(s2),
        "normalized_variance": s2 / s2.sum(),
        "sparsity": s,
        "normalized_sparsity": s / s.sum(),
        "sparsity_deviation": np.abs(s - s / s.sum()),
        "avss": avss,
        "normalized_avss": avss / avss.sum(),
        "cumulative_avss": np.cumsum(avss / avss.sum()),
    }


def score(model: Any, batches: list[dict[str, torch.Tensor]], **options: Any) -> layerimp.Importance:
    scorer = AVSS(BLOCKS, AVSSConfig(**options))
    return layerimp.score(model, batches, [scorer])["avss"]


CASES = [
    {},
    {"variant": "paper"},
    {"variant": "reference"},
    {"variant": "paper", "epsilon": 0.3},
    {"variant": "reference", "epsilon": 0.3, "exclude_first_token": True},
    {"site": "block_out"},
    {"site": "block_delta"},
    {"site": "attn_out"},
    {"site": "mlp_out", "epsilon_mode": "absolute", "epsilon": 0.02},
    {"exclude_first_token": True, "sparsity_floor": 0.2},
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_a_naive_computation(options: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    model = tiny_model(dtype=dtype)
    batches = [batch(3, 12, seed=1), padded_batch((12, 5, 9), seed=2)]
    expected = naive(kept_activations(model, batches, AVSSConfig(**options).site), AVSSConfig(**options))
    importance = score(model, batches, **options)
    assert importance.columns.keys() == expected.keys() == COLUMNS
    for name, column in importance.columns.items():
        np.testing.assert_allclose(column, expected[name], rtol=tolerance, err_msg=name)
    assert importance.scores == importance.columns["normalized_avss"]


def test_streams_over_chunks_like_over_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(dtype=torch.float64)
    whole = score(model, [batch()])
    monkeypatch.setattr(stats, "CHUNK_ELEMENTS", 200)
    chunked = score(model, [batch()])
    for name, column in whole.columns.items():
        np.testing.assert_allclose(chunked.columns[name], column, rtol=1e-12)


def test_variants_run_beside_one_another_under_labels() -> None:
    model = tiny_model()
    scorers = {name: AVSS(BLOCKS, AVSSConfig(variant=name)) for name in ("default", "paper", "reference")}
    together = layerimp.score(model, [batch()], scorers)
    assert list(together) == ["default", "paper", "reference"]
    for name, importance in together.items():
        assert importance.scores == score(model, [batch()], variant=name).scores


def test_the_floor_is_named() -> None:
    importance = score(tiny_model(), [batch()], variant="paper", epsilon=1e-30)
    assert importance.columns["sparsity"] == [1e-6] * BLOCKS
    assert "0, 1, 2, 3" in " ".join(importance.notes)
    assert score(tiny_model(), [batch()]).notes == ()


def test_rows_of_one_token_leave_nothing_without_the_first() -> None:
    with pytest.raises(CalibrationError, match="no activation is left without the first token of each row"):
        score(tiny_model(), [batch(3, 1)], exclude_first_token=True)


def test_a_handful_of_inactive_activations_is_named() -> None:
    importance = score(tiny_model(), [batch()], variant="paper", sparsity_floor=1e-9, epsilon=0.03)
    entries = batch()["input_ids"].numel() * tiny_model().config.hidden_size
    counted = [share * entries for share in importance.columns["sparsity"]]
    few = [str(block) for block, count in enumerate(counted) if count < 99.5]
    assert 0 < len(few) < BLOCKS
    assert min(counted) > 0.5, "none is floored"
    (note,) = importance.notes
    assert note.startswith(f"fewer than 100 activations are below epsilon in {len(few)} of 4 blocks ({', '.join(few)})")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variant": "papers"}, "variant"),
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": "small"}, "'small'"),
        ({"sparsity_floor": 1}, "sparsity_floor"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        registry().options("scorer", "avss", options)


def test_a_preset_yields_to_what_is_given() -> None:
    assert AVSSConfig(variant="paper") == AVSSConfig(
        variant="paper", site="block_out", epsilon=1e-5, epsilon_mode="absolute"
    )
    assert AVSSConfig(variant="paper", site="mlp_act").site == "mlp_act"


def of_activations(acts: list[np.ndarray], **options: Any) -> dict[str, np.ndarray]:
    """AVSS of given activations [token, feature] per block, without a model."""
    scorer = AVSS(len(acts), AVSSConfig(site="block_out", **options))
    for index, act in enumerate(acts):
        tensor = torch.from_numpy(act)[None]
        mask = torch.ones(tensor.shape[:2], dtype=torch.bool)
        scorer.update(Trace(index, 0, {"block_out": tensor}, mask, padded=False))
    return {name: np.array(column) for name, column in scorer.compute().columns.items()}


def random_acts(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(rng.normal(), rng.uniform(0.5, 2), size=(7, 16)) for _ in range(5)]


PROPERTY = settings(derandomize=True, max_examples=30, deadline=None)
seeds = st.integers(0, 10_000)


@PROPERTY
@given(seeds, st.floats(0.01, 100))
def test_scaling(seed: int, factor: float) -> None:
    acts = random_acts(seed)
    scaled = [act * factor for act in acts]
    for mode in ("relative", "absolute"):
        before = of_activations(acts, epsilon=0.3, epsilon_mode=mode)
        after = of_activations(scaled, epsilon=0.3 * (factor if mode == "absolute" else 1), epsilon_mode=mode)
        np.testing.assert_allclose(after["variance"], factor**2 * before["variance"], rtol=1e-9)
        np.testing.assert_allclose(after["sparsity"], before["sparsity"], atol=1.5 / acts[0].size)


@PROPERTY
@given(seeds, st.floats(-1e4, 1e4))
def test_a_shift_leaves_the_variance(seed: int, shift: float) -> None:
    acts = random_acts(seed)
    before, after = of_activations(acts), of_activations([act + shift for act in acts])
    np.testing.assert_allclose(after["variance"], before["variance"], rtol=1e-7)


@PROPERTY
@given(seeds, st.floats(1e-3, 2), st.floats(1e-3, 2))
def test_sparsity_grows_with_epsilon(seed: int, epsilon: float, other: float) -> None:
    acts, (small, large) = random_acts(seed), sorted((epsilon, other))
    assert (of_activations(acts, epsilon=small)["sparsity"] <= of_activations(acts, epsilon=large)["sparsity"]).all()


@PROPERTY
@given(seeds)
def test_normalized_columns_and_ranking(seed: int) -> None:
    columns = of_activations(random_acts(seed))
    for name in ("normalized_variance", "normalized_sparsity", "normalized_avss"):
        assert columns[name].sum() == pytest.approx(1)
    assert columns["cumulative_avss"][-1] == pytest.approx(1)
    assert (columns["avss"].argsort() == columns["normalized_avss"].argsort()).all()


def test_constant_activations_share_equally() -> None:
    columns = of_activations([np.ones((3, 4)) for _ in range(4)])
    assert columns["normalized_avss"].tolist() == [0.25] * 4


def test_float32_does_not_cancel() -> None:
    rng = np.random.default_rng(0)
    acts = [(1000 + 0.01 * rng.normal(size=(64, 32))).astype(np.float32) for _ in range(2)]
    exact = [np.var(act.astype(np.float64)) for act in acts]
    np.testing.assert_allclose(of_activations(acts)["variance"], exact, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.99, 1.01, 2.0, 100.0])
@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_float32_moments_with_any_mean(offset: float, mode: str) -> None:
    """On both sides of where the mean makes up half of the squares, beyond which deviations are summed instead."""
    rng = np.random.default_rng(0)
    acts = [(offset + rng.normal(size=(300, 48))).astype(np.float32) for _ in range(2)]
    exact = [np.var(act.astype(np.float64)) for act in acts]
    np.testing.assert_allclose(of_activations(acts, epsilon_mode=mode)["variance"], exact, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-20, 3e7])
def test_the_variance_of_equal_float32_values_is_zero(value: float) -> None:
    columns = of_activations([np.full((9, 50), value, dtype=np.float32)])
    np.testing.assert_allclose(columns["variance"], 0, atol=1e-14 * value**2)
    assert np.isfinite(columns["std"]).all()
