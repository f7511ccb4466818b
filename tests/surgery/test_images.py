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
from layerimp.blocks.equivalence import probes, text_probe
from layerimp.blocks.modalities import AUDIO, IMAGE, VIDEO, Modality, made_up
from layerimp.checkpoint import saving
from layerimp.errors import SurgeryError
from layerimp.surgery import removal as surgery

EXACT = ["gemma3"]
ALSO = "llava qwen3_5 emu3 internvl mistral3 paligemma qwen2_5_vl smolvlm".split()
PART = [0, zoo.BLOCKS // 2, zoo.BLOCKS - 1]


@pytest.fixture(scope="session")
def built() -> Callable[[str], Any]:
    """Builds a tiny model of a type, each time a new one."""
    return lambda kind: zoo.build(kind, "image")


@pytest.mark.parametrize("kind", [*EXACT, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ALSO)])
def test_a_removal_is_exact(kind: str) -> None:
    trial = removal.try_all(kind, "image", scorers=["block-influence"], cases=[PART])
    assert not trial.built
    assert "language_model" in trial.path or "text_model" in trial.path
    assert [(case.outcome, case.said) for case in trial.cases] == [("exact", "")]
    assert not trial.scorers


def test_features_at_the_first_blocks_are_not_shifted(built: Callable[[str], Any]) -> None:
    """The blocks after which features of images are put in, by number, stay; the others go."""
    model = built("qwen3_vl")
    said = r"with an image .*after blocks 0, 1, 2, counted from the first, so that only blocks from 3 on can be removed"
    with pytest.raises(SurgeryError, match=said):
        layerimp.prune(model, [1])
    assert removal.try_removal(lambda: built("qwen3_vl"), "image", [3]).outcome == "exact"


