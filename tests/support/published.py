"""The documents that layerimp prints and writes, as the reference describes them."""

from __future__ import annotations

import json
import re
from typing import Any

import documents


def name_of(document: dict[str, Any]) -> str:
    """The name of a document, which it says itself."""
    match = re.fullmatch(r"layerimp\.([a-z-]+)/\d+", document["schema_version"])
    assert match
    return match[1]


def checked(text: str) -> dict[str, Any]:
    """A document that has the fields of its class, with their types, and no others; a recipe may leave some out."""
    document: dict[str, Any] = json.loads(text)
    read = documents.model_of(name_of(document)).model_validate_json(text)
    assert name_of(document) in ("recipe", "grid") or read.model_dump(mode="json") == document
    return document
