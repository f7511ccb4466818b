"""Tiny models that see, saved with their processors, and documents with images drawn for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zoo
from PIL import Image, ImageDraw
from transformers import AutoProcessor, Gemma3Processor, LlavaProcessor, Qwen2_5_VLProcessor
from transformers.utils import is_torchvision_available

from layerimp.blocks.modalities import image_token
from layerimp.calibration import ImageReader, load_calibration
from layerimp.testing import VOCAB, tiny_tokenizer

IMAGE = "<image>"
IMAGE_TOKEN = VOCAB
"""The id of the image token: the first after those of the tiny tokenizer's words."""
SIDE, PATCH = 32, 8
PLACES = (SIDE // PATCH) ** 2
"""The tokens that an image takes in LLaVA's text."""


def save(directory: Path, kind: str = "llava") -> Any:
    """Save a tiny model of a type with its processor, and return the model."""
    processor, changes = _KINDS[kind]()
    config: Any = zoo.config_of(kind, **changes)
    config.text_config.vocab_size = VOCAB + 4  # the processors' own tokens
    model: Any = zoo.build(kind, "image", config)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return model


def _tokenizer(**special: str) -> Any:
    """The tiny tokenizer with more special tokens, whose ids follow those of its words."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE, *special.values()]})
    tokenizer._set_model_specific_special_tokens({"image_token": IMAGE, **special})
    return tokenizer


def _llava() -> tuple[Any, dict[str, Any]]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    options: Any = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return LlavaProcessor(pixels, _tokenizer(), patch_size=PATCH, **options), {"image_token_index": IMAGE_TOKEN}


def _gemma3() -> tuple[Any, dict[str, Any]]:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokenizer = _tokenizer(boi_token="<begin>", eoi_token="<end>")
    pixels = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    ids = {"image_token_index": IMAGE_TOKEN, "boi_token_index": IMAGE_TOKEN + 1, "eoi_token_index": IMAGE_TOKEN + 2}
    return Gemma3Processor(pixels, tokenizer, image_seq_length=4), ids


def _qwen2_5_vl() -> tuple[Any, dict[str, Any]]:
    """Needs torchvision, as it also reads video."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = _tokenizer(video_token="<video>", vision_start_token="<begin>", vision_end_token="<end>")
    patches: Any = {"patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2}
    pixels = Qwen2VLImageProcessorPil(min_pixels=SIDE**2, max_pixels=4 * SIDE**2, **patches)
    template = (
        "{% for message in messages %}{% for part in message.content %}"
        "{{ '<begin><image><end>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
    )
    processor = Qwen2_5_VLProcessor(pixels, tokenizer, Qwen2VLVideoProcessor(**patches), chat_template=template)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return processor, {name: IMAGE_TOKEN + number for number, name in enumerate(names)}


_KINDS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "llava": _llava,
    "gemma3": _gemma3,
    **({"qwen2_5_vl": _qwen2_5_vl} if is_torchvision_available() else {}),
}
KINDS = list(_KINDS)
"""The types whose processors can be made with the packages at hand."""


def processor_of(directory: Path) -> Any:
    return AutoProcessor.from_pretrained(directory)


def draw(path: Path, number: int) -> Path:
    """Draw an image that differs from number to number."""
    image = Image.new("RGB", (48, 48), (37 * number % 256, 91 * number % 256, 17))
    ImageDraw.Draw(image).ellipse((number % 20, 5, number % 20 + 20, 30), fill=(250, 13 * number % 256, 90))
    image.save(path)
    return path


def write_documents(path: Path, documents: Sequence[tuple[str, Sequence[int]]]) -> Path:
    """Write a JSONL of texts, each with the images of some numbers, which are drawn beside it."""
    lines = []
    for text, numbers in documents:
        names = [draw(path.parent / f"{number}.png", number).name for number in numbers]
        image: dict[str, Any] = {"image": names[0] if len(names) == 1 else names} if names else {}
        lines.append(json.dumps({"text": text, **image}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


TEXTS = [
    ("the cat sat on the mat", [1]),
    ("a film of a dog and a cat", [2, 3]),
    ("who was in the house w1 w2 w3 w4", [4]),
    *((f"the film was great w{number} and awful of to in he she", []) for number in range(5)),
]
"""Documents with and without images."""


def rows_of_texts(directory: Path, model: Any, *, skips_image_tokens: bool = False) -> list[dict[str, Any]]:
    """The batches of `TEXTS` for a model that was saved in a directory."""
    processor = processor_of(directory)
    reader = ImageReader(lambda: processor, 64, image_token(model.config), skips_image_tokens)
    source = write_documents(directory / "text.jsonl", TEXTS)
    settings: Any = {"samples": len(TEXTS), "max_length": 32, "batch_size": 3, "packing": "rows"}
    return list(load_calibration(source, processor.tokenizer, images=reader, **settings))


def stock_inputs(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments of a stock model's forward for each row of a batch, alone and without padding."""
    if "pixel_values" in batch:
        return [{name: value for name, value in batch.items() if name != "scored"}]
    masks = batch["attention_mask"].bool()
    return [{"input_ids": ids[mask][None]} for ids, mask in zip(batch["input_ids"], masks, strict=True)]


def predicted(ids: Any, image: int) -> list[int]:
    """The places of a row [token] whose next token is predicted: not a part of an image."""
    return [place for place in range(len(ids) - 1) if int(ids[place + 1]) != image]
