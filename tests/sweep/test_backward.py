"""The gradient sweep, against plain autograd over the whole model with all logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from support.collected import Batch, Collect, collect
from support.states import states
from support.tiny import EXPERTS, classifier, tiny
from torch import nn

import layerimp
from layerimp.errors import PluginError
from layerimp.surgery.removal import pruned
from layerimp.sweep import Backward, Forward, Trace, backward
from layerimp.testing import BLOCKS, batch, padded_batch


def summed(model: Any, inputs: Batch, target: str) -> torch.Tensor:
    """The target of a batch [target], by its definition, from the logits of everything."""
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    if logits.ndim == 3:
        real = inputs["attention_mask"].bool()[:, 1:]
        logits, ids = logits[:, :-1][real], inputs["input_ids"][:, 1:][real]
    else:
        ids = inputs["labels"] if "labels" in inputs else logits.argmax(-1)
    if target == "nll":
        logits = -logits.log_softmax(-1)
    return logits[range(len(ids)), ids]


ARCHITECTURES = ["llama", "gemma3_text", "gpt2", "gpt_neox", "falcon", "bloom", "opt", "stablelm:parallel", "mixtral"]


@pytest.mark.parametrize("target", ["nll", "logit"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "bert", "distilbert", "roberta"])
def test_gradients_are_autograd_s(architecture: str, target: Any) -> None:
    experts = architecture in EXPERTS
    model = tiny(architecture, dtype=torch.float32 if experts else torch.float64)
    batches, tolerance = [padded_batch(), batch(2, 7, seed=1)], {"rtol": 1e-5, "atol": 2e-6 if experts else 1e-10}
    traces = collect(model, batches, Backward(target))
    assert [(t.batch, t.block) for t in traces] == [(n, b) for n in range(2) for b in reversed(range(BLOCKS))]
    with states(model) as at:
        for number, inputs in enumerate(batches):
            values = summed(model, inputs, target)
            expected = dict(zip(at, torch.autograd.grad(values.sum(), list(at.values())), strict=True))
            for trace in (t for t in traces if t.batch == number):
                real = inputs["attention_mask"].bool()
                assert torch.equal(trace.mask, real)
                torch.testing.assert_close(trace.targets, values.detach().double(), **tolerance)
                for end in ("block_in", "block_out"):
                    key = (end, trace.block)
                    torch.testing.assert_close(trace.acts[end][real], at[key].detach()[real], **tolerance)
                    torch.testing.assert_close(trace.acts[f"{end}_grad"][real], expected[key][real], **tolerance)


@pytest.mark.parametrize("target", ["nll", "logit"])
@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama", "gpt2"])
@pytest.mark.parametrize("labelled", [True, False])
def test_classifiers(architecture: str, target: Any, labelled: bool) -> None:
    """Row by row and without padding, for which the model itself can be trusted."""
    model, lengths = classifier(architecture), (12, 5, 9)
    inputs = padded_batch(lengths) | ({"labels": torch.tensor([2, 0, 1])} if labelled else {})
    traces = collect(model, [inputs], Backward(target))
    with states(model) as at:
        for row, length in enumerate(lengths):
            alone = {
                name: t[row : row + 1] if name == "labels" else t[row : row + 1, :length] for name, t in inputs.items()
            }
            values = summed(model, alone, target)
            expected = dict(zip(at, torch.autograd.grad(values.sum(), list(at.values())), strict=True))
            for trace in traces:
                torch.testing.assert_close(trace.targets[row : row + 1], values.detach())
                for end in ("block_in", "block_out"):
                    gradient = trace.acts[f"{end}_grad"][row, :length]
                    torch.testing.assert_close(gradient, expected[end, trace.block][0])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "olmo2", "qwen3_moe", "falcon", "bert"])
def test_gradients_of_parameters(architecture: str) -> None:
    dtype = torch.float32 if architecture in EXPERTS else torch.float64
    model, inputs = tiny(architecture, dtype=dtype), padded_batch()
    traces = collect(model, [inputs], Backward(parameters=True))
    loss = summed(model, inputs, "nll").sum()
    for trace in traces:
        wanted = {n: p for n, p in layerimp.find_blocks(model)[trace.block].named_parameters() if p.ndim >= 2}
        expected = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True, allow_unused=True)
        used = {n: g for n, g in zip(wanted, expected, strict=True) if g is not None}
        assert trace.gradients.keys() == used.keys()
        for name, gradient in used.items():
            assert torch.equal(trace.gradients[name][0], wanted[name])
            torch.testing.assert_close(trace.gradients[name][1], gradient)


def test_bypassed_blocks_are_as_if_removed() -> None:
    model = tiny("llama", dtype=torch.float64)
    for removed in ((0, 2), (3,)):
        past = collect(model, [padded_batch()], removed=removed)
        with pruned(model, removed):
            scorer = Collect(BLOCKS - len(removed), Backward())
            layerimp.score(model, [padded_batch()], [scorer])
        for trace, expected in zip(past, scorer.traces, strict=True):
            assert trace.block == expected.block
            for site in Backward.SITES:
                torch.testing.assert_close(trace.acts[site][trace.mask], expected.acts[site][expected.mask])


def test_earlier_inputs_are_there() -> None:
    class Windows(Collect):
        lookback = 2

    model = tiny("llama")
    scorer = Windows(BLOCKS, Backward())
    layerimp.score(model, [batch()], [scorer])
    inputs = {trace.block: trace.acts["block_in"] for trace in scorer.traces}
    for trace in scorer.traces:
        assert list(trace.inputs) == list(range(max(0, trace.block - 2), trace.block))
        assert all(torch.equal(act, inputs[at]) for at, act in trace.inputs.items())


def test_a_large_batch_goes_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd keeps is bounded for any batch size, and every row is processed once."""
    model, inputs = tiny("llama", dtype=torch.float64), padded_batch((12, 5, 9, 12, 7))
    (whole, *_), weights = collect(model, [inputs]), collect(model, [inputs], Backward(parameters=True))
    monkeypatch.setattr(backward, "TOKENS_AT_ONCE", {"cpu": 24})
    parts = [trace for trace in collect(model, [inputs]) if trace.block == whole.block]
    assert [len(trace.mask) for trace in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([trace.mask for trace in parts]), whole.mask)
    torch.testing.assert_close(torch.cat([trace.targets for trace in parts]), whole.targets)
    for site in Backward.SITES:
        joined = torch.cat([trace.acts[site] for trace in parts])
        torch.testing.assert_close(joined[whole.mask], whole.acts[site][whole.mask])
    for trace in weights:
        again = [t for t in collect(model, [inputs], Backward(parameters=True)) if t.block == trace.block]
        for name, (_, gradient) in trace.gradients.items():
            torch.testing.assert_close(sum(t.gradients[name][1] for t in again), gradient)


