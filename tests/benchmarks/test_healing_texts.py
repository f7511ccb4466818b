"""The trial of texts to train on: what each text holds, and that finished lines are kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import healing_texts
import pytest
import torch
import typer
from layerimp_distill.training import Training
from training_texts import AT_ONCE, TEXTS, Source
from transformers import PreTrainedTokenizerBase

from layerimp.calibration import FurtherText
from layerimp.testing import tiny_model, tiny_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ '<s>' if m.role == 'user' else '' }} {{ m.content }} </s>{% endfor %}"
    "{% if add_generation_prompt %} was{% endif %}"
)


def source(*, seconds: float = math.inf, room: int = 40) -> Source:
    words = "good bad yes no the a cat dog sat ran on mat is was it film great awful and of to".split()
    documents = [" ".join(words[start:] + words[:start] + words) for start in range(6)]
    tokenizer: PreTrainedTokenizerBase = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return Source([*documents, "the cat"], tiny_model(), tokenizer, room, seconds)


def rows(name: str, given: Source, tmp_path: Path) -> list[list[int]]:
    """The token ids that training reads, without special tokens."""
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in TEXTS[name](given)))
    length = given.room + given.tokenizer.num_special_tokens_to_add()
    read = FurtherText(str(path), given.tokenizer, max_length=length, packing="rows")
    special = set(given.tokenizer.all_special_ids)
    return [[id for id in row.tolist() if id not in special] for batch in read for row in batch["input_ids"]]


def test_a_row_holds_the_first_part_of_a_document_twice(tmp_path: Path) -> None:
    given = source()
    expected = [given.tokenizer(text, add_special_tokens=False)["input_ids"] for text in given.documents[:-1]]
    assert rows("repeated", given, tmp_path) == [2 * ids[:20] for ids in expected]
    turns = [2 * ids[:20] if number % 2 else ids[:40] for number, ids in enumerate(expected)]
    assert rows("mixed", given, tmp_path) == turns
    assert list(TEXTS["plain"](given)) == given.documents


def test_the_intact_model_goes_on_from_the_beginnings(tmp_path: Path) -> None:
    given = source()
    before = given.model.generation_config
    torch.manual_seed(0)
    texts = list(TEXTS["own"](given))
    assert given.model.generation_config is before
    assert len(texts) == len(given.documents) - 1, "a document with fewer tokens gives none"
    for text, document in zip(texts, given.documents, strict=False):
        beginning = given.tokenizer.decode(given.tokenizer(document, add_special_tokens=False)["input_ids"][:32])
        assert text.startswith(beginning)
    torch.manual_seed(0)
    assert list(TEXTS["own"](given)) == texts
    torch.manual_seed(1)
    assert list(TEXTS["own"](given)) != texts


def test_answers_stand_in_the_chat_template() -> None:
    given = source(room=60)
    for text, document in zip(TEXTS["chat"](given), given.documents, strict=False):
        beginning = given.tokenizer.decode(given.tokenizer(document, add_special_tokens=False)["input_ids"][:32])
        assert text.startswith(f"<s> {beginning} </s> ")
        assert text.endswith(" </s>")


def test_generation_ends_in_time() -> None:
    given = source(seconds=0)
    assert list(TEXTS["own"](given)) == []
    assert len(given.documents) < AT_ONCE


def test_it_goes_on_where_it_stopped(
    model_dir: Path,
    calibration_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No training here: what is healed is the repair by `linear`, whatever the text."""
    other, results, trainings = tmp_path / "other.jsonl", tmp_path / "results.jsonl", list[Any]()
    heal_text = tmp_path / "heal.jsonl"
    lines = calibration_file.read_text().splitlines()
    other.write_text("\n".join(lines[:10]))
    heal_text.write_text("\n".join(lines[10:]))
    monkeypatch.setattr(Training, "run", lambda self: trainings.append(self._limits.minutes))
    asked: dict[str, Any] = {"calibration": str(heal_text), "heal_text": str(heal_text), "text": str(other)}
    asked |= {"samples": 8, "max_length": 32, "rows": 4, "results": results, "folder": tmp_path, "minutes": 60.0}
    for draws, variants, count in ((1, ["linear", "plain"], 2), (2, ["linear", "plain"], 4), (1, ["longer"], 5)):
        healing_texts.main(str(model_dir), "1", variant=variants, draws=draws, **asked)
        found = [json.loads(line) for line in results.read_text().splitlines()]
        assert len(found) == count
    assert len(trainings) == 3
    assert all(0 < minutes < 60 for minutes in trainings), "what the text took comes off"
    first, untrained = found[1], found[0]
    assert first["fidelity"]["divergence"] == untrained["fidelity"]["divergence"]
    made = [json.loads(line)["text"] for line in (tmp_path / "plain-0.jsonl").read_text().splitlines()]
    assert set(made) < {json.loads(line)["text"] for line in lines[10:]}, "without what was calibrated and judged on"
    assert first["documents"] == len(made)
    assert "longer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variant", "why"), [("chats", "'chats' is not one of linear, plain"), ("chat", "has no chat template")]
)
def test_what_cannot_be_tried_is_said(model_dir: Path, calibration_file: Path, variant: str, why: str) -> None:
    texts = dict.fromkeys(("calibration", "heal_text", "text"), str(calibration_file))
    with pytest.raises(typer.BadParameter, match=why):
        healing_texts.main(str(model_dir), "1", variant=[variant], **texts)
