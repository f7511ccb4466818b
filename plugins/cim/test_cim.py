"""CIM against blocks that are changed by hand in a float64 model, and its invariants."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from layerimp_cim import CIM, CIMConfig
from pydantic import ValidationError
from support.tiny import classifier, shut, tiny

import layerimp
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.sweep import Ablation, Trace
from layerimp.testing import BLOCKS, batch, padded_batch

PROBES: list[Any] = [0, 0.5, 1, "mean"]


def score(model: Any, batches: list[Any], **options: Any) -> Any:
    scorer = CIM(len(layerimp.find_blocks(model)), CIMConfig(**options))
    return layerimp.score(model, batches, [scorer])["cim"]


def test_the_factor_minus_zero_is_zero() -> None:
    """Both are one probe in the sweep that is shared with another scorer."""
    model, factors = tiny("llama"), (-0.0, 0.0)
    options = [{"cim": {"probes": [factor]}} for factor in factors]
    less, zero = (layerimp.score(model, [batch()], ["perplexity", "cim"], options=own)["cim"] for own in options)
    assert less == zero


def by_hand(model: Any, batches: list[dict[str, torch.Tensor]], block: int, probes: list[Any]) -> torch.Tensor:
    """log p of every next token [probe, token] with what a block adds changed, by a hook."""
    layer = model.model.layers[block]
    added: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _m, args, out: added.append(out - args[0]))
    for inputs in batches:
        model(**inputs)
    handle.remove()
    masks = [inputs["attention_mask"].bool() for inputs in batches]
    mean = torch.cat([d[m] for d, m in zip(added, masks, strict=True)]).mean(dim=0)
    log_probs = []
    for probe in probes:
        handle = layer.register_forward_hook(
            lambda _m, args, out, a=probe: args[0] + (mean if a == "mean" else a * (out - args[0]))
        )
        parts = []
        for inputs, mask in zip(batches, masks, strict=True):
            logits = model(**inputs).logits[:, :-1].log_softmax(-1)
            parts.append(logits.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0][mask[:, 1:]])
        handle.remove()
        log_probs.append(torch.cat(parts))
    return torch.stack(log_probs)


@pytest.mark.parametrize("scale", ["prob", "log"])
@pytest.mark.parametrize("probes", [PROBES, [0], [0, 0.5, 1], ["mean", 0.5]])
def test_importance_and_utility(scale: str, probes: list[Any]) -> None:
    model, batches = tiny("llama", dtype=torch.float64), [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]
    importance = score(model, batches, probes=probes, scale=scale)
    for block in range(BLOCKS):
        with torch.no_grad():
            values = by_hand(model, batches, block, [p for p in probes if p != 1] + [1])
        values = values.exp() if scale == "prob" else values
        least, most = values.amin(0), values.amax(0)
        assert importance.scores[block] == pytest.approx(float((most - least).mean()), rel=1e-9)
        utility = float(((values[-1] - least) / (most - least)).mean())
        assert importance.columns["contextual_utility"][block] == pytest.approx(utility, rel=1e-9)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", ["prob", "log"])
def test_an_identity_block_scores_exactly_0(architecture: str, dtype: torch.dtype, scale: str) -> None:
    model = shut(tiny(architecture, dtype=dtype), 2)
    importance = score(model, [padded_batch()], scale=scale)
    assert importance.scores[2] == 0
    assert min(importance.scores[:2] + importance.scores[3:]) > 0
    assert importance.columns["contextual_utility"][2] == 0.5


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama"])
def test_classifiers_in_any_batches(architecture: str) -> None:
    model, inputs = classifier(architecture), padded_batch()
    inputs["labels"] = torch.tensor([2, 0, 1])
    rows = [
        {name: value[i : i + 1, :n] if value.ndim > 1 else value[i : i + 1] for name, value in inputs.items()}
        for i, n in enumerate((12, 5, 9))
    ]
    together, apart = score(model, [inputs]), score(model, rows)
    assert together.scores == pytest.approx(apart.scores, rel=1e-9)
    assert min(together.scores) > 0


def test_bypassed_blocks_are_as_if_removed() -> None:
    model, inputs = tiny("llama", dtype=torch.float64), padded_batch()
    past = measure(layerimp.find_blocks(model), [inputs], {"cim": CIM(BLOCKS - 1)}, removed=[1])["cim"]
    with pruned(model, [1]):
        assert past.scores == pytest.approx(score(model, [inputs]).scores, rel=1e-9)


values = st.lists(st.tuples(*[st.floats(-20, 0)] * 3), min_size=1, max_size=6)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(values, st.sampled_from(["prob", "log"]))
def test_more_probes_never_lower_the_importance(tokens: list[tuple[float, float, float]], scale: str) -> None:
    scores = []
    for probes in ([0], [0, 0.5]):
        scorer = CIM(1, CIMConfig(probes=probes, scale=scale))
        acts = {Ablation.site(p): torch.tensor([[t[i] for t in tokens]]) for i, p in enumerate((1, 0, 0.5))}
        mask = torch.ones(1, len(tokens), dtype=torch.bool)
        scorer.update(Trace(0, 0, acts, mask, False))
        importance = scorer.compute()
        scores += importance.scores
        assert 0 <= importance.columns["contextual_utility"][0] <= 1
    assert 0 <= scores[0] <= scores[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probes": [1]}, "anything but 1"),
        ({"probes": []}, "anything but 1"),
        ({"probes": ["median"]}, "mean"),
        ({"probes": [float("nan")]}, "finite"),
        ({"scale": "odds"}, "prob"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CIMConfig(**options)
