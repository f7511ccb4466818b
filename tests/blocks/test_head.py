"""A model's predictions, against the whole model called in the usual way, and their gradients against autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.tiny import DECODERS, ENCODERS, EXPERTS, classifier, each_of, tiny
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

import layerimp
import layerimp.blocks.head
from layerimp.blocks.head import Head
from layerimp.calibration.validation import Checked
from layerimp.errors import CalibrationError, ModelError, PredictionError
from layerimp.testing import VOCAB, batch, padded_batch

CAPPED = {"final_logit_softcapping": 5.0}


def outputs(head: Head, inputs: dict[str, torch.Tensor]) -> Any:
    return head.backbone(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)


@pytest.mark.parametrize("architecture", each_of(DECODERS))
def test_log_probs_are_those_of_the_whole_model(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = CAPPED if architecture == "gemma2" else {}
    dtype = torch.float32 if architecture in EXPERTS else torch.float64
    model, inputs = tiny(architecture, dtype=dtype, **changes), padded_batch((12, 1, 9))
    monkeypatch.setattr(layerimp.blocks.head, "CHUNK_LOGITS", 5 * VOCAB)
    with torch.no_grad():
        logits = model(**inputs).logits.log_softmax(dim=-1)
        head = Head(layerimp.find_blocks(model))
        output = outputs(head, inputs)
        targets = head.targets(inputs, output)
        log_probs = head.log_probs(output, targets)
    assert head.kind == "next-token"
    assert targets.mask.sum(dim=1).tolist() == [11, 0, 8]
    assert not log_probs[~targets.mask].any()
    expected = [float(logits[r, t, inputs["input_ids"][r, t + 1]]) for r, t in targets.mask.nonzero().tolist()]
    torch.testing.assert_close(log_probs[targets.mask], torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_the_gradient_is_autograd_s(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = CAPPED if architecture == "gemma2" else {}
    model, inputs = tiny(architecture, dtype=torch.float64, **changes), padded_batch()
    monkeypatch.setattr(layerimp.blocks.head, "CHUNK_LOGITS", 4 * VOCAB)
    states: list[torch.Tensor] = []
    keep = layerimp.find_blocks(model).backbone.register_forward_hook(
        lambda _m, _a, out: (out.last_hidden_state.retain_grad(), states.append(out.last_hidden_state))[0]
    )
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    logits = model(**inputs).logits[:, :-1]
    loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", ignore_index=-100)
    loss.backward()
    keep.remove()
    model.zero_grad()
    head = Head(layerimp.find_blocks(model))
    output = outputs(head, inputs)
    values, gradient = head.gradient(output, head.targets(inputs, output))
    torch.testing.assert_close(values.sum(), loss.detach())
    torch.testing.assert_close(gradient["last_hidden_state"], states[0].grad)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("odds", [3.0, 7.0, 9.0])
def test_a_sure_prediction_keeps_its_slope_in_half_precision(dtype: torch.dtype, odds: float) -> None:
    """The slope is p - 1 at the target: nearly 0, but not 0, since p near 1 would be rounded to 1."""
    logits = torch.tensor([[odds, 0.0], [0.0, 0.0]], dtype=dtype)
    slopes = layerimp.blocks.head._slope(logits, torch.tensor([0, 1]))
    missing = 1 / (1 + math.exp(odds))
    torch.testing.assert_close(slopes[0].float(), torch.tensor([-missing, missing]), rtol=1e-2, atol=0)
    assert slopes[1].tolist() == [0.5, -0.5]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gptj", "opt"])
def test_the_logits_of_the_targets_alone(architecture: str) -> None:
    """Before the cap, with the head's bias, and without the logits of any other token."""
    model, inputs = (
        tiny(architecture, dtype=torch.float64, **(CAPPED if architecture == "gemma2" else {})),
        padded_batch(),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.normal_()
    head = Head(layerimp.find_blocks(model))
    output = outputs(head, inputs)
    targets = head.targets(inputs, output)
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda _m, _a, logits: sizes.append(logits.numel() // VOCAB))
    values, gradient = head.gradient(output, targets, "logit")
    assert sum(sizes) <= 1
    rows, columns = targets.mask.nonzero().T
    model.config.final_logit_softcapping = None
    expected = model(**inputs).logits[rows, columns, inputs["input_ids"][rows, columns + 1]]
    torch.testing.assert_close(values, expected.detach())
    last = output.last_hidden_state
    slope = torch.zeros_like(last)
    slope[rows, columns] = model.lm_head.weight[inputs["input_ids"][rows, columns + 1]].detach()
    torch.testing.assert_close(gradient, {"last_hidden_state": slope})


def test_logits_that_are_no_product_are_refused() -> None:
    model, inputs = tiny("llama"), batch()
    head = Head(layerimp.find_blocks(model))
    output = outputs(head, inputs)
    model.lm_head.register_forward_pre_hook(lambda _m, args: (2 * args[0],), prepend=True)
    with pytest.raises(ModelError, match="the logits of LlamaForCausalLM are not its last hidden state times a matrix"):
        head.gradient(output, head.targets(inputs, output), "logit")


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("pad", [0, None])
def test_classifiers(architecture: str, pad: int | None) -> None:
    """The reference: each row alone and without padding, for which the model itself can be trusted."""
    model, inputs = classifier(architecture, pad_token_id=pad), padded_batch()
    inputs["labels"] = torch.tensor([2, 0, 1])
    alone = [
        (ids[None, :n], label) for ids, n, label in zip(inputs["input_ids"], (12, 5, 9), inputs["labels"], strict=True)
    ]
    head = Head(layerimp.find_blocks(model))
    output = outputs(head, inputs)
    assert head.kind == "label"
    logits = torch.cat([model(input_ids=ids).logits for ids, _ in alone])
    expected = logits.log_softmax(dim=-1)[range(3), inputs["labels"]]
    targets = head.targets(inputs, output)
    torch.testing.assert_close(head.log_probs(output, targets), expected[:, None])
    own = head.targets({name: inputs[name] for name in ("input_ids", "attention_mask")}, output)
    assert own.ids[:, 0].tolist() == logits.argmax(dim=-1).tolist()
    embedding = model.get_input_embeddings().weight
    chosen = logits[range(3), inputs["labels"]]
    for quantity, wanted in (("nll", -expected), ("logit", chosen)):
        values, gradient = head.gradient(output, targets, quantity)
        torch.testing.assert_close(values, wanted)
        fields, slopes = [output[field] for field in gradient], list(gradient.values())
        embedding_gradient = torch.autograd.grad(fields, embedding, slopes, retain_graph=True)[0]
        torch.testing.assert_close(
            embedding_gradient, torch.autograd.grad(wanted.sum(), embedding, retain_graph=True)[0]
        )


def test_the_model_is_left_as_it_was() -> None:
    model = tiny("llama").train()
    attributes = set(vars(model.model))
    Head(layerimp.find_blocks(model))
    assert set(vars(model.model)) == attributes
    assert model.training
    assert not model.model._forward_hooks


def test_the_logits_of_a_batch_never_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = tiny("llama"), batch(3, 12)
    monkeypatch.setattr(layerimp.blocks.head, "CHUNK_LOGITS", 7 * VOCAB + 1)
    head = Head(layerimp.find_blocks(model))
    output = outputs(head, inputs)
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda _m, _a, logits: sizes.append(logits.numel() // VOCAB))
    head.log_probs(output, head.targets(inputs, output))
    assert sizes == [7, 7, 7, 7, 5]


@pytest.mark.parametrize(
    ("auto", "changes", "said"),
    [
        (AutoModel, {}, "predicts neither the next token nor a label"),
        (AutoModelForMaskedLM, {}, "predicts neither the next token nor a label"),
        (AutoModelForSequenceClassification, {"num_labels": 1}, "does not predict one label of several"),
        (
            AutoModelForSequenceClassification,
            {"problem_type": "multi_label_classification"},
            "does not predict one label of several",
        ),
    ],
)
def test_a_model_that_predicts_nothing_of_the_kind(auto: Any, changes: dict[str, Any], said: str) -> None:
    model = auto.from_config(AutoConfig.for_model("bert", **(ENCODERS["bert"] | changes)))
    with pytest.raises(PredictionError, match=f"{said}$"):
        Head(layerimp.find_blocks(model))
    with pytest.raises(ModelError, match=rf"{said}; scorers that need no prediction: angular, avss, .*random"):
        layerimp.score(model, [batch()], ["cim"])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, 3, 1]), "batch 0 holds label 3, but the model has classes 0 to 2"),
        (torch.tensor([0, -100, 1]), "batch 0 holds label -100"),
        (torch.tensor([0.0, 1.0, 1.0]), r"labels \[3\] of float32 are not one class id for each of 3 rows"),
        (torch.zeros(3, 12, dtype=torch.long), r"labels \[3, 12\] of int64 are not one class id"),
    ],
)
def test_bad_labels_are_named(labels: torch.Tensor, said: str) -> None:
    stack = layerimp.find_blocks(classifier("bert"))
    with pytest.raises(CalibrationError, match=said):
        list(Checked([batch() | {"labels": labels}], stack))


def test_labels_go_through_to_a_classifier_alone() -> None:
    labelled = batch() | {"labels": torch.tensor([0, 2, 1])}
    assert next(iter(Checked([labelled], layerimp.find_blocks(classifier("bert")))))["labels"].tolist() == [0, 2, 1]
    assert "labels" not in next(iter(Checked([labelled], layerimp.find_blocks(tiny("llama")))))
