"""The paper's tasks: their data sets, here and on the hub, and their metrics against independent computations."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from layerimp_harness import Harness
from layerimp_harness.answers import scores
from support.tiny import tiny
from torchmetrics.functional.text import squad

from layerimp.errors import TaskError
from layerimp.testing import tiny_tokenizer
from layerimp.testing.tiny import WORDS

SST2, SQUAD = "layerimp_sst2", "layerimp_squad"
TEXT = ("layerimp_hackernews", "layerimp_pile")


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS[4:], k=words))


def rows() -> dict[str, list[dict[str, Any]]]:
    """Documents as they are in the files, by their place in the data directory."""
    rng = random.Random(0)
    sentences = [{"sentence": text(rng, 6), "label": n % 2} for n in range(24)]
    questions = [
        {"id": str(n), "title": "", "context": text(rng, 12), "question": text(rng, 4)}
        | {"answers": {"text": [text(rng, 2)], "answer_start": [0]}}
        for n in range(12)
    ]
    subsets = ["HackerNews", "Github", "Pile-CC"]
    pile = [{"text": text(rng, 9), "meta": {"pile_set_name": subsets[n % 3]}} for n in range(60)]
    return {
        "sst2/train.jsonl": sentences[:12],
        "sst2/dev.jsonl": sentences[12:],
        "squad/train_sample.jsonl": questions[:6],
        "squad/dev.jsonl": questions[6:],
        "hackernews/threads.jsonl": [{"text": row["text"]} for row in pile[::3]],
        "pile/sample.jsonl": pile,
    }


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, lines in rows().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def harness(task: str, data_dir: Path | None, **options: Any) -> Harness:
    return Harness(Harness.Config(tasks=(task,), data_dir=data_dir, **options))


def measured(task: str, data_dir: Path | None, model: Any = None, **options: Any) -> dict[str, Any]:
    metrics = harness(task, data_dir, **options).evaluate(model or tiny("llama"), tiny_tokenizer())
    assert all(metric.stderr is not None for metric in metrics)
    return {metric.name: metric.value for metric in metrics}


def log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    """Of each token after the first, given those before it."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]


