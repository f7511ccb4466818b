"""Divergence and agreement, against a naive loop over tokens in float64 and scipy's relative entropy."""

from __future__ import annotations

import copy
import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from support.tiny import EXPERTS, classifier, tiny
from torch import Tensor

import layerimp
from layerimp.blocks.head import Targets
from layerimp.calibration.validation import Checked
from layerimp.errors import CalibrationError, NonFiniteError, PredictionError
from layerimp.fidelity import intact as module
from layerimp.fidelity.divergence import Divergence, compared
from layerimp.fidelity.intact import Intact
from layerimp.surgery.removal import pruned
from layerimp.testing import VOCAB, batch, padded_batch

Rows = list[list[tuple[float, bool]]]
LOGITS = arrays(np.float64, (2, 5), elements=st.floats(-60, 60))


def naive(intact: Any, other: Any, inputs: dict[str, Tensor], classes: int = VOCAB) -> Rows:
    """For each row with any, the divergence of every prediction and whether both top tokens are the same.

    Each row is read alone and without padding; a loop over tokens adds up in float64.
    """
    rows: Rows = []
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
        with torch.no_grad():
            both = [model(input_ids=ids[mask][None]).logits[0].double() for model in (intact, other)]
        rows.append([])
        for place in range(int(mask.sum()) - 1):
            p, q = (log_softmax(logits[place, :classes].numpy()) for logits in both)
            total = sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
            rows[-1].append((total, int(np.argmax(p)) == int(np.argmax(q))))
    return [row for row in rows if row]


def totals(rows: Rows) -> list[float]:
    return [sum(value for value, _ in row) for row in rows]


def without_blocks(model: Any, *blocks: int) -> Any:
    return layerimp.prune(copy.deepcopy(model), list(blocks))


def measured(intact: Any, other: Any, text: list[dict[str, Tensor]], **options: Any) -> Divergence:
    return Intact(layerimp.find_blocks(intact), text, **options).divergence(layerimp.find_blocks(other))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "mixtral"])
def test_every_prediction_is_that_of_a_loop_over_tokens(
    architecture: str, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 3 * VOCAB)
    dtype = torch.float32 if architecture in EXPERTS else torch.float64
    intact = tiny(architecture, dtype=dtype)
    other = without_blocks(intact, 2)
    inputs = padded_batch((12, 1, 9), left=left)
    text = [*Checked([inputs], layerimp.find_blocks(intact))]  # which moves padding to the right
    divergence = measured(intact, other, text)
    expected = naive(intact, other, inputs)
    tolerance = {"rel": 1e-4, "abs": 1e-6} if dtype == torch.float32 else {"rel": 1e-9, "abs": 1e-12}
    assert divergence.counts == [11, 8]
    assert divergence.totals == pytest.approx(totals(expected), **tolerance)
    assert divergence.agreed == [sum(same for _, same in row) for row in expected]
    flat = [value for row in expected for value, _ in row]
    assert torch.cat(divergence.values).tolist() == pytest.approx(flat, rel=1e-4, abs=1e-6)


