"""Tokenizers that put different special tokens around rows, and labels."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import processors

from layerimp.testing import tiny_tokenizer

BOS, EOS = 1, 2
FRAMES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "bos and eos": ((BOS,), (), (EOS,)),
    "neither": ((), (), ()),
    "eos": ((), (), (EOS,)),
    "framed": ((BOS,), (EOS,), ()),
}
"""The tokens at the beginning and the end of each row, and the separator of documents."""


@cache
def tokenizer(frame: str = "bos and eos") -> Any:
    """A tokenizer that puts these special tokens around rows."""
    made = tiny_tokenizer(bos="bos" in frame or frame == "framed", eos=frame != "neither")
    if frame == "framed":
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    return made


ABC = {"a": 0, "b": 1, "c": 2}
