"""A run on a model that sees: scored, sized, pruned and healed on text, and everything beside the blocks stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from support.mood import Run
from support.tiny import saved
from transformers import AutoModelForImageTextToText


def test_a_run(layerimp_command: Run, calibration_file: Path, tmp_path: Path) -> None:
    model: Any = zoo.build("llava", "image")
    source = saved(model, tmp_path / "model")
    shutil.copy(calibration_file, source / "chat_template.jinja")  # whatever it holds
    text = ["--calibration", calibration_file, "--samples", 8, "--max-length", 16]
    wanted = ["--scorer", "block-influence", "--target", "parameters=0.9", "--heal", "linear", "--tasks", "none"]
    _, err = layerimp_command.done("run", "--model", source, *text, *wanted, "--output", tmp_path / "out")
    assert "removals are not tried with it" not in err
    assert "also reads images: it is measured on text alone" in err
    language = sum(
        parameter.numel() for part in (model.model.language_model, model.lm_head) for parameter in part.parameters()
    )
    assert f"targets count the whole model; its language model has {language:,} of {model.num_parameters():,}" in err
    before = AutoModelForImageTextToText.from_pretrained(source).state_dict()
    checkpoints = sorted((tmp_path / "out" / "checkpoints").iterdir())
    assert [place.name for place in checkpoints] == ["block-influence", "block-influence+linear"]
    for place in checkpoints:
        assert (place / "chat_template.jinja").read_bytes() == calibration_file.read_bytes()
        after = AutoModelForImageTextToText.from_pretrained(place).state_dict()
        for name, tensor in after.items():
            assert "language_model.layers" in name or torch.equal(tensor, before[name])


@pytest.mark.parametrize("option", ["--calibration", "--heal-text", "--set"])
def test_a_row_with_an_image_is_refused(
    option: str, layerimp_command: Run, calibration_file: Path, tmp_path: Path
) -> None:
    source = saved(zoo.build("llava", "image"), tmp_path / "model")
    text = tmp_path / "photos.jsonl"
    text.write_text(calibration_file.read_text() + '{"text": "a cat", "image": "cat.png"}\n')
    lines = len(text.read_text().splitlines())
    given = {"--calibration": calibration_file, "--heal-text": calibration_file, "--set": "fidelity.rows=4"}
    given[option] = f"fidelity.text={text}" if option == "--set" else text
    wanted = ["--samples", 8, "--max-length", 16, "--blocks", 1, "--heal", "distill", "--tasks", "none"]
    code, out, err = layerimp_command(
        "run", "--model", source, *wanted, *(each for pair in given.items() for each in pair)
    )
    assert (code, out) == (2, "")
    assert f"{text}, line {lines}: a row with the field 'image', and only text is read; leave the row out" in err


def test_a_removal_without_a_video_says_so(
    layerimp_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = zoo.build("qwen2_5_vl", "image")
    saved(model, tmp_path / "model")
    monkeypatch.setattr(type(model.model), "get_video_features", None)
    _, err = layerimp_command.done("prune", "--model", tmp_path / "model", "--blocks", 1, "--output", tmp_path / "out")
    assert "model: it also reads video, which layerimp cannot make up: removals are not tried with it" in err
