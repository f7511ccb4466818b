"""What the harness measures, against direct computations and lm-eval itself."""

from __future__ import annotations

import math
import textwrap

import pytest
import torch
from layerimp_harness import Harness, tasks
from layerimp_harness.isolation import contained
from support.lm_tasks import (
    CHOICE,
    CONTEXT,
    GENERATE,
    documents,
    harness,
    make_model,
    named,
    write_docs,
    write_task,
)

from layerimp.errors import NonFiniteError


def log_probability(model, context: list[int], continuation: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *continuation]])).logits[0].double()
    scores = logits.log_softmax(-1)
    return sum(float(scores[len(context) + i - 1, token]) for i, token in enumerate(continuation))


def direct_accuracy(model, tokenizer, docs, shots=lambda doc: ""):
    right = []
    for doc in docs:
        context = tokenizer.encode(shots(doc) + doc["text"])
        scores = [log_probability(model, context, tokenizer.encode(c)) for c in ("on the", "good film")]
        right.append(float(scores.index(max(scores)) == doc["label"]))
    return right


def test_accuracy_equals_a_direct_computation(folder, model, tokenizer):
    right = direct_accuracy(model, tokenizer, documents())
    metrics = named(harness(folder, "choice").evaluate(model, tokenizer))
    mean = sum(right) / len(right)
    spread = sum((x - mean) ** 2 for x in right) / (len(right) - 1)
    assert 0 < mean < 1
    assert metrics["choice", "acc"].value == pytest.approx(mean)
    assert metrics["choice", "acc"].stderr == pytest.approx(math.sqrt(spread / len(right)))
    assert metrics["choice", "f1"].stderr > 0
    assert metrics["choice", "acc"].higher_is_better


def test_values_are_those_of_lm_eval_alone(folder, model, tokenizer):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    evaluator = harness(folder, "choice", "rolling", "generate", max_length=12)
    metrics = evaluator.evaluate(model, tokenizer)
    with contained(0):
        stock = HFLM(pretrained=model, tokenizer=tokenizer, max_length=12)
        results = evaluate(lm=stock, task_dict={"tasks": evaluator._loaded.tasks}, bootstrap_iters=0)["results"]
    assert [m.value for m in metrics] == pytest.approx([results[m.task][f"{m.name},none"] for m in metrics], rel=1e-5)


def direct_rolling(model, tokenizer, text, window):
    tokens = tokenizer.encode(text)
    total = 0.0
    for start in range(0, len(tokens), window):
        part = tokens[start : start + window]
        if start == 0:
            context = [tokenizer.bos_token_id]
        else:  # lm-eval fills the last window up with what comes before
            room = window + 1 - len(part)
            context = tokens[max(0, start - room) : start]
        total += log_probability(model, context, part)
    return total


@pytest.mark.parametrize("window", [CONTEXT, 4])
def test_perplexity_equals_a_direct_computation(folder, model, tokenizer, window):
    docs = documents()
    values = [direct_rolling(model, tokenizer, doc["text"], window) for doc in docs]
    words = sum(len(doc["text"].split()) for doc in docs)
    size = sum(len(doc["text"].encode()) for doc in docs)
    metrics = named(harness(folder, "rolling", max_length=window).evaluate(model, tokenizer))
    assert metrics["rolling", "word_perplexity"].value == pytest.approx(math.exp(-sum(values) / words), rel=1e-5)
    assert metrics["rolling", "byte_perplexity"].value == pytest.approx(math.exp(-sum(values) / size), rel=1e-5)
    bits = metrics["rolling", "bits_per_byte"]
    assert bits.value == pytest.approx(-sum(values) / size / math.log(2), rel=1e-5)
    assert not bits.higher_is_better
    assert bits.stderr > 0


def test_few_shot_examples_come_first(folder, model, tokenizer):
    write_docs(folder, [{"text": "the dog", "label": 1}], "shots.jsonl")
    write_task(
        folder,
        "shot",
        CHOICE,
        dataset_kwargs="{data_files: {test: docs.jsonl, train: shots.jsonl}}",
        training_split="train",
    )
    metrics = harness(folder, "shot", num_fewshot=1).evaluate(model, tokenizer)
    right = direct_accuracy(model, tokenizer, documents(), lambda doc: "the dog good film\n\n")
    assert metrics[0].value == pytest.approx(sum(right) / len(right))


