"""Classifiers as answerers of multiple-choice tasks, against a direct computation with the same model and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_harness import Harness
from support.tiny import ENCODERS, UNPRUNABLE, classifier, each_of, tiny

from layerimp.errors import LayerimpError, ModelError, NonFiniteError, TaskError
from layerimp.testing import tiny_tokenizer
from layerimp.testing.tiny import WORDS

CHOICES = ("bad", "great", "awful")
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: train.jsonl, test: test.jsonl}}}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "w1 w2 w3 {{{{one}}}} w4"
doc_to_target: label
doc_to_choice: [bad, great, awful]
metric_list: [{{metric: acc}}]
metadata: {{classifier_fields: {fields}}}
"""


@pytest.fixture(autouse=True)
def task_path(tmp_path: Path) -> Path:
    """Two tasks with three choices: of a text, and of a pair."""
    words = torch.randint(4, len(WORDS), (12, 9), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [
        {
            "one": " ".join(WORDS[i] for i in ids[: 3 + n % 5]),
            "two": " ".join(WORDS[i] for i in ids[5:]),
            "label": n % 3,
        }
        for n, ids in enumerate(words)
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({**row, "split": split}) + "\n" for row in rows))
    for name, fields in (("single", "[one]"), ("pair", "[one, two]"), ("unsaid", "[]")):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, fields=fields))
    (tmp_path / "written.yaml").write_text(
        "task: written\ndataset_path: json\ndataset_kwargs: {data_files: {test: test.jsonl}}\ntest_split: test\n"
        'output_type: generate_until\ndoc_to_text: "{{one}}"\ndoc_to_target: "{{two}}"\n'
        "metric_list: [{metric: exact_match}]\n"
    )
    return tmp_path


def harness(task_path: Path, *tasks: str, **options: Any) -> Harness:
    return Harness(Harness.Config(tasks=tasks, task_path=task_path, **options))


def model_of(name: str, **changes: Any) -> Any:
    return tiny(name, dtype=torch.float64, num_labels=3, **changes)


def direct(model: Any, task_path: Path, fields: tuple[str, ...], labels: tuple[int, ...] = (0, 1, 2)) -> float:
    """The accuracy, one document at a time."""
    tokenizer, right = tiny_tokenizer(), []
    for line in (task_path / "test.jsonl").read_text().splitlines():
        row = json.loads(line)
        inputs = tokenizer(*(row[field] for field in fields), return_tensors="pt")
        with torch.no_grad():
            right.append(int(model(**inputs).logits[0, list(labels)].argmax()) == row["label"])
    return sum(right) / len(right)


@pytest.mark.parametrize("name", each_of([*ENCODERS, *(UNPRUNABLE.keys() & {"modernbert"})]))
@pytest.mark.parametrize(("task", "fields"), [("single", ("one",)), ("pair", ("one", "two"))])
def test_the_accuracy_is_that_of_the_bare_input(name: str, task: str, fields: tuple[str, ...], task_path: Path) -> None:
    model = model_of(name)
    expected = direct(model, task_path, fields)
    for batch_size in (1, 5):
        (metric,) = harness(task_path, task, batch_size=batch_size).evaluate(model, tiny_tokenizer())
        assert (metric.task, metric.name) == (task, "acc")
        assert metric.value == pytest.approx(expected)
        assert metric.stderr == pytest.approx((expected * (1 - expected) / 11) ** 0.5)


def test_a_decoder_with_a_classifier_on_top_answers_as_well(task_path: Path) -> None:
    model = classifier("llama")
    (metric,) = harness(task_path, "single").evaluate(model, tiny_tokenizer())
    assert metric.value == pytest.approx(direct(model, task_path, ("one",)))


def test_labels_are_matched_by_name(task_path: Path) -> None:
    names = {0: "Awful", 1: "BAD", 2: "great"}
    model = model_of("bert", id2label=names, label2id={name: number for number, name in names.items()})
    (metric,) = harness(task_path, "single").evaluate(model, tiny_tokenizer())
    assert metric.value == pytest.approx(direct(model, task_path, ("one",), (1, 2, 0)))


def test_labels_that_differ_are_mapped(task_path: Path) -> None:
    names = {0: "negative", 1: "positive", 2: "neutral"}
    model = model_of("bert", id2label=names, label2id={name: number for number, name in names.items()})
    with pytest.raises(TaskError, match=r"choices awful, bad, great, but the model the labels negative, neutral, posi"):
        harness(task_path, "single").check(model)
    mapping = {"bad": "negative", "great": "positive", "awful": "neutral"}
    (metric,) = harness(task_path, "single", labels=mapping).evaluate(model, tiny_tokenizer())
    assert metric.value == pytest.approx(direct(model, task_path, ("one",), (0, 1, 2)))
    with pytest.raises(TaskError, match=r"say which is which: --set harness.labels='\{.bad.: .LABEL., .great"):
        harness(task_path, "single", labels={**mapping, "awful": "positive"}).check(model)


