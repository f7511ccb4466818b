"""Which answer a model gave, against a recount from its logits; and the flips between two models."""

from __future__ import annotations

import textwrap

import pytest
import torch
from support.lm_tasks import WORDS, documents, harness, make_model, named, write_docs, write_task

from layerimp.report.statistics import flips

OPTIONS = ["the cat", "good", "very very old film", "a dog sat", "Über", "so big"]
THREE = """
    output_type: multiple_choice
    doc_to_text: "{{text}}"
    doc_to_choice: [the cat, good, very very old film, a dog sat, Über, so big]
    doc_to_target: label
    metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}, {metric: acc_mutual_info}]
"""
LENGTH = {"acc": lambda text: 1, "acc_norm": len, "acc_bytes": lambda text: len(text.encode())}


@pytest.fixture
def models():
    """Two models that answer differently."""
    torch.manual_seed(3)
    changed = make_model()
    with torch.no_grad():
        changed.model.layers[1].mlp.down_proj.weight.normal_(std=0.8)
    return make_model(), changed


def log_likelihood(model, tokenizer, context, option):
    """By one pass over one row. lm-eval puts a space between context and option, and the BOS token before nothing."""
    asked = tokenizer(context, add_special_tokens=False)["input_ids"] or [tokenizer.bos_token_id]
    ids = [*asked, *tokenizer(option, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(chances[place - 1, ids[place]]) for place in range(len(asked), len(ids)))


def answer(model, tokenizer, text, metric):
    totals = [log_likelihood(model, tokenizer, text, option) for option in OPTIONS]
    if metric == "acc_mutual_info":
        totals = [total - log_likelihood(model, tokenizer, "", o) for total, o in zip(totals, OPTIONS, strict=True)]
    else:
        totals = [total / LENGTH[metric](option) for total, option in zip(totals, OPTIONS, strict=True)]
    return totals.index(max(totals))


@pytest.mark.parametrize("metric", [*LENGTH, "acc_mutual_info"])
def test_flips_are_those_of_a_recount(tmp_path, models, tokenizer, metric):
    docs = [doc | {"label": number % len(OPTIONS)} for number, doc in enumerate(documents(24))]
    write_docs(tmp_path, docs)
    write_task(tmp_path, "three", THREE)
    measured = [named(harness(tmp_path, "three").evaluate(model, tokenizer))["three", metric] for model in models]
    recount = [[answer(model, tokenizer, doc["text"], metric) for doc in docs] for model in models]
    assert [list(measurement.answers) for measurement in measured] == recount
    right = [[given == doc["label"] for given, doc in zip(answers, docs, strict=True)] for answers in recount]
    assert [list(map(bool, measurement.documents)) for measurement in measured] == right
    before, after = measured
    flipped = flips(before, [after])
    differ = sum(ours != theirs for ours, theirs in zip(*recount, strict=True))
    assert flipped.share == pytest.approx(differ / 24)
    assert flipped.stderr == pytest.approx((differ / 24 * (1 - differ / 24) / 23) ** 0.5)
    assert flipped.to_wrong == sum(before and not after for before, after in zip(*right, strict=True))
    assert flipped.to_right == sum(after and not before for before, after in zip(*right, strict=True))
    assert differ > flipped.to_wrong + flipped.to_right > 0, "from wrong to wrong is a flip too"


def test_generated_answers_are_compared_after_the_filter(folder, models, tokenizer):
    """A filter that keeps the first letter leaves fewer answers that differ."""
    letters = "".join(sorted({word[0] for word in WORDS}))
    filters = f"""
        filter_list:
          - name: first
            filter: [{{function: regex, regex_pattern: "([{letters}])"}}, {{function: take_first}}]
    """
    task = (folder / "generate.yaml").read_text()
    (folder / "filtered.yaml").write_text(task.replace("task: generate", "task: filtered") + textwrap.dedent(filters))
    measured = [named(harness(folder, "generate", "filtered").evaluate(model, tokenizer)) for model in models]
    before, after = measured
    whole, first = (
        flips(before[name, "exact_match"], [after[name, "exact_match"]]) for name in ("generate", "filtered")
    )
    assert 0 < first.share < whole.share <= 1


def test_answers_that_are_not_known_are_not_made_up(folder, models, tokenizer):
    """A cloze task is right or wrong; an F1 of the corpus is neither."""
    write_task(
        folder,
        "cloze",
        """
        output_type: loglikelihood
        doc_to_text: "{{text}}"
        doc_to_target: " cat"
        metric_list: [{metric: perplexity}, {metric: acc}]
        """,
    )
    before, after = (named(harness(folder, "cloze", "choice").evaluate(model, tokenizer)) for model in models)
    cloze = flips(before["cloze", "acc"], [after["cloze", "acc"]])
    assert cloze.share is cloze.stderr is None
    lost = zip(before["cloze", "acc"].documents, after["cloze", "acc"].documents, strict=True)
    assert cloze.to_wrong == sum(was > now for was, now in lost)
    assert flips(before["cloze", "perplexity"], [after["cloze", "perplexity"]]) is None
    assert flips(before["choice", "f1"], [after["choice", "f1"]]) is None
