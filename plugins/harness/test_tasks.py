"""A task that is wrong, missing or unfit is refused in one line, and data files are looked for in a fixed order."""

from __future__ import annotations

import sys

import datasets
import pytest
from layerimp_harness import Harness, tasks
from support.lm_tasks import (
    CHOICE,
    documents,
    harness,
    write_docs,
    write_task,
)

from layerimp.errors import TaskError, UnknownNameError


def test_include_that_goes_in_circles(folder):
    (folder / "a.yaml").write_text("task: a\ninclude: b.yaml\n")
    (folder / "b.yaml").write_text("include: a.yaml\n")
    with pytest.raises(TaskError, match="includes itself"):
        harness(folder, "a").prepare()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("task: [unclosed\n", "line"),
        ("- a\n- b\n", "Expected YAML dict"),
        ("output_type: multiple_choice\n", "no name"),
        ("task: x\ninclude: gone.yaml\n", r"gone\.yaml"),
        ("task: x\noutput_type: nonsense\n", "output_type"),
        ("task: x\nbogus: 1\n", "bogus"),
        ("task: x\nmetadata: {a: !!python/name:os.system ''}\n", "line 2: .*python/name"),
    ],
)
def test_malformed_files(folder, text, reason):
    (folder / "odd.yaml").write_text(text)
    with pytest.raises(TaskError, match=reason) as caught:
        harness(folder, "odd").prepare()
    assert "\n" not in str(caught.value)


def test_malformed_file_in_the_task_path(folder):
    (folder / "odd.yaml").write_text("task: odd\nx: [\n")
    with pytest.raises(TaskError, match=r"odd\.yaml"):
        Harness(Harness.Config(tasks=("odd",), task_path=folder)).prepare()


def test_missing_file_and_directory(folder):
    with pytest.raises(TaskError, match=r"gone\.yaml does not exist"):
        harness(folder, "gone").prepare()
    with pytest.raises(TaskError, match="no directory"):
        Harness(Harness.Config(tasks=("x",), task_path=folder / "gone")).prepare()


def test_unknown_name_suggests_near_ones(folder, monkeypatch):
    lm_evals_own = {"hellaswag": None}  # all of them take seconds to read
    monkeypatch.setattr(tasks, "whole_index", lambda: lm_evals_own)
    with pytest.raises(UnknownNameError, match=r"hellaswg.*'hellaswag'"):
        Harness(Harness.Config(tasks=("hellaswg",), task_path=folder)).prepare()
    (folder / "all.yaml").write_text("group: all\ntask: [choice, rollin]\n")
    with pytest.raises(UnknownNameError, match=r"rollin.*'rolling'"):
        Harness(Harness.Config(tasks=("all",), task_path=folder)).prepare()


def test_two_tasks_of_one_name(folder):
    (folder / "again.yaml").write_text((folder / "choice.yaml").read_text())
    with pytest.raises(TaskError, match="two of the tasks are named 'choice'"):
        harness(folder, "choice", "again").prepare()


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ("[{metric: acuracy}]", "unknown metric 'acuracy'"),
        ("[{metric: acc, aggregation: meen}]", "unknown aggregation 'meen'"),
    ],
)
def test_unknown_metric_is_not_looked_up(folder, metrics, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "evaluate", None)
    write_task(folder, "odd", CHOICE.replace("[{metric: acc}, {metric: f1}]", metrics))
    with pytest.raises(TaskError, match=reason):
        harness(folder, "odd").prepare()


@pytest.mark.parametrize("choices", ["['{{text}}', dog]", "{a: cat, b: '{% if text %}dog{% endif %}'}"])
def test_templates_in_a_list_of_choices_are_refused(folder, choices):
    write_task(folder, "odd", CHOICE.replace("[on the, good film]", choices))
    with pytest.raises(TaskError, match=r"'odd': lm-eval takes '{.*literally.*{{\[right, wrong\]}}"):
        harness(folder, "odd").prepare()


def test_a_template_of_all_choices(folder):
    write_task(folder, "odd", CHOICE.replace("[on the, good film]", '"{{[text, text ~ label]}}"'))
    evaluator = harness(folder, "odd")
    evaluator.prepare()
    task = evaluator._loaded.tasks["odd"]
    document = task.eval_docs[0]
    assert task.doc_to_choice(document) == [document["text"], f"{document['text']}{document['label']}"]


def test_too_few_shots(folder):
    with pytest.raises(TaskError, match="'choice' has fewer than 50 documents for examples; ask for fewer"):
        harness(folder, "choice", num_fewshot=50).prepare()


def test_data_set_that_cannot_be_loaded(folder, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write_task(folder, "remote", CHOICE, dataset_path="nobody/nothing", dataset_kwargs="")
    with pytest.raises(TaskError, match="'remote': its data set 'nobody/nothing' cannot be loaded") as caught:
        harness(folder, "remote").prepare()
    assert "\n" not in str(caught.value)
    (folder / "docs.jsonl").write_text('{"text": \n')
    with pytest.raises(TaskError, match="'choice': its data set 'json'"):
        harness(folder, "choice").prepare()


def test_order_in_which_data_files_are_looked_for(folder, model, tokenizer, monkeypatch, tmp_path_factory):
    given, here = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    for directory, count in ((folder, 2), (given, 3), (here, 4)):
        write_docs(directory, documents(count))

    def count(**options):
        evaluator = harness(folder, "choice", **options)
        evaluator.prepare()
        return len(evaluator._loaded.tasks["choice"].eval_docs)

    assert count(data_dir=given) == 3
    assert count() == 2
    (folder / "docs.jsonl").unlink()
    assert count() == 4
    (here / "docs.jsonl").unlink()
    (given / "docs.jsonl").unlink()
    with pytest.raises(TaskError, match=rf"docs\.jsonl.*{given}.*{folder}.*{here}"):
        count(data_dir=given)


@pytest.mark.parametrize("files", ["docs.jsonl", "[docs.jsonl]", "{test: [docs.jsonl]}", "{test: 'd*s.jsonl'}"])
def test_shapes_of_data_files(folder, files):
    split = "test" if "test" in files else "train"
    write_task(folder, "shape", CHOICE, dataset_kwargs=f"{{data_files: {files}}}", test_split=split)
    harness(folder, "shape").prepare()


def test_some_of_the_tasks_are_those_that_are_loaded_already(folder, model, tokenizer):
    """A run asks for the tasks that are not known yet; they are as they would be alone."""
    write_task(folder, "again", CHOICE)
    (folder / "both.yaml").write_text("group: both\ntask: [choice, again]\n")
    every = harness(folder, "both", "rolling")
    every.prepare()
    group, rolling = (every.for_tasks(task) for task in every.config.tasks)
    assert group._tasks().tasks["choice"] is every._tasks().tasks["choice"]
    assert group.fingerprint() == harness(folder, "both").fingerprint()
    assert rolling.fingerprint() == harness(folder, "rolling").fingerprint()
    metrics = every.evaluate(model, tokenizer)
    assert {metric.task for metric in metrics} == {"choice", "again", "rolling"}
    assert [metric.value for metric in metrics if metric.task == "rolling"] == [
        pytest.approx(metric.value) for metric in rolling.evaluate(model, tokenizer)
    ]