def test_a_divergence_is_scipy_s_relative_entropy() -> None:
    generator = torch.Generator().manual_seed(1)
    intact, other = (torch.randn(7, 50, generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    comparison = compared(intact, other)
    expected = entropy(softmax(intact.numpy(), axis=1), softmax(other.numpy(), axis=1), axis=1)
    assert comparison.divergences.numpy() == pytest.approx(expected, rel=1e-10)
    assert comparison.intact.tolist() == intact.argmax(dim=1).tolist()
    assert comparison.own.tolist() == other.argmax(dim=1).tolist()


@given(LOGITS, LOGITS, st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=150)
def test_a_divergence_is_never_negative_and_a_constant_does_not_change_it(
    intact: Any, other: Any, shift: float, other_shift: float
) -> None:
    p, q = torch.from_numpy(intact), torch.from_numpy(other)
    divergences = compared(p, q).divergences
    assert (divergences >= 0).all()
    moved = compared(p + shift, q + other_shift).divergences
    torch.testing.assert_close(moved, divergences, rtol=1e-9, atol=1e-9)
    in_single = compared(p.float(), q.float()).divergences
    assert (in_single >= 0).all()
    torch.testing.assert_close(in_single, divergences, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_tensors_have_a_divergence_of_exactly_0(dtype: torch.dtype) -> None:
    intact = tiny(dtype=dtype)
    divergence = measured(intact, intact, [padded_batch((12, 5, 9))])
    assert divergence.mean == 0.0
    assert divergence.stderr == 0.0
    assert divergence.quantiles(0.5, 1.0) == [0.0, 0.0]
    assert divergence.agreement == 1.0


@pytest.mark.parametrize("vocabulary", [VOCAB, 50_000])
def test_equal_checkpoints_diverge_by_less_than_a_millionth(vocabulary: int) -> None:
    """Rounding of the logits, as from another order of summation, is no difference between models."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, vocabulary, generator=generator) * 6
    rounded = logits * (1 + 2**-23 * torch.randint(-2, 3, logits.shape, generator=generator))
    assert not torch.equal(logits, rounded)
    assert float(compared(logits, rounded).divergences.max()) < 1e-6


def test_bfloat16_logits_are_compared_in_float32() -> None:
    intact = tiny(dtype=torch.bfloat16)
    other, inputs = without_blocks(intact, 1), padded_batch((12, 5, 9))
    divergence = measured(intact, other, [inputs])
    expected = naive(intact, other, inputs)
    assert divergence.totals == pytest.approx(totals(expected), rel=0.05)
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(3)).bfloat16(), torch.zeros(6, 300).bfloat16()
    wide = compared(*(each.double() for each in logits)).divergences
    torch.testing.assert_close(compared(*logits).divergences, wide, rtol=1e-5, atol=1e-6)


def test_a_padded_vocabulary_is_compared_on_the_tokenizer_s_ids() -> None:
    """In the vocabulary's padding, one model has a high logit; and the other model has no padding at all."""
    intact, inputs = tiny(dtype=torch.float64), padded_batch((12, 5, 9))
    other = without_blocks(intact, 1)
    expected = naive(intact, other, inputs, classes=90)
    with torch.no_grad():
        other.lm_head.weight[90:] *= 100
    divergence = measured(intact, other, [inputs], classes=90)
    assert divergence.totals == pytest.approx(totals(expected), rel=1e-9)
    assert divergence.agreed == [sum(same for _, same in row) for row in expected]
    logits = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([logits, torch.full((4, 3), 99.0)], dim=1)
    assert not compared(padded, logits).divergences.any()


def test_no_more_logits_exist_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    intact, sizes = tiny(), []
    monkeypatch.setattr(module, "CHUNK_LOGITS", 5 * VOCAB + 1)
    other = without_blocks(intact, 1)
    for model in (intact, other):
        model.lm_head.register_forward_hook(lambda _m, _a, output: sizes.append(output.numel()))
    ready = Intact(layerimp.find_blocks(intact), [batch(3, 12)])
    sizes.clear()
    stack = layerimp.find_blocks(other)
    divergence = ready.divergence(stack)
    sizes = sizes[2:]  # the head's own proof calls it twice, on 8 tokens
    assert divergence.count == 33
    assert max(sizes) <= 5 * VOCAB
    assert len(sizes) == 2 * 7


def test_the_intact_model_runs_once_for_any_number_of_models() -> None:
    intact, calls = tiny(), []
    text = [batch(2, 9), batch(3, 12)]
    others = [without_blocks(intact, 1), without_blocks(intact, 2, 3)]
    ready = Intact(layerimp.find_blocks(intact), text)
    intact.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    apart = [measured(tiny(), other, text).totals for other in others]
    assert [ready.divergence(layerimp.find_blocks(other)).totals for other in others] == apart
    assert not calls


def test_the_intact_model_is_not_needed_any_more_when_it_is_pruned_in_place() -> None:
    intact, text = tiny(), [batch(2, 9)]
    expected = measured(tiny(), without_blocks(tiny(), 1), text).totals
    ready = Intact(stack := layerimp.find_blocks(intact), text)
    with pruned(intact, [1]):
        assert ready.divergence(stack).totals == expected


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_classifiers_are_compared_over_their_labels(architecture: str) -> None:
    intact = classifier(architecture)
    other, inputs = without_blocks(intact, 1), padded_batch((12, 5, 9, 7))
    divergence = measured(intact, other, [inputs])
    with torch.no_grad():
        p, q = (softmax(model(**inputs).logits.numpy(), axis=1) for model in (intact, other))
    assert divergence.totals == pytest.approx(list(entropy(p, q, axis=1)), rel=1e-9)
    assert divergence.counts == [1, 1, 1, 1]
    assert divergence.agreed == (p.argmax(axis=1) == q.argmax(axis=1)).astype(int).tolist()


def test_a_classifier_is_not_compared_with_a_language_model() -> None:
    with pytest.raises(PredictionError, match="label"):
        measured(classifier("gpt2"), tiny("gpt2"), [batch(2, 9)])


def test_only_the_wanted_predictions_are_compared() -> None:
    intact, inputs = tiny(dtype=torch.float64), padded_batch((12, 5, 9))
    other = without_blocks(intact, 1)
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[0, 3:5] = mask[2, 6:] = True  # row 2 predicts nothing after position 7
    divergence = measured(intact, other, [inputs], masks=[mask])
    rows = naive(intact, other, inputs)
    assert divergence.counts == [2, 2]
    assert divergence.totals == pytest.approx(
        [sum(v for v, _ in rows[0][3:5]), sum(v for v, _ in rows[2][6:8])], rel=1e-9
    )


def test_hits_are_top_tokens_that_equal_the_target() -> None:
    divergence = Divergence()
    ids = torch.tensor([[4, 5, 6], [7, 8, 0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    intact, own = torch.eye(9)[[4, 5, 1]], torch.eye(9)[[4, 2, 7]]
    divergence.add(compared(intact, own), Targets({}, ids, mask))
    assert (divergence.counts, divergence.agreed) == ([2, 1], [1, 0])
    assert (divergence.intact_hits, divergence.hits) == ([2, 0], [1, 1])


def test_the_standard_error_is_clustered_by_row() -> None:
    """For rows of equal length it is that of the mean of the rows' means."""
    divergence = Divergence(totals=[1.0, 2.5, 0.5, 4.0], counts=[10, 10, 10, 10])
    means = [total / 10 for total in divergence.totals]
    assert divergence.mean == pytest.approx(statistics.mean(means))
    assert divergence.stderr == pytest.approx(statistics.stdev(means) / 2)
    assert Divergence(totals=[1.0], counts=[10]).stderr is None


def test_quantiles_are_those_of_numpy_over_all_predictions() -> None:
    intact, text = tiny(), [batch(3, 12), batch(2, 9, seed=1)]
    divergence = measured(intact, without_blocks(intact, 1), text)
    flat = np.concatenate([part.numpy() for part in divergence.values]).astype(np.float64)
    assert divergence.quantiles(0.5, 0.9, 0.99, 1.0) == pytest.approx(
        [np.quantile(flat, q) for q in (0.5, 0.9, 0.99, 1.0)]
    )
    assert divergence.quantiles(1.0) == [flat.max()]


def test_impossible_tokens_do_not_count() -> None:
    intact = torch.tensor([[1.0, 2.0, -torch.inf], [0.0, 0.0, -torch.inf]])
    divergences = compared(intact, torch.tensor([[1.0, 2.0, -torch.inf], [0.0, 0.0, 0.0]])).divergences
    assert divergences.tolist() == pytest.approx([0.0, math.log(3 / 2)])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_refused(wrong: float) -> None:
    logits = torch.zeros(3, 4)
    other = logits.clone()
    other[1, 2] = wrong
    with pytest.raises(NonFiniteError, match="NaN or an infinity"):
        compared(logits, other)


def test_predictions_of_the_intact_model_have_to_be_finite() -> None:
    stack = layerimp.find_blocks(tiny())
    with torch.no_grad():
        stack.model.model.norm.weight[0] = math.nan
    with pytest.raises(NonFiniteError, match="intact"):
        Intact(stack, [batch(2, 9)])


def test_nothing_is_compared_without_a_prediction() -> None:
    assert compared(torch.zeros(0, 5), torch.zeros(0, 5)).divergences.shape == (0,)
    with pytest.raises(CalibrationError, match="nothing to predict: every row is a single token"):
        Intact(layerimp.find_blocks(tiny()), [padded_batch((1, 1))])