@pytest.mark.parametrize("parameters", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(parameters: bool, fails: bool) -> None:
    class Failing(Collect):
        def update(self, trace: Trace) -> None:
            if fails and trace.block == 1:
                raise KeyError("oops")

    model = tiny("llama").train()
    model.model.layers[1].eval()
    flags = {name: index % 3 > 0 for index, (name, _) in enumerate(model.named_parameters())}
    for index, (name, parameter) in enumerate(model.named_parameters()):
        parameter.requires_grad_(flags[name])
        parameter.grad = torch.full_like(parameter, index) if flags[name] and index % 2 else None
    before = {name: (p.clone(), p.grad) for name, p in model.named_parameters()}
    modes, attributes = ([get(m) for m in model.modules()] for get in (lambda m: m.training, lambda m: set(vars(m))))
    scorer = Failing(BLOCKS, Backward(parameters=parameters))
    if fails:
        with pytest.raises(PluginError, match=r"scorer 'collect' .* failed at block 1, batch 0: KeyError: 'oops'"):
            layerimp.score(model, [batch()], [scorer])
    else:
        layerimp.score(model, [batch()], [scorer])
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.grad is before[name][1]
        assert not parameter._backward_hooks
        assert not parameter._post_accumulate_grad_hooks
    assert [module.training for module in model.modules()] == modes
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("outside", [torch.no_grad, torch.inference_mode])
def test_it_makes_its_own_gradients(outside: Any) -> None:
    model = tiny("llama")
    expected = collect(model, [batch()])
    with outside():
        traces = collect(model, [batch()])
    assert all(
        torch.equal(a.acts["block_in_grad"], b.acts["block_in_grad"]) for a, b in zip(traces, expected, strict=True)
    )


def test_sweeps_that_can_share_a_pass_do() -> None:
    @dataclass(frozen=True)
    class Ruled(Backward):
        rule: str = "a"

    plain, weights = Backward(), Backward(parameters=True)
    assert plain.union(Backward()) == plain
    assert plain.union(weights) == weights.union(plain) == weights
    assert Ruled().union(Ruled(parameters=True)) == Ruled(parameters=True)
    for other in (Backward("logit"), Ruled(), Ruled(rule="b"), Forward()):
        assert plain.union(other) is None
        assert other.union(plain) is None
    assert Ruled().union(Ruled(rule="b")) is None


def test_a_subclass_has_its_own_rules() -> None:
    """Rules are active in the forward and the backward pass, and what they yield belongs to one batch."""
    entered: list[str] = []

    @dataclass(frozen=True)
    class Doubled(Backward):
        @contextmanager
        def rules(self, stack: Any) -> Iterator[dict[str, torch.Tensor]]:
            extras: dict[str, torch.Tensor] = {}

            def double(_m: Any, _a: Any, out: torch.Tensor) -> None:
                out.register_hook(
                    lambda g: (extras.update(seen=extras.get("seen", torch.zeros(())) + 1), 2 * g)[1]  # type: ignore
                )

            entered.append("in")
            hook = stack[1].register_forward_hook(double)
            yield extras
            hook.remove()
            entered.append("out")

    model, batches = tiny("llama", dtype=torch.float64), [batch(), batch(seed=1)]
    plain, doubled = collect(model, batches), collect(model, batches, Doubled())
    assert entered == ["in", "out"]
    for once, twice in zip(plain, doubled, strict=True):
        factor = 2 if once.block <= 2 else 1
        torch.testing.assert_close(twice.acts["block_in_grad"], factor * once.acts["block_in_grad"])
        assert twice.extras == ({"seen": torch.ones(())} if once.block <= 2 else {})


def test_frozen_parameters_cost_no_gradient() -> None:
    """No weight's gradient is computed: none is in the graph."""
    model = tiny("llama")
    touched: list[str] = []

    class Watching(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            touched.extend(["weight"] * (torch.is_grad_enabled() and self.weight.requires_grad))
            return super().forward(x)

    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Watching
    collect(model, [batch()])
    assert not touched
    collect(model, [batch()], Backward(parameters=True))
    assert touched
