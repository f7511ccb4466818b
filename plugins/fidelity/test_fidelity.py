"""The evaluator `fidelity`: what it measures against the functions that it is made of, and what it leaves out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from layerimp_fidelity import FidelityEvaluator, layerimp_evaluators
from transformers import AutoModelForMaskedLM, BertConfig

import layerimp
from layerimp.blocks.snapshot import unchanged
from layerimp.errors import ModelError
from layerimp.testing import batch, padded_batch, tiny_classifier, tiny_model, tiny_tokenizer

TEXT = [batch(4, 40), padded_batch((36, 5, 20))]
FEW = FidelityEvaluator.Config(prompts=3, new_tokens=20)


def pruned(model, *blocks):
    return layerimp.prune(copy.deepcopy(model), list(blocks))


def fidelity(model, other, tokenizer=None, text=TEXT, config=FEW):
    return FidelityEvaluator(config).comparison(model, tokenizer or tiny_tokenizer(), text)(other)


def test_hook():
    assert layerimp_evaluators() == [FidelityEvaluator]
    assert FidelityEvaluator.kind == "fidelity"


def test_the_divergence_and_the_agreement_are_those_of_the_whole_models():
    model = tiny_model(dtype=torch.float64)
    other = pruned(model, 1)
    comparison = fidelity(model, other)
    values, same = [], []
    for inputs in TEXT:
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
            with torch.no_grad():
                p, q = (each(input_ids=ids[mask][None]).logits[0, :-1].log_softmax(dim=-1) for each in (model, other))
            values += (p.exp() * (p - q)).sum(dim=-1).tolist()
            same += (p.argmax(dim=-1) == q.argmax(dim=-1)).tolist()
    assert comparison.predictions == len(values)
    assert comparison.divergence.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-9)
    assert comparison.divergence.max == pytest.approx(max(values), rel=1e-6)
    assert comparison.agreement == sum(same) / len(same)


def test_copying_and_generation_are_measured():
    model = tiny_model()
    comparison = fidelity(model, pruned(model, 1))
    assert 0 <= comparison.copying.accuracy <= 1
    assert comparison.copying.divergence > 0
    assert comparison.generation.same_tokens < 20
    assert [sample.chat for sample in comparison.generation.samples] == [False, False]
    assert not comparison.missing


def test_a_model_is_at_no_distance_from_itself():
    model = tiny_model()
    same = fidelity(model, model)
    assert same.divergence.mean < 1e-6
    assert same.agreement == 1
    assert same.copying.accuracy == same.copying.intact
    assert same.generation.loops == same.generation.intact_loops
    assert all(sample.text == sample.intact for sample in same.generation.samples)


def test_one_comparison_serves_all_models_and_changes_none():
    model = tiny_model()
    first, second = pruned(model, 1), pruned(model, 1, 2)
    with unchanged(model, "it"), unchanged(first, "it"), unchanged(second, "it"):
        compare = FidelityEvaluator(FEW).comparison(model, tiny_tokenizer(), TEXT)
        several = [compare(first), compare(second), compare(first)]
        assert several == [fidelity(model, other) for other in (first, second, first)]


def test_without_prompts_nothing_is_generated():
    model = tiny_model()
    model.generate = None
    comparison = fidelity(model, pruned(tiny_model(), 1), config=FidelityEvaluator.Config(prompts=0))
    assert comparison.generation is None
    assert comparison.missing == {}


def test_a_padded_vocabulary_is_compared_on_the_tokenizer_s_ids():
    model = tiny_model()
    other = pruned(model, 1)
    expected = fidelity(model, other)
    wide, wide_other = tiny_model(vocab_size=120), pruned(tiny_model(vocab_size=120), 1)
    with torch.no_grad():
        for big, small in ((wide, model), (wide_other, other)):
            state = small.state_dict()
            for name, value in big.state_dict().items():
                value[: len(state[name])] = state[name]
        wide_other.lm_head.weight[100:] *= 50
    comparison = fidelity(wide, wide_other)
    for part in ("divergence", "copying"):
        figures, known = (getattr(each, part).model_dump() for each in (comparison, expected))
        assert figures == pytest.approx(known), "but for the last bit of a wider product"


def test_a_classifier_is_compared_by_its_labels():
    model = tiny_classifier(dtype=torch.float64)
    other = pruned(model, 1)
    comparison = fidelity(model, other)
    rows = [
        (ids[mask][None])
        for inputs in TEXT
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
    ]
    with torch.no_grad():
        p, q = (torch.cat([each(input_ids=row).logits for row in rows]).log_softmax(dim=-1) for each in (model, other))
    assert comparison.predictions == len(rows)
    assert comparison.divergence.mean == pytest.approx(float((p.exp() * (p - q)).sum(dim=-1).mean()), rel=1e-9)
    assert comparison.agreement == float((p.argmax(dim=-1) == q.argmax(dim=-1)).double().mean())
    assert comparison.agreement_floor == float(p.argmax(dim=-1).bincount().double().max() / len(rows))
    assert comparison.missing == {
        "copying": "a classifier predicts no tokens",
        "generation": "BertForSequenceClassification does not generate text",
    }


def test_a_model_that_predicts_neither_is_refused():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = AutoModelForMaskedLM.from_config(BertConfig(vocab_size=97, **sizes))
    with pytest.raises(ModelError, match="predicts neither the next token nor a label"):
        FidelityEvaluator().check(model)
    FidelityEvaluator().check(tiny_model())
    FidelityEvaluator().check(tiny_classifier())


def test_short_rows_are_said_to_be_short():
    model = tiny_model()
    comparison = fidelity(model, pruned(model, 1), text=[batch(4, 12)])
    assert comparison.divergence.mean > 0
    assert comparison.missing == {
        "copying": "all rows are too short to be repeated",
        "generation": "all documents are too short for a prompt",
    }


def test_texts_beyond_the_model_s_positions_are_not_generated():
    model = tiny_model()
    comparison = fidelity(model, pruned(model, 1), config=FidelityEvaluator.Config())
    assert comparison.missing == {"generation": "a prompt and 64 tokens more are beyond the model's 64 positions"}


def test_texts_beyond_the_other_model_s_positions_are_not_generated():
    model, short = tiny_model("gpt2"), tiny_model("gpt2", max_position_embeddings=48)
    comparison = fidelity(model, short)
    assert comparison.divergence.mean > 0
    assert comparison.missing == {"generation": "a prompt and 20 tokens more are beyond the model's 48 positions"}


def test_a_chat_template_that_fails_takes_only_the_texts():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no user here') }}"
    comparison = fidelity(model, pruned(model, 1), tokenizer)
    assert comparison.divergence.mean > 0
    assert comparison.copying is not None
    assert "no user here" in comparison.missing["generation"]


def test_a_model_that_fails_to_generate_is_still_compared():
    model = tiny_model()
    other = pruned(model, 1)
    compare = FidelityEvaluator(FEW).comparison(model, tiny_tokenizer(), TEXT)
    other.generate = lambda **_: 1 / 0
    comparison = compare(other)
    assert comparison.divergence.mean > 0
    assert comparison.copying is not None
    assert comparison.generation is None
    assert "cannot generate text" in comparison.missing["generation"]
    del other.generate
    assert compare(other).missing == {}
