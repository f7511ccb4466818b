"""Packs metrics into compact plain data, which a cache or the store of a grid holds."""

from __future__ import annotations

import base64
import lzma
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter
from pydantic_core import to_json

from layerimp.metric import Metric

_METRICS = TypeAdapter(list[Metric])


def packed(metrics: Sequence[Metric]) -> dict[str, str]:
    """Pack metrics, with what is known of each document, into a compressed text that JSON can hold."""
    return {"metrics": base64.b85encode(lzma.compress(to_json(metrics))).decode()}


def unpacked(content: Mapping[str, str]) -> list[Metric]:
    """Unpack metrics.

    Raises:
        ValueError, TypeError, KeyError: the data does not hold packed metrics.
    """
    try:
        return _METRICS.validate_json(lzma.decompress(base64.b85decode(content["metrics"])))
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from error