def test_a_task_that_sets_no_shots_keeps_none(folder, model, tokenizer):
    write_task(folder, "zero", CHOICE, num_fewshot="0")
    shots = harness(folder, "zero", num_fewshot=3)
    shots.prepare()
    assert shots._loaded.tasks["zero"].get_config("num_fewshot") == 0


def test_limit_takes_the_first_documents(folder, model, tokenizer):
    right = direct_accuracy(model, tokenizer, documents()[:3])
    metrics = harness(folder, "choice", limit=3).evaluate(model, tokenizer)
    assert metrics[0].value == pytest.approx(sum(right) / 3)


def test_one_document_has_no_error(folder, model, tokenizer):
    assert {m.stderr for m in harness(folder, "choice", "rolling", limit=1).evaluate(model, tokenizer)} == {None}


def test_twice_the_same_and_another_model_another(folder, tokenizer):
    evaluator = harness(folder, "choice", "rolling", "generate")
    first = evaluator.evaluate(make_model(), tokenizer)
    changed = make_model()
    changed.model.layers = changed.model.layers[:1]
    changed.config.num_hidden_layers = 1
    pruned = evaluator.evaluate(changed, tokenizer)
    assert evaluator.evaluate(make_model(), tokenizer) == first
    assert pruned != first
    assert harness(folder, "choice", "rolling", "generate").evaluate(changed, tokenizer) == pruned


def test_batches_change_nothing(folder, model, tokenizer):
    alone, together = (harness(folder, "choice", "rolling", batch_size=n).evaluate(model, tokenizer) for n in (1, 8))
    assert [m.value for m in together] == pytest.approx([m.value for m in alone], rel=1e-5)


def test_generation(folder, model, tokenizer):
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([tokenizer.encode(documents()[0]["text"])]), max_new_tokens=1, do_sample=False, pad_token_id=0
        )
    word = tokenizer.decode(ids[0, -1:])
    write_task(folder, "write", GENERATE.replace("good", word).replace("4", "1"))
    assert harness(folder, "write", limit=1).evaluate(model, tokenizer)[0].value == 1
    assert harness(folder, "generate").evaluate(model, tokenizer)[0].name == "exact_match"


def test_several_filters(folder, model, tokenizer):
    filters = """
        filter_list:
          - {name: raw, filter: [{function: take_first}]}
          - {name: upper, filter: [{function: uppercase}, {function: take_first}]}
    """
    write_task(folder, "filtered", textwrap.dedent(GENERATE) + textwrap.dedent(filters))
    names = [m.name for m in harness(folder, "filtered").evaluate(model, tokenizer)]
    assert names == ["exact_match", "exact_match[upper]"]


def test_group_with_neighbours_and_its_own_aggregate(folder, model, tokenizer):
    (folder / "both.yaml").write_text(
        "group: both\ntask: [choice, {task: inline, " + "dataset_path: json, dataset_kwargs: {data_files: {test: "
        "docs.jsonl}}, test_split: test, output_type: multiple_choice, doc_to_text: '{{text}}', doc_to_choice: "
        "[cat, dog], doc_to_target: label, metric_list: [{metric: acc}]}]\naggregate_metric_list: [{metric: acc}]\n"
    )
    metrics = named(harness(folder, "both").evaluate(model, tokenizer))
    leaves = [metrics["choice", "acc"], metrics["both::inline", "acc"]]
    assert metrics["both", "acc"].value == pytest.approx(sum(m.value for m in leaves) / 2)
    assert metrics["both", "acc"].stderr > 0


def test_tag_and_name_from_the_task_path(folder, model, tokenizer, monkeypatch):
    monkeypatch.setattr(tasks, "whole_index", lambda: pytest.fail("the whole index was read"))
    write_task(folder, "tagged", CHOICE, tag="mine")
    for name in ("choice", "mine"):
        evaluator = Harness(Harness.Config(tasks=(name,), task_path=folder))
        assert evaluator.evaluate(model, tokenizer)[0].name == "acc"


def test_no_tasks_no_metrics(model, tokenizer):
    assert Harness().evaluate(model, tokenizer) == []


def test_overflow_is_infinite_and_nan_an_error(folder, tokenizer):
    broken = make_model()
    with torch.no_grad():
        broken.lm_head.weight *= 1e6
    metrics = named(harness(folder, "rolling").evaluate(broken, tokenizer))
    assert metrics["rolling", "word_perplexity"].value == metrics["rolling", "word_perplexity"].stderr == math.inf
    with torch.no_grad():
        broken.lm_head.weight.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="are NaN"):
        harness(folder, "choice").evaluate(broken, tokenizer)
