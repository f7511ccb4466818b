"""What an evaluation will cost is said before it starts, if that is long, from what it reads and one timed batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.heard import Heard
from support.mood import Run
from support.tiny import tiny

import layerimp
from layerimp import Evaluator, Metric
from layerimp.component import Options
from layerimp.evaluation import cost
from layerimp.evaluation.cost import head_share, reading_seconds, timed
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluator import Reading

READING = Reading(documents=10, rows=40, tokens=8000, predicted=8000)


class Reader(Evaluator):
    """Says what it reads, task by task."""

    name = "reader"

    class Config(Options):
        tasks: tuple[str, ...] = ()
        limit: int | None = None
        batch_size: int = 4

    config: Config

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric(task, "acc", 0.5) for task in self.config.tasks]

    def fingerprint(self) -> str:
        return str(self.config.tasks)

    def reading(self, model: Any, tokenizer: Any) -> Reading | None:
        return READING * len(self.config.tasks)


class Tongueless(Reader):
    """Does not say what it reads."""

    def reading(self, model: Any, tokenizer: Any) -> Reading | None:
        return None


class Failing(Reader):
    """Fails when asked."""

    def reading(self, model: Any, tokenizer: Any) -> Reading | None:
        raise KeyError("oops")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token takes 5 ms in all blocks, and no model is too small to be timed."""
    monkeypatch.setattr(cost, "QUICK", 0.0)
    monkeypatch.setattr(cost, "timed", lambda _stack: lambda rows, tokens: 0.005 * rows * tokens)
    monkeypatch.setattr(cost, "head_share", lambda _stack: 0.5)


def announced(evaluator: Evaluator, others: int = 0, **more: Any) -> list[str]:
    """What is said before an evaluation; then evaluate."""
    model, notes = tiny("llama"), Heard()
    evaluation = Evaluation(model, None, notes)  # type: ignore[arg-type]
    evaluation.announce({"reader": evaluator}, layerimp.find_blocks(model), others, **more)
    assert not evaluation.failed
    evaluation.of({"reader": evaluator}, "quality")
    return notes.lines


def test_rows_batches_head_and_generation_add_up() -> None:
    asked: list[tuple[int, int]] = []

    def blocks(rows: int, tokens: int) -> float:
        asked.append((rows, tokens))
        return rows * tokens / 1000

    assert reading_seconds(READING, 8, blocks, head=0.0) == pytest.approx(8)
    assert reading_seconds(READING, 8, blocks, head=0.25) == pytest.approx(10)
    generating = Reading(rows=40, tokens=8000, generated=80)
    assert reading_seconds(generating, 8, blocks, head=0.5) == pytest.approx(8 + 80 / 8 * 0.008 * 1.5)
    assert asked == [(5, 200), (5, 200), (5, 200), (8, 1)]  # about a thousand tokens, in rows of mean length
    assert reading_seconds(READING, 8, lambda _rows, _tokens: None, head=0.0) is None
    assert reading_seconds(Reading(), 8, blocks, head=1.0) == 0.0


def test_a_batch_of_the_loaded_model_is_timed() -> None:
    stack = layerimp.find_blocks(tiny("llama"))
    stack.model.train()
    seconds = timed(stack)(2, 16)
    assert seconds is not None
    assert seconds > 0
    assert stack.model.training
    assert timed(layerimp.find_blocks(tiny("gpt2")))(1, 100_000) is None  # beyond its positions
    head, blocks = stack.vocab_size * 32, sum(p.numel() for block in stack for p in block.parameters())
    assert head_share(stack) == head / blocks


@pytest.mark.usefixtures("slow")
def test_a_long_evaluation_says_what_it_will_cost() -> None:
    reader = Reader(Reader.Config(tasks=("a", "bb")))
    (line,) = announced(reader, others=3)
    each = 2 * (8000 + 0.5 * 8000) * 0.005
    assert line == (
        f"reader: 2 tasks, 20 documents, some 16,000 tokens for each of 4 models: about {4 * each / 60:.0f} min; "
        "--limit measures on fewer documents"
    )
    (again,) = announced(reader, others=3)
    assert f"3 models: about {3 * each / 60:.0f} min" in again  # the intact model's metrics are known
    (half,) = announced(Reader(Reader.Config(tasks=("bb", "new"))))
    assert f"16,000 tokens: about {each / 2:.0f} s; --limit" in half
    assert announced(reader) == []
    (searched,) = announced(reader, tried=True)
    assert f"16,000 tokens: about {each / 60:.0f} min for each model that is tried; --limit" in searched


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("cls", [Tongueless, Failing])
def test_what_is_not_known_is_not_said(cls: type[Reader]) -> None:
    assert announced(cls(cls.Config(tasks=("a",))), others=3) == []


def test_a_short_evaluation_is_quiet(layerimp_command: Run, model_dir: Path, task: Path, monkeypatch: Any) -> None:
    arguments = ["evaluate", "--model", model_dir, "--tasks", task, "--evaluator", "harness", "--json"]
    assert "--limit" not in layerimp_command(*arguments)[2]
    monkeypatch.setattr(cost, "QUICK", 0.0)
    monkeypatch.setattr(cost, "LONG", 0.0)
    code, _, err = layerimp_command(*arguments, "--limit", 5)
    assert code == 0
    assert "note: harness: 1 task, 5 documents, some " in err
    assert "; --limit measures on fewer documents" in err
