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

import layerimp
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
    shares, heal = [], layerimp.heal
    heal_text = tmp_path / "heal.jsonl"
    lines = calibration_file.read_text().splitlines()
    other.write_text("\n".join(lines[:10]))
    heal_text.write_text("\n".join(lines[10:]))
    monkeypatch.setattr(Training, "run", lambda self: trainings.append(self._limits.minutes))

    def healed(*args: Any, **how: Any) -> Any:
        shares.append(how.get("repeated"))
        return heal(*args, **how)

    monkeypatch.setattr(layerimp, "heal", healed)
    asked: dict[str, Any] = {"calibration": str(heal_text), "heal_text": str(heal_text), "text": str(other)}
    asked |= {"samples": 8, "max_length": 32, "rows": 4, "results": results, "folder": tmp_path, "minutes": 60.0}
    further = ["longer", "repeated", "mixed"]
    for draws, variants, count in ((1, ["linear", "plain"], 2), (2, ["linear", "plain"], 4), (1, further, 7)):
        healing_texts.main(str(model_dir), "1", variant=variants, draws=draws, **asked)
        kept = [json.loads(line) for line in results.read_text().splitlines()]
        assert len(kept) == count
    assert len(trainings) == 5
    assert shares == [None, 0, None, 0, 0, 1, None], "what distill repeats; by default in `mixed`"
    assert all(0 < minutes < 60 for minutes in trainings), "what the text took comes off"
    first, untrained = kept[1], kept[0]
    assert first["fidelity"]["divergence"] == untrained["fidelity"]["divergence"]
    written = [json.loads(line)["text"] for line in (tmp_path / "plain-0.jsonl").read_text().splitlines()]
    assert set(written) < {json.loads(line)["text"] for line in lines[10:]}, "without what was calibrated and judged on"
    assert first["documents"] == len(written)
    texts = [(tmp_path / f"{name}-0.jsonl").read_text() for name in ("plain", "repeated", "mixed")]
    assert len(set(texts)) == 1
    assert "longer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variant", "why"), [("chats", "'chats' is not one of linear, plain"), ("chat", "has no chat template")]
)
def test_what_cannot_be_tried_is_said(model_dir: Path, calibration_file: Path, variant: str, why: str) -> None:
    texts = dict.fromkeys(("calibration", "heal_text", "text"), str(calibration_file))
    with pytest.raises(typer.BadParameter, match=why):
        healing_texts.main(str(model_dir), "1", variant=[variant], **texts)