@pytest.mark.parametrize("task", TEXT)
def test_perplexities_follow_from_the_logits(task: str, data_dir: Path) -> None:
    model, tokenizer = tiny("llama"), tiny_tokenizer()
    place = {"layerimp_pile": "pile/sample.jsonl", "layerimp_hackernews": "hackernews/threads.jsonl"}[task]
    lines = [line["text"] for line in rows()[place]]
    held_out = lines[len(lines) // 10 :]
    total = sum(float(log_probs(model, tokenizer(line)["input_ids"]).sum()) for line in held_out)
    counts = {
        "token_perplexity": sum(len(tokenizer(line)["input_ids"]) - 1 for line in held_out),
        "word_perplexity": sum(len(line.split()) for line in held_out),
        "byte_perplexity": sum(len(line.encode()) for line in held_out),
    }
    expected = {name: math.exp(-total / count) for name, count in counts.items()}
    assert measured(task, data_dir, model) == pytest.approx(expected, rel=1e-5)


def test_an_empty_document_counts_in_no_perplexity_and_breaks_none(data_dir: Path) -> None:
    place = data_dir / "pile/sample.jsonl"
    place.write_text(place.read_text() + json.dumps({"text": "", "meta": {"pile_set_name": "Github"}}) + "\n")
    metrics = harness("layerimp_pile", data_dir).evaluate(tiny("llama"), tiny_tokenizer())
    assert [metric.name for metric in metrics if metric.likelihood] == [metric.name for metric in metrics]
    for metric in metrics:
        assert metric.likelihood is not None
        assert metric.likelihood.unigram is not None
        assert len(metric.likelihood.unigram) == len(metric.likelihood.totals) == metric.count
        assert len(metric.hashes or ()) == metric.count


@pytest.mark.parametrize("task", TEXT)
def test_text_for_calibration_is_not_measured(task: str, data_dir: Path) -> None:
    evaluator = harness(task, data_dir)
    calibrating = [document for document, _ in evaluator.training_documents(tiny("llama"), tiny_tokenizer())]
    (loaded,) = evaluator._tasks().tasks.values()
    measured_on = [doc["text"] for doc in loaded.eval_docs]
    assert calibrating
    assert len(measured_on) > 8 * len(calibrating)
    assert not set(calibrating) & set(measured_on)


def test_sentiment_is_the_likelier_word(data_dir: Path) -> None:
    model, tokenizer, right = tiny("llama"), tiny_tokenizer(), []
    for row in rows()["sst2/dev.jsonl"]:
        prompt = f"{row['sentence']}\nQuestion: Is this sentence positive or negative?\nAnswer:"
        asked = len(tokenizer(prompt)["input_ids"])
        both = [tokenizer(f"{prompt} {word}")["input_ids"] for word in ("negative", "positive")]
        sums = [float(log_probs(model, ids)[asked - 1 :].sum()) for ids in both]
        right.append(sums.index(max(sums)) == row["label"])
    assert measured(SST2, data_dir) == {"acc": pytest.approx(sum(right) / len(right))}


def test_answers_are_scored_like_squad(data_dir: Path) -> None:
    assert measured(SQUAD, data_dir, limit=3).keys() == {"f1", "exact_match"}
    rng = random.Random(1)
    words = ["the", "The", "a", "an", "cat", "Cat", "cat.", "dog's", "42", "4,2", "sat;", "on", "(mat)", "é"]
    for _ in range(1000):
        said = " ".join(rng.choices(words, k=rng.randint(1, 5)))
        references = [" ".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
        theirs = squad(
            [{"prediction_text": said, "id": "0"}],
            [{"answers": {"answer_start": [0] * len(references), "text": references}, "id": "0"}],
        )
        ours = scores(said, references)
        assert 100 * ours["f1"] == pytest.approx(float(theirs["f1"]), abs=1e-3), (said, references)
        assert 100 * ours["exact_match"] == float(theirs["exact_match"]), (said, references)


ON_THE_HUB = {
    SST2: (("nyu-mll/glue", "sst2"), "acc"),
    SQUAD: (("rajpurkar/squad", None), "f1"),
    "layerimp_hackernews": (("NeelNanda/pile-10k", None), "token_perplexity"),
    "layerimp_pile": (("NeelNanda/pile-10k", None), "token_perplexity"),
}


@pytest.mark.parametrize("task", ON_THE_HUB)
def test_without_a_data_directory_the_hub_is_read(task: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's data sets are stood in for by files with their columns, read by the same library."""
    files = {
        "nyu-mll/glue": {"train": "sst2/train.jsonl", "validation": "sst2/dev.jsonl"},
        "rajpurkar/squad": {"train": "squad/train_sample.jsonl", "validation": "squad/dev.jsonl"},
        "NeelNanda/pile-10k": {"train": "pile/sample.jsonl"},
    }
    asked: list[tuple[str, str | None]] = []
    real = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, **kwargs: Any) -> Any:
        asked.append((path, name))
        places = {split: str(data_dir / place) for split, place in files[path].items()}
        return real("json", data_files=places, **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (expected, metric) = ON_THE_HUB[task]
    assert metric in measured(task, None, limit=4)
    assert asked == [expected]
    if task == "layerimp_hackernews":
        (loaded,) = harness(task, None)._tasks().tasks.values()
        assert {doc["meta"]["pile_set_name"] for doc in loaded.eval_docs} == {"HackerNews"}


def test_a_file_that_is_missing_is_named(data_dir: Path) -> None:
    (data_dir / "sst2/dev.jsonl").unlink()
    (data_dir / "pile/sample.jsonl").unlink()
    both = Harness(Harness.Config(tasks=(SST2, "layerimp_pile"), data_dir=data_dir))
    with pytest.raises(TaskError, match=r"no local rows .*/sst2/dev.jsonl .*/pile/sample.jsonl .*the hub is read$"):
        both.prepare()


def test_a_training_split_may_be_missing(data_dir: Path) -> None:
    (data_dir / "squad/train_sample.jsonl").unlink()
    assert measured(SQUAD, data_dir, limit=2)
    missing = r"no local rows .*'layerimp_squad', split train: .*/squad/train_sample\.jsonl"
    with pytest.raises(TaskError, match=missing):
        harness(SQUAD, data_dir).training_documents(tiny("llama"), tiny_tokenizer())
    with pytest.raises(TaskError, match=missing):
        harness(SQUAD, data_dir, num_fewshot=1).prepare()
