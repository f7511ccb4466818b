"""How the starter was made: its text is right and kept apart, and its training can be interrupted."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import layerimp_starter
import pytest
import torch
import train
import write_sets
from corpus import Document, Kind, draw
from corpus.words import BLAME, CONTAINERS, PEOPLE, PLACES, PRAISE
from document_form import QUESTION, pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

KINDS: tuple[Kind, ...] = ("stories", "sentiment", "questions")


def shipped(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (layerimp_starter.DATA / f"{name}.jsonl").read_text().splitlines()]


def test_the_shipped_text_is_what_the_generator_gives() -> None:
    for name, rows in write_sets.rows().items():
        assert shipped(name) == rows, name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_evaluated_is_trained_or_calibrated_on(kind: Kind) -> None:
    evaluated = {row["text"] for row in shipped(kind)}
    assert all(Document(text).held_out for text in evaluated)
    seen = [document for seed in range(3) for document in islice(draw(kind, seed, held_out=False), 3000)]
    assert not any(document.held_out for document in seen)
    assert not evaluated.intersection(document.text for document in seen)
    calibrated = [row["text"] for row in shipped("calibration")]
    assert not any(text in line for text in evaluated for line in calibrated)


@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_are_drawn_the_same_way_from_the_same_seed(kind: Kind) -> None:
    for held_out in (True, False):
        first, again, other = (list(islice(draw(kind, seed, held_out=held_out), 5)) for seed in (4, 4, 5))
        assert first == again != other


PERSON, PLACE, BOX = ("|".join(words) for words in (PEOPLE, PLACES, CONTAINERS))
FACTS = {
    "note of where": rf"(?P<who>{PERSON}) (?P<where>{PLACE})",
    "note of who": rf"(?P<what>[a-z ]+) (?P<who>{PERSON})",
    "note of what": rf"(?P<what>[a-z ]+) (?P<box>{BOX})",
    "gave": r"\w+ (?:gave|handed) the (?P<what>.+) to (?P<who>\w+)",
    "got": r"(?P<who>\w+) got the (?P<what>.+) from \w+",
    "at": r"(?P<who>[A-Z]\w+) (?:is at|went to|is waiting at) the (?P<where>.+)",
    "find": r"You can find (?P<who>\w+) at the (?P<where>.+)",
    "has": r"(?P<who>[A-Z]\w+) (?:has|took|is holding) the (?P<what>.+)",
    "with": r"The (?P<what>.+) is with (?P<who>\w+)",
    "in": r"(?:The|Someone put the) (?P<what>.+?) (?:is )?in the (?P<box>\w+)",
    "holds": r"The (?P<box>\w+) holds the (?P<what>.+)",
}


def answered(passage: str, question: str) -> str:
    """The answer, from the passage's sentences alone, in order."""
    place, owner, box = {}, {}, {}
    for sentence in passage.rstrip(".").split(". "):
        facts = next(m.groupdict() for p in FACTS.values() if (m := re.fullmatch(p, sentence)))
        if "where" in facts:
            place[facts["who"]] = facts["where"]
        elif "box" in facts:
            box[facts["what"]] = facts["box"]
        else:
            owner[facts["what"]] = facts["who"]
    if person := re.fullmatch(r"Where is ([A-Z]\w+)\?", question):
        return f"the {place[person[1]]}"
    item = re.fullmatch(r"(?:Where is|Who has) the (.+)\?", question)
    assert item
    keeper = owner[box.get(item[1], item[1])]
    return keeper if question.startswith("Who") else f"the {place[keeper]}"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_answers_follow_from_their_passage(seed: int, level: float) -> None:
    for passage in islice(draw("questions", seed, held_out=False, level=level), 5):
        for question, answer in passage.asked:
            assert answered(passage.text, question) == answer, (passage.text, question)


def test_the_evaluated_questions_need_several_facts() -> None:
    rows = shipped("questions")
    assert all(answered(row["text"], row["question"]) == row["answer"] for row in rows)
    assert all(row["question"].startswith("Where is the ") for row in rows)


NEGATIONS = ("not", "never", "anything but", "nobody", "doubt")


