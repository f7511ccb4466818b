"""The JSON Schemas that are published, for tests of documents."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from layerimp.cli.schema import schema_of
from layerimp.registry.names import installed_names


@cache
def published(name: str) -> Draft202012Validator:
    """What checks a document, by the name of its schema."""
    schema = schema_of(name, installed_names)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def name_of(document: dict[str, Any]) -> str:
    """The name of its schema, which a document says itself."""
    match = re.fullmatch(r"layerimp\.([a-z-]+)/\d+", document["schema_version"])
    assert match
    return match[1]


def checked(text: str) -> dict[str, Any]:
    """A document that is what its schema says."""
    document: dict[str, Any] = json.loads(text)
    published(name_of(document)).validate(document)
    return document
