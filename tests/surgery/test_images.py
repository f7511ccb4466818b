"""Blocks of the language model inside a model that sees: found, removed exactly or refused, and proved with images."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import removal
import torch
import zoo

import layerimp
from layerimp.blocks.equivalence import text_probe
from layerimp.blocks.modalities import made_up_images
from layerimp.checkpoint import saving
from layerimp.errors import SurgeryError
from layerimp.steps import Step
from layerimp.surgery import removal as surgery

EXACT = "gemma3 llava qwen3_5".split()
ALSO = "emu3 internvl mistral3 paligemma qwen2_5_vl smolvlm".split()
PART: list[Step] = [0, zoo.BLOCKS // 2, zoo.BLOCKS - 1]


@pytest.fixture(scope="session")
def built() -> Callable[[str], Any]:
    """Builds a tiny model of a type, each time a new one."""
    return lambda kind: zoo.build(kind, "image")


@pytest.mark.parametrize("kind", [*EXACT, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ALSO)])
def test_a_removal_is_exact(kind: str) -> None:
    trial = removal.try_all(kind, "image", scorers=["block-influence"], cases=[[*PART[:1], "2/3", PART[-1]]])
    assert not trial.built
    assert "language_model" in trial.path or "text_model" in trial.path
    assert [(case.outcome, case.said) for case in (*trial.cases, *trial.seams)] == [("exact", "")]
    assert not trial.scorers


def test_features_at_the_first_blocks_are_not_shifted(built: Callable[[str], Any]) -> None:
    """The blocks after which features of images are put in, by number, stay; the others go."""
    model = built("qwen3_vl")
    said = r"with an image .*after blocks 0, 1, 2, counted from the first, so that only blocks from 3 on can be removed"
    for step in (1, "2/3"):
        with pytest.raises(SurgeryError, match=said):
            layerimp.prune(model, [step])
    assert removal.try_removal(lambda: built("qwen3_vl"), "image", [3]).outcome == "exact"


def test_text_alone_would_not_notice(built: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the probe with an image, the blocks that features are put in after would be removed, and wrongly."""
    for place in (surgery, saving):
        monkeypatch.setattr(place, "probes", lambda stack: [text_probe(stack)])
    case = removal.try_removal(lambda: built("qwen3_vl"), "image", [1])
    assert case.outcome == "wrong"
    assert "with 1 image" in case.said


def test_a_model_that_does_not_run_on_text_alone_is_refused(built: Callable[[str], Any]) -> None:
    for kind in ("blip", "blip-2"):  # an image can be made up for the first, and not for the second
        with pytest.raises(SurgeryError, match=r"cannot run on a few tokens: .*'pixel_values'"):
            layerimp.prune(built(kind), [1])


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("chameleon", {"pixel_values"}),  # whose image token stands in its map of words alone
        ("granite_docling", {"pixel_values", "pixel_attention_mask"}),
        ("granite4_vision", {"pixel_values", "image_sizes"}),  # whose features all go to later blocks
    ],
)
def test_an_image_is_made_up(kind: str, arguments: set[str], built: Callable[[str], Any]) -> None:
    inputs = made_up_images(layerimp.find_blocks(built(kind)))
    assert inputs is not None
    assert inputs.keys() == {"input_ids", "attention_mask"} | arguments


def test_an_image_that_changes_nothing_is_no_image(built: Callable[[str], Any]) -> None:
    model = built("llava")
    stack = layerimp.find_blocks(model)
    assert made_up_images(stack) is not None
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.zero_()
    assert made_up_images(stack) is None
    with pytest.raises(SurgeryError, match="reads images in a form that layerimp cannot make up"):
        layerimp.prune(model, [1])


def test_other_parts_and_files_stay(built: Callable[[str], Any], tmp_path: Path) -> None:
    source = tmp_path / "source"
    built("gemma3").save_pretrained(source)
    extra = {
        "preprocessor_config.json": '{"a":  1}',
        "chat_template.jinja": "{{ x }}\n",
        "generation_config.json": "{ }",
    }
    for name, text in extra.items():
        (source / name).write_text(text)
    model = type(built("gemma3")).from_pretrained(source)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "language_model" not in name}
    layerimp.save(layerimp.prune(model, [2]), None, tmp_path / "out")
    assert not [name for name in extra if not filecmp.cmp(source / name, tmp_path / "out" / name, shallow=False)]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == zoo.BLOCKS - 1
    assert config["architectures"] == ["Gemma3ForConditionalGeneration"]
    after = type(model).from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
