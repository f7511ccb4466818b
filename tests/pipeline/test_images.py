"""A run on a model that sees: scored, sized, pruned and healed on text, and everything beside the blocks stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import zoo
from support.mood import Run
from support.offloaded import saved
from transformers import AutoModelForImageTextToText


def test_a_run(layerimp_command: Run, calibration_file: Path, tmp_path: Path) -> None:
    model: Any = zoo.build("llava", "image")
    source = saved(model, tmp_path / "model")
    shutil.copy(calibration_file, source / "chat_template.jinja")  # whatever it holds
    text = ["--calibration", calibration_file, "--samples", 8, "--max-length", 16]
    wanted = ["--scorer", "block-influence", "--target", "parameters=0.9", "--heal", "linear", "--tasks", "none"]
    code, _, err = layerimp_command("run", "--model", source, *text, *wanted, "--output", tmp_path / "out")
    assert code == 0, err
    assert "also reads images, and all text here is without: what it sees is not measured" in err
    language = sum(one.numel() for part in (model.model.language_model, model.lm_head) for one in part.parameters())
    assert f"targets count the whole model; its language model has {language:,} of {model.num_parameters():,}" in err
    before = AutoModelForImageTextToText.from_pretrained(source).state_dict()
    checkpoints = sorted((tmp_path / "out" / "checkpoints").iterdir())
    assert [place.name for place in checkpoints] == ["block-influence", "block-influence+linear"]
    for place in checkpoints:
        assert (place / "chat_template.jinja").read_bytes() == calibration_file.read_bytes()
        after = AutoModelForImageTextToText.from_pretrained(place).state_dict()
        for name, tensor in after.items():
            assert "language_model.layers" in name or torch.equal(tensor, before[name])
