"""A run on a model that sees: scored, sized, pruned and healed on text, and everything beside the blocks stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from support import seeing
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
    assert "also reads images, and the text that it is measured on is without: what it sees is not measured" in err
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


def test_a_run_on_text_with_images(layerimp_command: Run, tmp_path: Path) -> None:
    seeing.save(tmp_path / "model")
    documents = [(f"the cat sat w{n % 40} on the mat w{n % 30} in the house", [n] if n % 2 else []) for n in range(48)]
    text = seeing.write_documents(tmp_path / "text.jsonl", documents)
    given = ["--model", tmp_path / "model", "--calibration", text, "--packing", "rows", "--samples", 8]
    wanted = ["--blocks", 2, "--heal", "linear", "--tasks", "none", "--json"]
    out, err = layerimp_command.done("run", *given, *wanted, "--max-length", 40)
    assert "what it sees is not measured" not in err
    (model,) = json.loads(out)["models"].values()
    known = [pruned["fidelity"]["with_images"] for removal in model["removals"] for pruned in removal["models"]]
    assert len(known) >= 2
    assert all(0 < each["rows"] < 12 and each["divergence"]["mean"] > 0 for each in known)
    code, out, err = layerimp_command("run", *given, *wanted, "--max-length", 12)
    assert code == 2
    assert "it needs 18 tokens with its images, and rows have 12; ask for longer ones (--max-length 18 or more)" in err


def test_scores_without_the_tokens_of_images(layerimp_command: Run, tmp_path: Path) -> None:
    seeing.save(tmp_path / "model")
    text = seeing.write_documents(tmp_path / "text.jsonl", seeing.TEXTS)
    given = ["--model", tmp_path / "model", "--calibration", text, "--packing", "rows", "--samples", 8, "--json"]
    ways = ([], ["--skip-image-tokens"])
    outs = [layerimp_command("score", *given, "--scorer", "block-influence", "--max-length", 40, *way) for way in ways]
    assert [code for code, *_ in outs] == [0, 0]
    documents = [next(iter(json.loads(out)["models"].values())) for _, out, _ in outs]
    first, second = (each["scored"]["block-influence"]["scores"][0] for each in documents)
    assert all(counted != skipped for counted, skipped in zip(first, second, strict=True))


def test_a_removal_without_a_video_says_so(
    layerimp_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = seeing.save(tmp_path / "model", "qwen2_5_vl")
    monkeypatch.setattr(type(model.model), "get_video_features", None)
    _, err = layerimp_command.done("prune", "--model", tmp_path / "model", "--blocks", 1, "--output", tmp_path / "out")
    assert "model: it also reads video, which layerimp cannot make up: removals are not tried with it" in err