def test_labels_may_name_the_choices_of_several_tasks(task_path: Path) -> None:
    """A grid measures them one at a time, with the labels of all."""
    (task_path / "other.yaml").write_text(
        TASK.format(name="other", fields="[one]").replace("[bad, great, awful]", "[low, high, none]")
    )
    names = {0: "negative", 1: "positive", 2: "neutral"}
    model = model_of("bert", id2label=names, label2id={name: number for number, name in names.items()})
    labels = {"bad": "negative", "great": "positive", "awful": "neutral"}
    labels |= {"low": "negative", "high": "neutral", "none": "positive"}
    both = harness(task_path, "single", "other", labels=labels)
    both.prepare()
    together = {metric.task: metric.value for metric in both.evaluate(model, tiny_tokenizer())}
    alone = {task: both.for_tasks(task).evaluate(model, tiny_tokenizer())[0].value for task in ("single", "other")}
    assert alone == together
    assert alone["other"] == pytest.approx(direct(model, task_path, ("one",), (0, 2, 1)))
    with pytest.raises(TaskError, match="no task has the choice 'hihg', which the option labels names"):
        harness(task_path, "single", "other", labels={**labels, "hihg": "positive"}).prepare()


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        ("written", {}, "task 'written' is no multiple choice, and a classifier answers nothing else"),
        ("unsaid", {}, "does not say which fields of a document (it holds: label, one, split, two) a classifier reads"),
        ("single", {"fields": ("three",)}, "a document has no field 'three' (it holds: label, one, split, two)"),
        ("single", {"fields": ("label",)}, "document 0 holds a int in 'label', where a classifier reads text"),
    ],
)
def test_what_does_not_fit_is_said(task: str, options: dict[str, Any], expected: str, task_path: Path) -> None:
    with pytest.raises(LayerimpError) as caught:
        harness(task_path, task, **options).evaluate(model_of("bert"), tiny_tokenizer())
    assert expected in str(caught.value)


def test_too_few_labels_are_no_match(task_path: Path) -> None:
    with pytest.raises(TaskError, match="but the model the labels LABEL_0, LABEL_1;"):
        harness(task_path, "single").check(tiny("bert", num_labels=2))


def test_fields_can_be_named(task_path: Path) -> None:
    model = model_of("bert")
    (metric,) = harness(task_path, "unsaid", fields=("two",)).evaluate(model, tiny_tokenizer())
    assert metric.value == pytest.approx(direct(model, task_path, ("two",)))


def test_no_number_is_an_error(task_path: Path) -> None:
    model = model_of("bert")
    torch.nn.init.constant_(model.classifier.weight, torch.nan)
    with pytest.raises(NonFiniteError, match="task 'single': the logits of document 4 are NaN"):
        harness(task_path, "single").evaluate(model, tiny_tokenizer())


def test_long_documents_are_cut_to_the_model(task_path: Path) -> None:
    row = {"one": " ".join(WORDS[4:] * 5), "two": "", "label": 0}
    (task_path / "test.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"label": 1}) + "\n")
    (metric,) = harness(task_path, "single").evaluate(model_of("roberta"), tiny_tokenizer())
    assert metric.value in (0.0, 0.5)


def test_training_text_for_classifiers_has_labels(task_path: Path) -> None:
    names = {0: "awful", 1: "bad", 2: "great"}
    model = model_of("bert", id2label=names, label2id={name: number for number, name in names.items()})
    rows = [json.loads(line) for line in (task_path / "train.jsonl").read_text().splitlines()]
    documents = harness(task_path, "pair").training_documents(model, tiny_tokenizer())
    assert list(documents) == [(f"{row['one']} {row['two']}", (1, 2, 0)[row["label"]]) for row in rows]


def test_training_text_for_decoders_is_the_prompt_with_its_answer(task_path: Path) -> None:
    rows = [json.loads(line) for line in (task_path / "train.jsonl").read_text().splitlines()]
    documents = harness(task_path, "single").training_documents(tiny("llama"), tiny_tokenizer())
    assert documents[:2] == [(f"w1 w2 w3 {row['one']} w4 {CHOICES[row['label']]}", None) for row in rows[:2]]
    with pytest.raises(TaskError, match="task 'written' has no training split to calibrate on"):
        harness(task_path, "written").training_documents(tiny("llama"), tiny_tokenizer())


def test_a_model_without_a_head_is_refused(task_path: Path) -> None:
    bare = model_of("bert").bert
    bare.config.architectures = ["BertModel"]
    with pytest.raises(ModelError, match="predict the next token, and classifiers, not BertModel"):
        harness(task_path, "single").check(bare)