def test_text_alone_would_not_notice(built: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the probe with an image, the blocks that features are put in after would be removed, and wrongly."""
    for place in (surgery, saving):
        monkeypatch.setattr(place, "probes", lambda stack: [text_probe(stack)])
    case = removal.try_removal(lambda: built("qwen3_vl"), "image", [1])
    assert case.outcome == "wrong"
    assert "with an image" in case.said


def test_a_model_that_does_not_run_on_text_alone_is_refused(built: Callable[[str], Any]) -> None:
    for kind in ("blip", "blip-2"):  # an image can be made up for the first, and not for the second
        with pytest.raises(SurgeryError, match=r"cannot run on a few tokens: .*'pixel_values'"):
            layerimp.prune(built(kind), [1])


@pytest.mark.parametrize(
    ("kind", "modality", "arguments"),
    [
        ("chameleon", IMAGE, "pixel_values"),  # whose image token stands in its map of words alone
        ("granite_docling", IMAGE, "pixel_values pixel_attention_mask"),
        ("granite4_vision", IMAGE, "pixel_values image_sizes"),  # whose features all go to later blocks
        ("llava_onevision", VIDEO, "pixel_values_videos"),  # with a token more than its patches have
        ("minicpmv4_6", VIDEO, "pixel_values_videos target_sizes_videos"),
        ("gemma4", VIDEO, "pixel_values_videos video_position_ids num_frames_per_video mm_token_type_ids"),
        (
            "glm5_next",
            VIDEO,
            "pixel_values_videos video_grid_thw mm_token_type_ids",
        ),  # in place of images
        ("qwen3_vl", VIDEO, "pixel_values_videos video_grid_thw mm_token_type_ids"),  # whose frames stand apart
        ("gemma4", AUDIO, "input_features input_features_mask mm_token_type_ids"),
        ("muse_spark", AUDIO, "input_values"),
    ],
)
def test_an_input_is_made_up(kind: str, modality: Modality, arguments: str, built: Callable[[str], Any]) -> None:
    inputs = made_up(layerimp.find_blocks(built(kind)), modality)
    assert inputs is not None
    assert inputs.keys() == {"input_ids", "attention_mask", *arguments.split()}


def test_an_image_that_changes_nothing_is_no_image(built: Callable[[str], Any]) -> None:
    model = built("llava")
    stack = layerimp.find_blocks(model)
    assert made_up(stack, IMAGE) is not None
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.zero_()
    assert made_up(stack, IMAGE) is None
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


def by_hand(model: Any) -> dict[str, dict[str, Any]]:
    """Rows of text with an image, a video of two frames and audio, for the tiny Qwen models that take them."""
    config, draw = model.config, torch.Generator().manual_seed(3)
    start = config.vision_start_token_id
    patches, grid = 2 * 3 * 8 * 8, {"image_grid_thw": [[1, 4, 4]], "video_grid_thw": [[2, 4, 4]]}
    seconds = {"video_second_per_grid": torch.tensor([1.0])} if hasattr(config, "audio_config") else {}
    rows: dict[str, dict[str, Any]] = {
        "an image": {"pixel_values": torch.randn(16, patches, generator=draw)},
        "a video": {"pixel_values_videos": torch.randn(32, patches, generator=draw), **seconds},
    }
    marks = {"an image": [start, *[config.image_token_id] * 4], "a video": [start, *[config.video_token_id] * 8]}
    for row, name in zip(rows.values(), grid, strict=True):
        row[name] = torch.tensor(grid[name])
    if seconds:
        heard = torch.ones((1, 40), dtype=torch.long)
        rows["audio"] = {"input_features": torch.randn(1, 128, 40, generator=draw), "feature_attention_mask": heard}
        marks["audio"] = [config.audio_start_token_id, *[config.audio_token_id] * 10]
    for kind, (what, row) in enumerate(rows.items(), start=1):
        ids = torch.tensor([[5, 6, *marks[what], 7, 8, 9, 10, 11]])
        row |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if not seconds:
            row["mm_token_type_ids"] = torch.where((ids > 80) & (ids != start), kind, 0)
    return rows


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen2_5_omni_thinker"])
def test_video_and_audio_go_past_removed_blocks(kind: str, built: Callable[[str], Any], tmp_path: Path) -> None:
    model = built(kind)
    rows = by_hand(model)
    assert len({tuple(removal.logits_of(model, row)[0, -1].tolist()) for row in rows.values()}) == len(rows)
    with removal.bypassing([layerimp.find_blocks(model)[index] for index in (0, 3)]):
        expected = {what: removal.logits_of(model, row) for what, row in rows.items()}
        generated = {what: removal.generated(model, row, use_cache=False) for what, row in rows.items()}
    assert [probe.named for probe in probes(layerimp.find_blocks(model))] == ["", *(f" with {what}" for what in rows)]
    layerimp.save(layerimp.prune(model, [0, 3]), None, tmp_path / "out")
    loaded = type(model).from_pretrained(tmp_path / "out").eval()
    for what, row in rows.items():
        torch.testing.assert_close(removal.logits_of(loaded, row), expected[what], rtol=0, atol=1e-4)
        torch.testing.assert_close(removal.generated(loaded, row, use_cache=True), generated[what], rtol=0, atol=1e-4)


def test_what_only_a_video_shows_is_noticed(built: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that puts features of videos in at later blocks by number, and not those of images."""
    model = built("qwen3_vl")
    read = model.model.get_image_features

    def flattened(pixel_values: Any, image_grid_thw: Any, **options: Any) -> Any:
        output = read(pixel_values, image_grid_thw, **options)
        if (image_grid_thw[:, 0] == 1).all():
            output.deepstack_features = [[0 * part for part in group] for group in output.deepstack_features]
        return output

    monkeypatch.setattr(model.model, "get_image_features", flattened)
    with pytest.raises(SurgeryError, match=r"with a video .*after blocks 0, 1, 2, counted from the first"):
        layerimp.prune(model, [1])


def test_a_video_that_cannot_be_made_up(built: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal is proved with images alone, and says so."""
    model = built("qwen2_5_vl")
    assert not surgery.prepare(layerimp.find_blocks(model), [1]).untried
    monkeypatch.setattr(type(model.model), "get_video_features", None)
    stack = layerimp.find_blocks(model)
    assert made_up(stack, VIDEO) is None
    assert surgery.prepare(stack, [1]).untried == [VIDEO]
    layerimp.prune(model, [1])


@pytest.mark.parametrize("kind", ["got_ocr2", "gemma4"])
def test_parts_that_compute_attention_in_their_own_way(kind: str, built: Callable[[str], Any], tmp_path: Path) -> None:
    """The checkpoint is compared as the stock class loads it, which chooses the attention of each part by itself."""
    model = built(kind)
    parts = (part for part in vars(model.config).values() if hasattr(part, "to_diff_dict"))
    assert {part._attn_implementation for part in parts} == {"eager", "sdpa"}
    layerimp.save(layerimp.prune(model, [0]), None, tmp_path / "out")
