"""What chance gives is known of a metric where it can be."""

from __future__ import annotations

import textwrap
from collections import Counter
from types import SimpleNamespace

import pytest
from layerimp_harness import floors
from lm_eval.api import metrics as lm_metrics
from support.lm_tasks import (
    CHOICE,
    documents,
    harness,
    named,
    write_docs,
    write_task,
)

from layerimp.report.retained import counting


def floor_of(metric, samples, *, kind="multiple_choice", own=None):
    task = SimpleNamespace(OUTPUT_TYPE=kind, config=SimpleNamespace(process_results=own))
    return floors.chance(task, metric, samples, {"f1": lm_metrics.f1_score}.get(metric, lm_metrics.matthews_corrcoef))


@pytest.mark.parametrize(
    ("kind", "metric", "floor"),
    [
        ("multiple_choice", "acc", (1 / 2 + 1 / 4 + 2 / 4 + 1 / 3) / 4),
        ("multiple_choice", "acc_norm", (1 / 2 + 1 / 4 + 2 / 4 + 1 / 3) / 4),
        ("multiple_choice", "brier_score", None),
        ("loglikelihood", "acc", 2 / 4),
        ("generate_until", "f1", 0.0),
        ("generate_until", "exact_match", 0.0),
        ("generate_until", "acc", 2 / 4),
        ("generate_until", "bleu", None),
    ],
)
def test_the_floor_is_what_chance_gives(kind, metric, floor):
    options = [[("q", "a"), ("q", "b")], [("q", c) for c in "cdef"], [("q", c) for c in "ghij"] + [("", "g")] * 4]
    options += [[("q", c) for c in "klm"]]
    samples = [{"arguments": arguments, "target": t} for arguments, t in zip(options, (0, 1, [1, 2], 1), strict=True)]
    assert floor_of(metric, samples, kind=kind) == (None if floor is None else pytest.approx(floor))
    assert floor_of("acc", samples, own=print) is None


@pytest.mark.parametrize(
    ("targets", "floor"), [([1, 1, 1, 0], 3 / 4), ([1, 0, 1, 0], 1 / 2), (["yes", "yes", "yes", "no"], 3 / 4)]
)
def test_the_floor_of_an_accuracy_is_no_lower_than_what_the_most_frequent_answer_gives(targets, floor):
    asked = [[(f"question {number}", " no"), (f"question {number}", " yes")] for number in range(len(targets))]
    samples = [{"arguments": pair, "target": target} for pair, target in zip(asked, targets, strict=True)]
    assert floor_of("acc", samples) == pytest.approx(floor)


@pytest.mark.parametrize("varying", ["continuation", "context"])
def test_options_are_the_same_answer_by_their_wording_and_not_by_their_number(varying):
    """In BLiMP the right option is always the first, and in WinoGrande the options are contexts."""
    pairs = [[f"good {number}", f"bad {number}"] for number in range(4)]
    asked = [[("", option) if varying == "continuation" else (option, " it fell") for option in pair] for pair in pairs]
    assert floor_of("acc", [{"arguments": pair, "target": 0} for pair in asked]) == pytest.approx(1 / 2)


def test_an_answer_that_is_right_once_is_no_frequent_one():
    samples = [{"arguments": [("q", answer)], "target": answer} for answer in ("cat", "dog", "mat")]
    assert floor_of("acc", samples, kind="loglikelihood") == 0.0


def test_options_without_a_context_are_counted_too():
    assert floor_of("acc", [{"arguments": [("", "a"), ("", "b"), ("", "c")], "target": 0}]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_classifiers_f1_has_the_floor_of_a_constant_answer(share):
    golds = [1] * round(10 * share) + [0] * round(10 * (1 - share))
    samples = [{"f1": (gold, 1 - gold), "mcc": (gold, gold), "target": gold, "arguments": []} for gold in golds]
    assert floor_of("f1", samples) == pytest.approx(2 * share / (1 + share))
    assert floor_of("mcc", samples) == 0.0


def test_a_group_sums_up_the_floors_of_its_tasks(folder, model, tokenizer):
    write_docs(folder, documents(5), "fewer.jsonl")
    write_task(
        folder,
        "three",
        CHOICE.replace("good film]", "good film, cat]").replace(", {metric: f1}", ""),
        dataset_kwargs="{data_files: {test: fewer.jsonl}}",
    )
    (folder / "all.yaml").write_text(
        "group: all\ntask: [choice, three]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]\n"
    )
    metrics = named(harness(folder, "all").evaluate(model, tokenizer))
    always = [max(Counter(doc["label"] for doc in documents(count)).values()) / count for count in (9, 5)]
    assert [metrics[task, "acc"].floor for task in ("choice", "three")] == pytest.approx(always)
    assert metrics["all", "acc"].floor == pytest.approx(sum(always) / 2)
    assert metrics["all", "acc"].members[:2] == ("choice", "three")
    assert metrics["three", "acc"].members == ()
    mean = metrics["all", "acc"]
    assert [(part.documents, part.weight) for part in mean.strata] == [(9, 0.5), (5, 0.5)]
    of_tasks = sum(mean.documents[:9]) / 9, sum(mean.documents[9:]) / 5
    assert mean.value == pytest.approx(sum(of_tasks) / 2), "each task counts alike, whatever its number of documents"
    (folder / "all.yaml").write_text("group: all\ntask: [choice, three]\naggregate_metric_list: [{metric: acc}]\n")
    metrics = named(harness(folder, "all").evaluate(model, tokenizer))
    assert metrics["all", "acc"].count == 14
    assert sum(metrics["all", "acc"].documents) / 14 == pytest.approx(metrics["all", "acc"].value)
    assert metrics["all", "acc"].hashes == metrics["choice", "acc"].hashes + metrics["three", "acc"].hashes


def test_a_group_in_a_group_counts_by_the_outer_one(folder, model, tokenizer):
    (folder / "nested.yaml").write_text(
        textwrap.dedent("""
            group: outer
            task:
              - choice
              - group: inner
                task:
                  - task: again
                    dataset_path: json
                    dataset_kwargs: {data_files: {test: docs.jsonl}}
                    test_split: test
                    output_type: multiple_choice
                    doc_to_text: '{{text}}'
                    doc_to_choice: [cat, dog]
                    doc_to_target: label
                    metric_list: [{metric: acc}]
                aggregate_metric_list: [{metric: acc}]
            aggregate_metric_list: [{metric: acc}]
        """)
    )
    metrics = harness(folder, "nested").evaluate(model, tokenizer)
    assert len({metric.task for metric in metrics if metric.members}) == 2
    assert list(counting(metrics)) == ["outer"]
