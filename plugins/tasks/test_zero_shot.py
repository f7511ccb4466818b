"""The selection of zero-shot tasks that papers report, and its mean."""

from __future__ import annotations

import hashlib
import math
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from layerimp_harness import Harness
from layerimp_harness.averages import averages, stratified
from support.benchmark_rows import byte_model, byte_tokenizer, write_all

import layerimp
from layerimp.errors import TaskError
from layerimp.evaluator import Metric, Stratum, mean_and_error
from layerimp.recipe import Recipe
from layerimp.report.page import page
from layerimp.report.retained import counting

FOLDER = Path(__file__).parent / "layerimp_tasks"
SEVEN = {
    "hellaswag": "acc_norm",
    "arc_easy": "acc_norm",
    "arc_challenge": "acc_norm",
    "winogrande": "acc",
    "boolq": "acc",
    "lambada_openai": "acc",
    "blimp": "acc",
}
NINE = {**SEVEN, "piqa": "acc_norm", "openbookqa": "acc_norm"}


DOCUMENTS, HASHES = attrgetter("documents"), attrgetter("hashes")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize(("group", "parts"), [("zero-shot", SEVEN), ("zero-shot-9", NINE)])
def test_the_mean_is_that_of_the_tasks_without_examples(group: str, parts: dict[str, str], data_dir: Path) -> None:
    harness = Harness(Harness.Config(tasks=(group,), data_dir=data_dir, num_fewshot=5, limits={"blimp": 67}))
    metrics = harness.evaluate(byte_model(), byte_tokenizer())
    mean, *others = metrics
    by_name = {(metric.task, metric.name): metric for metric in others}
    own = [by_name[key] for key in parts.items()]
    assert (mean.task, mean.name) == (group, "accuracy")
    assert mean.value == pytest.approx(sum(metric.value for metric in own) / len(parts))
    assert mean.floor == pytest.approx(sum(metric.floor or 0 for metric in own) / len(parts))
    documents, hashes = ([value for metric in own for value in values(metric)] for values in (DOCUMENTS, HASHES))
    assert (mean.documents, mean.hashes) == (tuple(documents), tuple(hashes))
    assert mean_and_error(documents, mean.strata)[0] == pytest.approx(mean.value)
    assert {task.get_config("num_fewshot") for task in harness._tasks().tasks.values()} == {0}
    assert len(harness._tasks().tasks) == len(parts) - 1 + 67
    assert list(counting(metrics)) == [group], "the tasks count through the mean"
    assert harness._tasks().names == [group], "progress names the group alone"


def test_the_files_name_what_is_measured() -> None:
    for name, parts in (("zero_shot", SEVEN), ("zero_shot_9", NINE)):
        held = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        assert held["metadata"]["mean_of"] == parts
        assert held["task"] == list(parts)


def test_a_mean_has_the_error_of_independent_tasks_and_no_part_may_be_missing() -> None:
    parts = {"mean_of": {"a": "acc", "b": "acc_norm"}}
    group = SimpleNamespace(metadata=parts, get_all_tasks=list, get_all_groups=list)
    metrics = [Metric("a", "acc", 0.6, 0.03, floor=0.5), Metric("b", "acc_norm", 0.4, 0.04, floor=0.25)]
    (mean,) = averages({"both": group}, [*metrics, Metric("b", "acc", 0.9)])
    assert (mean.value, mean.floor) == (pytest.approx(0.5), pytest.approx(0.375))
    assert mean.stderr == pytest.approx(math.hypot(0.03, 0.04) / 2)
    assert list(averages({"both": group}, metrics[:1])) == []


def test_the_documents_of_each_task_are_a_stratum_of_the_mean_also_within_a_group() -> None:
    inner = (Stratum(2, 0.5), Stratum(3, 0.5))
    first = Metric("a", "acc", 0.75, 0.2, floor=0.5, documents=(1.0, 0.5), hashes=(1, 2))
    second = Metric("b", "acc", 0.5, 0.3, documents=(1.0, 0.0, 0.0, 1.0, 0.5), hashes=(3, 4, 5, 6, 7), strata=inner)
    group = SimpleNamespace(metadata={"mean_of": {"a": "acc", "b": "acc"}}, get_all_tasks=list, get_all_groups=list)
    (mean,) = averages({"both": group}, [first, second])
    assert mean.strata == (Stratum(2, 0.5, "a", 0.5), Stratum(2, 0.25, "b"), Stratum(3, 0.25, "b"))
    assert [(part.task, part.value, part.floor) for part in mean.parts] == [("a", 0.75, 0.5), ("b", 0.5, None)]
    assert mean.documents == (1.0, 0.5, 1.0, 0.0, 0.0, 1.0, 0.5)
    variances = 0.125 / 2, 0.5 / 2, 0.25 / 3  # of the means of (1, 0.5), (1, 0) and (0, 1, 0.5)
    weights = 0.5, 0.25, 0.25
    expected = sum(weight**2 * variance for weight, variance in zip(weights, variances, strict=True))
    assert mean.stderr == pytest.approx(math.sqrt(expected))


def test_tasks_with_one_document_each_are_one_stratum() -> None:
    parts = [Metric(name, "acc", right, documents=(right,)) for name, right in (("a", 1.0), ("b", 0.0), ("c", 1.0))]
    details = stratified(parts, [0.25, 0.25, 0.5])
    assert details["strata"] == (Stratum(2, 0.5), Stratum(1, 0.5))
    assert details["hashes"] is None


def test_a_task_without_rows_is_refused_and_not_left_out(data_dir: Path, tmp_path: Path) -> None:
    for file in data_dir.rglob("*.jsonl"):
        if file.parent.name not in ("boolq", "piqa"):
            copy = tmp_path / file.relative_to(data_dir)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    with pytest.raises(TaskError, match=r"no local rows .*'boolq', split validation"):
        Harness(Harness.Config(tasks=("zero-shot",), data_dir=tmp_path)).prepare()


def test_results_say_which_rows_were_read(data_dir: Path, tmp_path: Path) -> None:
    byte_model().save_pretrained(tmp_path / "m")
    byte_tokenizer().save_pretrained(tmp_path / "m")
    results = layerimp.evaluate(
        Recipe(model=str(tmp_path / "m"), tasks=("boolq",), data_dir=data_dir, limits={"boolq": 2})
    )
    (file,) = results.data_files
    (path,) = (data_dir / "boolq").glob("*.jsonl")
    content = path.read_bytes()
    assert (file.task, file.split, file.path) == ("boolq", "validation", f"boolq/{path.name}")
    assert (file.rows, file.sha256) == (content.count(b"\n"), hashlib.sha256(content).hexdigest())
    assert results.design.limits == {"boolq": 2}
    shown = page(results)
    assert f"boolq/{path.name}: {file.rows} rows, licence not stated, SHA-256 <code>{file.sha256[:16]}</code>" in shown
    assert "2 of boolq" in shown
    assert "Ice is frozen water" not in results.model_dump_json() + shown
