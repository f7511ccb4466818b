"""Tasks of lm-eval read local rows in place of the hub, and measure what lm-eval measures on the same rows."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from layerimp_harness import Harness, guard
from layerimp_harness.isolation import contained
from layerimp_harness.lm_eval_names import HFLM, TaskManager, evaluate
from support.benchmark_rows import ROWS, byte_model, byte_tokenizer, minimal_pairs, paradigms, write_all, write_rows
from transformers import PreTrainedTokenizerFast

from layerimp.errors import LayerimpError, TaskError

README = "---\nlicense: {}\n---\n# A data set\n"
HUB = {
    "hellaswag": ("Rowan/hellaswag", None, {"validation": "hellaswag/validation", "train": "hellaswag/train"}),
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", {"test": "arc_easy/test"}),
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge", {"test": "arc_challenge/test"}),
    "winogrande": ("allenai/winogrande", "winogrande_xl", {"validation": "winogrande/validation"}),
    "boolq": ("aps/super_glue", "boolq", {"validation": "boolq/validation"}),
    "lambada_openai": ("EleutherAI/lambada_openai", "default", {"test": "lambada_openai/test"}),
    "commonsense_qa": ("tau/commonsense_qa", None, {"validation": "commonsense_qa/validation"}),
    "gsm8k": ("openai/gsm8k", "main", {"test": "gsm8k/test", "train": "gsm8k/train"}),
    "piqa": ("baber/piqa", None, {"validation": "piqa/validation"}),
    "openbookqa": ("allenai/openbookqa", "main", {"test": "openbookqa/main/test"}),
}
"""Of each task: its data set on the hub, the configuration, and where its rows are here, by split."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("rows"))


FOLDERS = ("arc", "blimp", "commonsense_qa", "gsm8k", "hellaswag", "lambada", "openbookqa", "piqa", "winogrande")
INDEXED: dict[str, Any] = {
    "include_defaults": False,  # lm-eval takes many seconds to read all of its files
    "include_path": [guard.builtin_directory() / folder for folder in (*FOLDERS, "super_glue/boolq")],
}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


def harness(data_dir: Path, *tasks: str, **options: Any) -> Harness:
    return Harness(Harness.Config(tasks=tasks, data_dir=data_dir, **{"bootstrap": 50, **options}))


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=f"the data directory {tmp_path / 'none'} does not exist"):
        harness(tmp_path / "none", "starter_qa").prepare()


def loaded(evaluator: Harness) -> dict[str, Any]:
    evaluator.prepare()
    assert evaluator._loaded is not None
    return evaluator._loaded.tasks


