"""Documents with images: what names them, and how a model's processor makes rows of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from layerimp._paths import expanded
from layerimp.blocks.batches import SCORED, holds_images
from layerimp.blocks.modes import quiet
from layerimp.errors import CalibrationError, cause, one_line

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch

IMAGE_FIELD = "image"
"""The JSON field that names the images of a document: a path, or a list of paths."""


class IllustratedText(str):
    """The text of a document with images.

    Attributes:
        images: The paths of the images as the document names them, in the order of their places in the text.
        folder: Where relative paths begin.
    """

    images: tuple[str, ...]
    folder: Path

    @classmethod
    def read(cls, text: str, value: object, folder: Path, where: str) -> Self:
        """Read what a field says of the images.

        Args:
            text: The text of the document.
            value: A path, or a list of paths.
            folder: Where relative paths begin.
            where: The place of the document, for errors.

        Raises:
            CalibrationError: the value names no image, or one that does not exist.
        """
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise CalibrationError(f"{where}: the field {IMAGE_FIELD!r} holds {value!r}, not a path or a list of paths")
        document = cls(text)
        document.images, document.folder = tuple(names), folder
        for path in document.paths:
            if not path.is_file():
                raise CalibrationError(f"{where}: the image {str(path)!r} does not exist")
        return document

    @property
    def paths(self) -> list[Path]:
        """The paths of the images."""
        return [self.folder / expanded(name) for name in self.images]


class IllustratedRow(tuple[int, ...]):
    """The token ids of a row with images.

    Attributes:
        inputs: Makes the batch of this row, from the files of the images.
        digest: A hash of the token ids and the images.
    """

    inputs: Callable[[], Batch]
    digest: str


@dataclass(frozen=True)
class ImageReader:
    """Makes rows of documents with images, each a row of its own.

    Attributes:
        load: Returns the model's processor.
        max_length: The most tokens of a row, those of images among them.
        image_token: The id of the token in whose place features of images stand; None if it is not known.
        skips_image_tokens: Whether scores leave these tokens out.
    """

    load: Callable[[], Any]
    max_length: int
    image_token: int | None = None
    skips_image_tokens: bool = False

    @cached_property
    def _processor(self) -> Any:
        try:
            with quiet():
                return self.load()
        except ImportError as error:
            raise _lacking(error) from error
        except Exception as error:
            raise CalibrationError(
                f"images are read by the model's processor, which cannot be loaded: {cause(error)}"
            ) from error

    @cached_property
    def _mark(self) -> str:
        """What stands for an image in a text for the processor."""
        token = str(self._token)
        parts = [{"type": "image"}, {"type": "text", "text": "0"}]
        try:
            plain, seeing = (
                self._processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
                for content in (parts[1:], parts)
            )
        except Exception:  # there is no template, or it takes no images
            return token
        start = next(
            (at for at, (character, other) in enumerate(zip(plain, seeing, strict=False)) if character != other), 0
        )
        mark = str(seeing[start : start + len(seeing) - len(plain)])
        whole = plain[:start] + mark + plain[start:]
        return mark if whole == seeing and mark.count(token) == 1 else token

    @property
    def _token(self) -> Any:
        token = getattr(self._processor, "image_token", None)
        if token is None:
            raise CalibrationError(
                f"{type(self._processor).__name__} does not say which token stands for an image in a text"
            )
        return token

    def row(self, text: IllustratedText) -> IllustratedRow:
        """Return the row of a document.

        Raises:
            CalibrationError: an image cannot be read, the text does not hold the image token once per image, or the
                images do not fit into a row.
        """
        batch = self._batch(text)
        row = IllustratedRow(batch["input_ids"][0].tolist())
        row.inputs = lambda: self._batch(text)
        content = hashlib.blake2b(repr(tuple(row)).encode(), digest_size=16)
        for path in text.paths:
            content.update(path.read_bytes())
        row.digest = content.hexdigest()
        return row

    def _batch(self, text: IllustratedText) -> Batch:
        images, written, token = [_picture(path) for path in text.paths], str(text), str(self._token)
        places = written.count(token)
        if not places:
            written = self._mark * len(images) + written
        elif places != len(images):
            raise CalibrationError(
                f"{_named(text)}: the text holds the image token {token} {places} times, but names {len(images)} "
                f"images; write it once per image, or never"
            )
        try:
            with quiet():
                made = self._processor(text=[written], images=[images], return_tensors="pt")
        except Exception as error:
            raise CalibrationError(
                f"{_named(text)}: {type(self._processor).__name__} fails: {one_line(error)}"
            ) from error
        return self._cut({name: value for name, value in made.items() if isinstance(value, torch.Tensor)}, text)

    def _cut(self, batch: Batch, text: IllustratedText) -> Batch:
        """Cut a row to the most tokens that it may have, and note which of them scorers read."""
        shape, length = batch["input_ids"].shape, self.max_length
        of_images = batch["input_ids"] == (-1 if self.image_token is None else self.image_token)
        needed = int(of_images.nonzero()[:, 1].max()) + 2 if of_images.any() else shape[1]  # if not known, all of it
        if needed > length:
            raise CalibrationError(
                f"{_named(text)}: it needs {needed} tokens with its images, and rows have {length}; ask for longer "
                f"ones (--max-length {needed} or more), or leave it out"
            )
        cut = {
            name: value[:, :length] if value.shape[:2] == shape and not holds_images([name]) else value
            for name, value in batch.items()
        }
        return cut | ({SCORED: ~of_images[:, :length]} if self.skips_image_tokens else {})


def identity(text: str) -> str:
    """Return what tells a document from others: its text, and the names of its images if it has any."""
    return "\0".join((text, *text.images)) if isinstance(text, IllustratedText) else text


def _named(text: IllustratedText) -> str:
    """Name a document by its images, for errors."""
    return f"the document with the image {text.paths[0]}" + (" and others" if len(text.images) > 1 else "")


def _lacking(error: ImportError) -> CalibrationError:
    return CalibrationError(
        f"a package that reads images is missing: pip install 'layerimp[vision]' ({one_line(error)})"
    )


def _picture(path: Path) -> Any:
    """Open an image in RGB, turned as its camera was held."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise _lacking(error) from error
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:
        raise CalibrationError(f"cannot read the image {path}: {one_line(error)}") from error
