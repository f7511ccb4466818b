"""Documents with images: rows as the model's processor makes them, each a batch of its own, beside rows of text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.seeing import IMAGE, IMAGE_TOKEN, PLACES, draw, processor_of, save, write_documents

from layerimp.calibration import CalibrationSet, FurtherText, ImageReader, load_calibration
from layerimp.calibration.documents import Reader
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import document_hash, read_corpus
from layerimp.calibration.splits import for_fidelity, split
from layerimp.errors import CalibrationError

BOTH = [
    ("the cat sat on the mat", [1]),
    (f"a dog {IMAGE} ran and {IMAGE} a cat sat", [2, 3]),
    *((f"the film was great w{number} and awful of to in he she", []) for number in range(6)),
]


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("llava")
    save(directory)
    return processor_of(directory)


@pytest.fixture
def read(processor: Any, tmp_path: Path) -> Any:
    """Draws documents as rows, or packed otherwise."""

    def read(documents: Any, *, images: Any = None, samples: int | None = None, **settings: Any) -> CalibrationSet:
        text = write_documents(tmp_path / "text.jsonl", documents)
        images = images or ImageReader(lambda: processor, 64, IMAGE_TOKEN)
        settings = {"max_length": 16, "batch_size": 4, "packing": "rows"} | settings
        return load_calibration(text, processor.tokenizer, samples=samples or len(documents), images=images, **settings)

    return read


def seeing(text: CalibrationSet) -> list[dict[str, torch.Tensor]]:
    return [batch for batch in text if "pixel_values" in batch]


def pictures(folder: Path, *numbers: int) -> list[Any]:
    return [Image.open(folder / f"{number}.png").convert("RGB") for number in numbers]


def same(batch: dict[str, torch.Tensor], expected: Any) -> bool:
    return batch.keys() == expected.keys() and all(torch.equal(batch[name], expected[name]) for name in batch)


@pytest.mark.parametrize("place", ["first", "in the text"])
def test_a_row_is_what_the_processor_makes(place: str, read: Any, processor: Any, tmp_path: Path) -> None:
    text, numbers = BOTH[place != "first"]
    (batch,) = read([(text, numbers)])
    written = IMAGE * len(numbers) + text if place == "first" else text
    expected = processor(text=[written], images=[pictures(tmp_path, *numbers)], return_tensors="pt")
    assert same(batch, expected)
    assert int((batch["input_ids"] == IMAGE_TOKEN).sum()) == PLACES * len(numbers)


def test_an_image_stands_as_in_the_chat_template(read: Any, processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for message in messages %}who {% for part in message.content %}"
        "{{ 'what <image> where ' if part.type == 'image' else part.text }}{% endfor %} why{% endfor %}"
    )
    monkeypatch.setattr(processor, "chat_template", template)
    (batch,) = read([("yes", [1])])
    words = ["what", *[IMAGE] * PLACES, "where", "yes"]
    assert batch["input_ids"][0, 1:].tolist() == processor.tokenizer.convert_tokens_to_ids(words)


def test_rows_with_images_are_alone(read: Any) -> None:
    text = read(BOTH)
    assert sorted(len(batch["input_ids"]) for batch in text) == [1, 1, 2, 4]
    assert len(text) == 4
    assert text.holds_images
    assert len(seeing(text)) == 2
    assert not read(BOTH[2:]).holds_images


def test_windows_join_only_documents_without_images(read: Any, processor: Any) -> None:
    mixed, plain = (
        read(documents, samples=count, packing="windows") for documents, count in ((BOTH, 7), (BOTH[2:], 5))
    )
    windows = [row for row in mixed.rows if IMAGE_TOKEN not in row]
    assert len(windows) == 5
    assert all(len(row) == 16 for row in windows)
    assert sorted(len(row) for row in mixed.rows if IMAGE_TOKEN in row) == sorted(
        len(batch["input_ids"][0]) for batch in seeing(read(BOTH))
    )
    assert sum(map(len, plain.rows)) == sum(map(len, windows))


def test_shards_together_are_the_whole_set(read: Any) -> None:
    text = read(BOTH)
    shards = [text.shard(number, 3) for number in range(3)]
    assert sorted(row for shard in shards for row in shard.rows) == sorted(text.rows)
    batches = [batch["input_ids"].tolist() for shard in shards for batch in shard]
    assert sorted(batches) == sorted(batch["input_ids"].tolist() for batch in text)


def test_a_split_keeps_the_images_of_a_row(read: Any) -> None:
    text = read([(f"w{number} sat", [number]) for number in range(4)] + BOTH[2:])
    parts = split(text)
    batches = [*parts.healing, *parts.choosing, *parts.measuring]
    assert sum(len(batch["input_ids"]) for batch in batches) == 10
    whole = {tuple(batch["input_ids"][0].tolist()): batch for batch in seeing(text)}
    again = [batch for batch in batches if "pixel_values" in batch]
    assert len(again) == 4
    assert all(same(batch, whole[tuple(batch["input_ids"][0].tolist())]) for batch in again)


def test_images_tell_documents_and_texts_apart(read: Any, processor: Any, tmp_path: Path) -> None:
    """The same words with other images are another document, and other pixels are another text."""
    reader = ImageReader(lambda: processor, 64, IMAGE_TOKEN)
    text = read([("what is it", [1]), ("what is it", [2])], images=reader)
    assert len(text.documents) == 2
    assert document_hash("what is it") not in text.documents
    assert text.rows[0] == text.rows[1]
    assert text.first(1).fingerprint != text.chosen([1]).fingerprint
    again = load_calibration(tmp_path / "text.jsonl", processor.tokenizer, samples=2, packing="rows", images=reader)
    assert again.fingerprint == text.fingerprint
    draw(tmp_path / "2.png", 9)
    other = load_calibration(tmp_path / "text.jsonl", processor.tokenizer, samples=2, packing="rows", images=reader)
    assert other.documents == text.documents
    assert other.fingerprint != text.fingerprint


def test_a_row_is_cut_after_its_images(read: Any, processor: Any) -> None:
    documents = [("the cat sat on the mat", [1])]
    whole, cut = (
        read(documents, images=ImageReader(lambda: processor, length, IMAGE_TOKEN)) for length in (64, 1 + PLACES + 3)
    )
    assert cut.rows[0] == whole.rows[0][: 1 + PLACES + 3]
    (batch,) = cut
    assert batch["attention_mask"].shape == (1, 20)
    assert batch["pixel_values"].shape == (1, 3, 32, 32)


def test_a_row_whose_image_tokens_are_not_known_is_not_cut(read: Any, processor: Any) -> None:
    documents = [("the cat sat on the mat", [1])]
    whole = 1 + PLACES + 6
    assert len(read(documents, images=ImageReader(lambda: processor, whole)).rows[0]) == whole
    with pytest.raises(CalibrationError, match=f"it needs {whole} tokens with its images, and rows have {whole - 1}"):
        read(documents, images=ImageReader(lambda: processor, whole - 1))


def test_image_tokens_can_be_left_out_of_the_scores(read: Any, processor: Any) -> None:
    (batch,) = read(BOTH[:1], images=ImageReader(lambda: processor, 64, IMAGE_TOKEN, skips_image_tokens=True))
    assert torch.equal(batch["scored"], batch["input_ids"] != IMAGE_TOKEN)
    assert "scored" not in next(iter(read(BOTH[:1])))


def test_fidelity_is_measured_on_other_images(processor: Any, tmp_path: Path) -> None:
    source = write_documents(tmp_path / "text.jsonl", [("what is it", [number]) for number in range(6)])
    form = RowFormat(processor.tokenizer, 16, 4, "rows", ImageReader(lambda: processor, 64, IMAGE_TOKEN))
    corpus = read_corpus(str(source), Reader("text", images=True), form, 4)
    drawn = corpus.draw(4, 0)
    other = for_fidelity(corpus, 9, without=drawn.documents)
    assert len(other.rows) == 2
    assert not other.documents & drawn.documents
    pixels = [batch["pixel_values"] for text in (drawn, other) for batch in text]
    assert not any(torch.equal(later, earlier) for at, later in enumerate(pixels) for earlier in pixels[:at])


def test_further_text_has_images(processor: Any, tmp_path: Path) -> None:
    source = write_documents(tmp_path / "text.jsonl", BOTH)
    settings: Any = {"max_length": 16, "batch_size": 4, "packing": "rows"}
    reader = ImageReader(lambda: processor, 64, IMAGE_TOKEN)
    text = FurtherText(str(source), processor.tokenizer, images=reader, **settings)
    assert [len(batch["input_ids"]) for batch in text] == [1, 1, 4, 2]
    assert text.read.count == len(BOTH)


def test_a_model_without_sight_reads_the_text_alone(processor: Any, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps({"text": "the cat sat", "image": "nowhere.png"}))
    text = load_calibration(path, processor.tokenizer, samples=1, packing="rows")
    assert text.rows == ((1, *processor.tokenizer.convert_tokens_to_ids(["the", "cat", "sat"])),)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "a", "image": "nowhere.png"}, r"text.jsonl, line 1: the image '.*nowhere.png' does not exist"),
        ({"text": "a", "image": 3}, "line 1: the field 'image' holds 3, not a path or a list of paths"),
        ({"text": "a", "image": []}, "line 1: the field 'image' holds .*, not a path or a list of paths"),
        ({"text": "a", "image": "text.jsonl"}, "cannot read the image .*text.jsonl"),
        (
            {"text": f"{IMAGE} a {IMAGE}", "image": "1.png"},
            r"1.png: the text holds the image token <image> 2 times, but names 1 images; write it once per image",
        ),
        (
            {"text": "a", "image": ["1.png"] * 4},
            r"it needs 66 tokens with its images, and rows have 64; .*--max-length 66",
        ),
    ],
)
def test_refusals(record: dict[str, Any], said: str, processor: Any, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps(record))
    draw(tmp_path / "1.png", 1)
    with pytest.raises(CalibrationError, match=said):
        load_calibration(path, processor.tokenizer, samples=1, images=ImageReader(lambda: processor, 64, IMAGE_TOKEN))


def test_the_missing_package_is_named(processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("AutoVideoProcessor requires the Torchvision library")

    source = write_documents(tmp_path / "text.jsonl", BOTH[:1])
    said = r"pip install 'layerimp\[vision\]' \(.*{} "
    with pytest.raises(CalibrationError, match=said.format("requires the Torchvision")):
        load_calibration(source, processor.tokenizer, samples=1, images=ImageReader(missing, 64))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CalibrationError, match=said.format("import of PIL")):
        load_calibration(source, processor.tokenizer, samples=1, images=ImageReader(lambda: processor, 64))