def replace_hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Let `datasets` load hand-written rows where it would load from the hub; return what is asked for."""
    asked: list[tuple[str, str | None]] = []

    def load_dataset(path: str, name: str | None = None, **_options: Any) -> Any:
        asked.append((path, name))
        if path == "nyu-mll/blimp":
            rows = {"train": minimal_pairs(str(name))}
        else:
            (places,) = (places for repository, own, places in HUB.values() if (repository, own) == (path, name))
            rows = {split: ROWS[place] for split, place in places.items()}
        empty = {"train": next(iter(rows.values()))}  # lm-eval asks for it, even if there are no examples
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in (empty | rows).items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def answered(task: Any) -> list[tuple[Any, Any]]:
    """What the model was asked, and what it answered."""
    return [(instance.args, instance.resps) for instance in task.instances]


@pytest.mark.parametrize("name", [*HUB, "blimp_causative"])
def test_a_task_by_its_own_name_measures_what_lm_eval_measures_on_the_same_rows(
    name: str, data_dir: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, evaluator = byte_model(), harness(data_dir, name)
    metrics = evaluator.evaluate(model, tokenizer)
    assert not Path(datasets.config.HF_DATASETS_CACHE).exists(), "nothing is copied into the library's cache"
    asked = replace_hub(monkeypatch)
    with contained(0):
        stock = TaskManager(**INDEXED).load(name)
        for task in stock["tasks"].values():
            task.set_config("num_fewshot", task.get_config("num_fewshot") or 0)
            task.set_fewshot_seed(0)
        lm = HFLM(pretrained=model, tokenizer=tokenizer, max_length=2048)
        results = evaluate(lm=lm, task_dict=stock, bootstrap_iters=0)
    assert len(asked) == 1
    ours, theirs = answered(loaded(evaluator)[name]), answered(stock["tasks"][name])
    assert [asking for asking, _ in ours] == [asking for asking, _ in theirs]
    for (_, mine), (_, other) in zip(ours, theirs, strict=True):
        if isinstance(other[0], tuple):  # a log-likelihood, and whether the continuation is the likeliest
            assert mine[0][0] == pytest.approx(other[0][0], abs=1e-4)
            assert mine[0][1] == other[0][1]
        else:
            assert mine == other
    chosen = {metric.name.partition("[")[0]: metric.value for metric in metrics}
    for key, value in results["results"][name].items():
        metric, comma, _ = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            assert chosen[metric] == pytest.approx(value, rel=1e-4), key


def test_a_group_reads_a_file_for_each_member(data_dir: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    evaluator = harness(data_dir, "blimp", limit=1)
    metrics = {(metric.task, metric.name): metric for metric in evaluator.evaluate(byte_model(), tokenizer)}
    leaves = [metric.value for (task, _), metric in metrics.items() if task != "blimp"]
    assert len(leaves) == len(evaluator.data_files()) == 67
    assert metrics["blimp", "acc"].value == pytest.approx(sum(leaves) / 67)
    assert metrics["blimp", "acc"].floor == pytest.approx(1 / 2)


def test_a_task_that_is_written_in_python_reads_local_rows_as_well(tmp_path: Path) -> None:
    row = {"doc_id": "1", "text": "A cat sat on the", "value": "mat"}
    write_rows(tmp_path, "squad_completion/validation", [row])
    evaluator = harness(tmp_path, "squad_completion")
    assert loaded(evaluator)["squad_completion"].instances[0].args[0] == "A cat sat on the"
    assert [file.path for file in evaluator.data_files()] == ["squad_completion/validation.jsonl"]
    (tmp_path / "squad_completion/validation.jsonl").unlink()
    with pytest.raises(TaskError, match=r"no local rows .*'squad_completion', split validation"):
        harness(tmp_path, "squad_completion").prepare()


DOWNLOADED = {
    "hellaswag/data/validation-00000-of-00001.parquet": ROWS["hellaswag/validation"],
    "hellaswag/data/train-00000-of-00001.parquet": ROWS["hellaswag/train"],
    "ai2_arc/ARC-Easy/test-00000-of-00001.parquet": ROWS["arc_easy/test"],
    "ai2_arc/ARC-Challenge/test-00000-of-00001.parquet": ROWS["arc_challenge/test"],
    "winogrande/winogrande_xl/validation-00000-of-00001.parquet": ROWS["winogrande/validation"],
    "super_glue/boolq/validation-00000-of-00002.parquet": ROWS["boolq/validation"][:2],
    "super_glue/boolq/validation-00001-of-00002.parquet": ROWS["boolq/validation"][2:],
    "lambada_openai/default/test/0000.parquet": ROWS["lambada_openai/test"],
    **{f"blimp/{name}/train-00000-of-00001.parquet": minimal_pairs(name) for name in paradigms()},
}
"""What the commands on the page `offline` download for `zero-shot`, in few rows."""


def test_data_sets_are_read_as_they_are_downloaded(data_dir: Path, tmp_path: Path) -> None:
    for place, rows in DOWNLOADED.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / place)
    (tmp_path / "winogrande" / "README.md").write_text(README.format("apache-2.0"))
    downloaded = harness(tmp_path, "zero-shot")
    assert downloaded.fingerprint() == harness(data_dir, "zero-shot").fingerprint()
    files = downloaded.data_files()
    assert {file.path for file in files} == DOWNLOADED.keys() - {"hellaswag/data/train-00000-of-00001.parquet"}
    assert [file.rows for file in files if file.task == "boolq"] == [2, 1]
    assert {file.task for file in files if file.licence == "apache-2.0"} == {"winogrande"}
    assert loaded(harness(tmp_path, "hellaswag", num_fewshot=1))


def test_the_page_downloads_all_data_sets_of_zero_shot(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "measure" / "offline.md").read_text()
    commands = re.findall(r"hf download (\S+/(\S+)) --repo-type dataset .*--local-dir data/(\S+)", page)
    assert all(name == folder for _, name, folder in commands)
    assert {place.partition("/")[0] for place in DOWNLOADED} == {folder for *_, folder in commands}
    assert {task.dataset for task in harness(tmp_path, "zero-shot").details()} == {path for path, *_ in commands}


def test_a_shard_that_was_not_downloaded_is_missed(tmp_path: Path) -> None:
    (tmp_path / "super_glue" / "boolq").mkdir(parents=True)
    rows = datasets.Dataset.from_list(ROWS["boolq/validation"])
    rows.to_parquet(tmp_path / "super_glue/boolq/validation-00000-of-00002.parquet")
    with pytest.raises(TaskError, match=r"'boolq': 1 of 2 files .*super_glue/boolq/validation-\*-of-\*\.parquet"):
        harness(tmp_path, "boolq").prepare()


def marked(rows: list[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    return [{**row, "question": mark} for row in rows]


def test_files_are_looked_for_in_a_fixed_order(tmp_path: Path) -> None:
    places = ["boolq/validation", "super_glue/boolq/validation"]
    for place in places:
        write_rows(tmp_path, place, marked(ROWS["boolq/validation"], place))
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: aps/super_glue\ndataset_name: boolq\nvalidation_split: validation\n"
        "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: ['no', 'yes']\n"
        "doc_to_target: label\nmetric_list: [{metric: acc}]\nmetadata: {local_files: {validation: own.jsonl}}\n"
    )

    def read(task: str) -> str:
        return str(next(iter(loaded(harness(tmp_path, task)).values())).eval_docs[0]["question"])

    mine = str(tmp_path / "mine.yaml")
    assert read("boolq") == "boolq/validation"
    assert read(mine) == "super_glue/boolq/validation"
    for place in ("mine/validation", "own"):
        write_rows(tmp_path, place, marked(ROWS["boolq/validation"], place))
        assert read(mine) == place
    (tmp_path / "boolq/validation.jsonl").unlink()
    assert read("boolq") == "super_glue/boolq/validation"
    rows = datasets.Dataset.from_list(marked(ROWS["boolq/validation"], "parquet"))
    rows.to_parquet(tmp_path / "boolq" / "validation.parquet")
    assert read("boolq") == "parquet"


@pytest.mark.parametrize(
    ("task", "place", "rows"),
    [
        ("arc_easy", "ai2_arc/test", "arc_easy/test"),
        ("arc_easy", "ai2_arc/ARC-Challenge/test", "arc_easy/test"),
        ("arc_easy", "ai2_arc/ARC-Easy", "arc_easy/test"),
        ("arc_easy", "arc_easy/validation", "arc_easy/test"),
        ("hellaswag", "hellaswag/train", "hellaswag/train"),
        ("hellaswag", "hellaswag/test", "hellaswag/validation"),
        ("blimp_causative", "blimp/transitive", "blimp/transitive"),
        ("blimp_causative", "blimp/train", "blimp/causative"),
    ],
)
def test_no_file_stands_in_for_another_configuration_or_split(task: str, place: str, rows: str, tmp_path: Path) -> None:
    write_rows(tmp_path, place, ROWS.get(rows) or minimal_pairs("causative"))
    with pytest.raises(TaskError, match=rf"no local rows .*'{task}'"):
        harness(tmp_path, task).prepare()


def test_all_missing_files_are_named_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path, "boolq/validation", ROWS["boolq/validation"])
    monkeypatch.setattr("layerimp_harness.local_rows.read_rows", lambda *_: pytest.fail("a file was read"))
    with pytest.raises(LayerimpError) as caught:
        harness(tmp_path, "boolq", "piqa", "openbookqa", "gsm8k").prepare()
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    wanted = ["piqa/validation", "openbookqa/test", "openbookqa/main/test", "gsm8k/test", "gsm8k/main/test"]
    for place in [*wanted, "gsm8k/train", "gsm8k/main/train"]:  # gsm8k has five examples by itself
        assert f"{tmp_path / place}.jsonl" in message
    assert "boolq" not in message


def without(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


@pytest.mark.parametrize(
    ("task", "place", "column", "reason"),
    [
        ("boolq", "boolq/validation", "passage", "UndefinedError: 'passage' is undefined"),
        ("boolq", "boolq/validation", "label", "doc_to_target reads the column 'label', which is not in"),
        ("piqa", "piqa/validation", "sol1", "(columns: goal, label, sol2)"),
        ("hellaswag", "hellaswag/validation", "ctx_b", "no split or field 'ctx_b'"),
        ("winogrande", "winogrande/validation", "option2", "no split or field 'option2'"),
        ("openbookqa", "openbookqa/main/test", "question_stem", "doc_to_text reads the column 'question_stem', which"),
    ],
)
def test_an_error_of_a_missing_column_names_column_task_and_file(
    task: str, place: str, column: str, reason: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path, place, without(ROWS[place], column))
    with pytest.raises(TaskError) as caught:
        harness(tmp_path, task).prepare()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"task {task!r}: ")
    assert reason in message
    assert str(path) in message


def test_a_missing_part_of_a_column_is_told_with_the_file(tmp_path: Path) -> None:
    rows = [{**row, "choices": {"text": row["choices"]["text"]}} for row in ROWS["arc_easy/test"]]
    path = write_rows(tmp_path, "arc_easy/test", rows)
    with pytest.raises(TaskError, match=rf"'arc_easy'.*no attribute 'label'.*{path}"):
        harness(tmp_path, "arc_easy").prepare()


def test_a_column_that_scoring_lacks_is_told_with_the_file(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "scoring.py").write_text("def score(doc, results):\n    return {'acc': doc['right'] == results[0]}\n")
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: nobody/nothing\ntest_split: test\noutput_type: multiple_choice\n"
        "doc_to_text: '{{question}}'\ndoc_to_target: 0\ndoc_to_choice: [a, b]\n"
        "process_results: !function scoring.score\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    write_rows(tmp_path, "nothing/test", [{"question": "Why?"}])
    with pytest.raises(
        TaskError,
        match=r"task 'mine': .* field 'right'; its rows are those of .*/nothing/test\.jsonl \(columns: question\)",
    ):
        harness(tmp_path, str(tmp_path / "mine.yaml"), allow_task_code=True).evaluate(byte_model(), tokenizer)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"passage": "a"}\n{"passage": \n', "line 2: no JSON"),
        ("[1]\n", "line 1: no JSON object, but a list"),
        ("\n", "holds no rows"),
        ('{"passage": 1}\n{"passage": "a"}\n', "cannot be read"),
    ],
)
def test_a_file_of_something_else_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "validation.jsonl").write_text(text)
    with pytest.raises(TaskError, match=rf"'boolq': .*boolq/validation\.jsonl.*{reason}"):
        harness(tmp_path, "boolq").prepare()


def test_examples_come_from_their_own_file_or_not_at_all(
    tmp_path: Path, data_dir: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, "hellaswag/validation", ROWS["hellaswag/validation"])
    assert loaded(harness(tmp_path, "hellaswag", num_fewshot=0))
    with pytest.raises(TaskError, match=rf"no local rows .*'hellaswag', split train: {tmp_path}/hellaswag/train.jsonl"):
        harness(tmp_path, "hellaswag", num_fewshot=1).prepare()
    with pytest.raises(TaskError, match=r"'lambada_openai' has no rows for examples but those that are measured"):
        harness(data_dir, "lambada_openai", num_fewshot=1).prepare()
    with_examples = harness(data_dir, "hellaswag", num_fewshot=2)
    loaded(with_examples)
    assert {file.split for file in with_examples.data_files()} == {"train", "validation"}
    at_once = harness(data_dir, "hellaswag")
    loaded(at_once)
    assert {file.split for file in at_once.data_files()} == {"validation"}, "no example, so nothing of them is read"


def test_rows_for_training_are_read_when_they_are_asked_for(data_dir: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    evaluator = harness(data_dir, "gsm8k", num_fewshot=0)
    texts = [text for text, _ in evaluator.training_documents(byte_model(), tokenizer)]
    assert texts == [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in ROWS["gsm8k/train"]]


@pytest.mark.parametrize(
    ("readme", "stated"),
    [
        (README.format("cc-by-sa-4.0"), "cc-by-sa-4.0"),
        (README.format("[mit, other]"), "mit, other"),
        (README.format("\n- mit\n- other"), "mit, other"),
        ("# Rows\n\n**Licence:** CC BY 4.0, see there\n", "CC BY 4.0, see there"),
        ("# Rows\n\n## License\n\nMIT\n", "MIT"),
        ("# Rows\n\nNothing is stated.\n", ""),
    ],
)
@pytest.mark.parametrize("place", ["boolq", "super_glue/boolq"])
def test_what_was_read_is_told_with_its_licence(readme: str, stated: str, place: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path, f"{place}/validation", ROWS["boolq/validation"])
    (tmp_path / place.partition("/")[0] / "README.md").write_text(readme)
    (tmp_path / "README.md").write_text(README.format("another"))  # of the whole directory
    (file,) = harness(tmp_path, "boolq").data_files()
    assert (file.task, file.split, file.path, file.rows) == ("boolq", "validation", f"{place}/validation.jsonl", 3)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.licence == stated


def test_the_fingerprint_is_that_of_the_rows(data_dir: Path, tmp_path: Path) -> None:
    before = harness(data_dir, "boolq").fingerprint()
    write_rows(tmp_path, "super_glue/boolq/validation", ROWS["boolq/validation"])
    assert harness(tmp_path, "boolq").fingerprint() == before
    write_rows(tmp_path, "super_glue/boolq/validation", ROWS["boolq/validation"][:2])
    assert harness(tmp_path, "boolq").fingerprint() != before


def test_without_a_data_directory_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace_hub(monkeypatch)
    evaluator = Harness(Harness.Config(tasks=("boolq",)))
    assert len(loaded(evaluator)["boolq"].eval_docs) == 3
    assert asked == [("aps/super_glue", "boolq")]
    assert evaluator.data_files() == []


def test_tasks_are_described_without_their_rows(tmp_path: Path) -> None:
    (hellaswag, pair) = harness(tmp_path, "hellaswag", "blimp_causative", num_fewshot=3).details()
    assert (hellaswag.measured, hellaswag.examples, hellaswag.shots) == ("validation", "train", 3)
    assert hellaswag.metrics == ("acc", "acc_norm")
    assert hellaswag.columns == ("query", "choices", "label")
    assert hellaswag.functions == ("process_docs",)
    assert hellaswag.paths["validation"][0] == str(tmp_path / "hellaswag" / "validation.jsonl")
    assert pair.shots == 0, "as BLiMP states itself"
    ends = (".jsonl", ".parquet", "-*-of-*.parquet", "/*.parquet")
    places = [f"{folder}/train{end}" for folder in ("blimp_causative", "blimp/causative") for end in ends]
    places += ["blimp/causative.jsonl", "blimp/causative.parquet"]
    assert pair.paths["train"] == tuple(str(tmp_path / place) for place in places)