def verdict(review: str) -> str:
    """The sentiment, by counting the negations of the clause that decides."""
    claim = review.split(". ")[-1].rstrip(".")
    claim = claim[0].lower() + claim[1:]
    claim = claim.removeprefix("not only that: ")
    thought = r"I thought that the [\w ]+ would be (\w+), and it was"
    claim = re.sub(thought, r"it was \1", claim, flags=re.IGNORECASE)
    claim = re.sub(r"it was (\w+) not\b", r"it was not \1", claim)
    if claim.startswith(("although ", "while ")):
        claim = claim.split(", ", 1)[1]
    elif ", although " in claim or ", even though " in claim:
        claim = re.split(r", (?:although|even though) ", claim)[0]
    elif ", but " in claim or "; still, " in claim:
        claim = re.split(r", but |; still, ", claim)[1]
    else:
        claim = re.split(r", and |; also, ", claim)[-1]
    turns = sum(len(re.findall(rf"\b{word}\b", claim, flags=re.IGNORECASE)) for word in NEGATIONS)
    (word,) = [word for word in re.findall(r"\w+", claim) if word in PRAISE + BLAME]
    return "positive" if (word in PRAISE) ^ (turns % 2 == 1) else "negative"


def test_verdicts_follow_from_their_review() -> None:
    for review in islice(draw("sentiment", 9, held_out=False), 2000):
        ((_, label),) = review.asked
        assert verdict(review.text) == label, review.text
    rows = shipped("sentiment")
    assert all(("negative", "positive")[row["label"]] == verdict(row["text"]) for row in rows)
    assert 0.4 < sum(row["label"] for row in rows) / len(rows) < 0.6


def test_a_prompt_is_encoded_as_in_training() -> None:
    tokenizer = AutoTokenizer.from_pretrained(layerimp_starter.MODEL)
    for kind in KINDS:
        for document in islice(draw(kind, 1, held_out=True), 20):
            parts = [piece.text for piece in pieces(kind, document)]
            apart = [token for ids in tokenizer(parts, add_special_tokens=False)["input_ids"] for token in ids]
            assert tokenizer("".join(parts))["input_ids"] == [tokenizer.bos_token_id, *apart]
    row = shipped("questions")[0]
    prompt = row["text"] + QUESTION.format(question=row["question"])
    assert (layerimp_starter.TASKS / "starter_qa.yaml").read_text().count(r"{{text}}\nQuestion: {{question}}\nAnswer:")
    assert prompt.endswith("\nAnswer:")


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(directory / "model").state_dict()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "ROWS", 2)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(train, "TOKENIZER_DOCUMENTS", 200)
    monkeypatch.setattr(train, "_scores", lambda *_: "")


@pytest.mark.usefixtures("short")
@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.train(tmp_path / "whole", steps=4)
    real, calls = train.loss_of, []

    def interrupted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(train, "loss_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(tmp_path / "parts", steps=4)
    train.train(tmp_path / "parts", steps=4)
    assert len(calls) == 4 + 2  # steps 2 and 3 once more
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(Exception, match="of another run: steps 4, seed 0"):
        train.train(tmp_path / "parts", steps=5)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_each_question_stands_alone_after_its_passage(level: float) -> None:
    """What the last token of a text sees is that text, counted from 0, and no other question."""
    tokenizer = train.make_tokenizer(0)
    step = train.make_step(tokenizer, 0, 0, level)
    texts = []
    for row, last in ((step.ids == tokenizer.eos_token_id) & (step.weights > 0)).nonzero().tolist():
        seen = step.mask[row, 0, last]
        assert step.positions[row, seen].tolist() == list(range(int(seen.sum())))
        texts.append(tokenizer.decode(step.ids[row, seen][1:-1]))
        assert tokenizer(texts[-1])["input_ids"] == step.ids[row, seen].tolist()[:-1]
    questions = [text for text in texts if "\nQuestion: " in text]
    assert questions
    for text in questions:
        passage, question = text.split("\nQuestion: ")
        question, answer = question.split("\nAnswer: ")
        assert answered(passage, question) == answer
    assert any("\nSentiment: " in text for text in texts)
    assert not step.mask.triu(1).any()


def test_a_list_is_said_twice_and_learnt_once() -> None:
    (document,) = islice(draw("lists", 0, held_out=False), 1)
    first, second = pieces("lists", document)
    assert first.text == second.text == f" {document.text}"
    assert first.weight == 0 < second.weight


def test_the_loss_is_the_weighted_mean() -> None:
    model = train.make_model(64, 0)
    ids = torch.arange(2, 14).view(2, 6)
    weights = torch.tensor([[0, 1, 0, 2, 0.5, 0], [0, 0, 3, 1, 1, 1]])
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    step = train.Step(ids, weights, mask, torch.arange(6).expand(2, 6))
    logs = model(ids).logits.log_softmax(-1)
    expected = -sum(weights[r, t] * logs[r, t - 1, ids[r, t]] for r in range(2) for t in range(1, 6)) / weights.sum()
    assert torch.allclose(train.loss_of(model, step), expected, atol=1e-5)
