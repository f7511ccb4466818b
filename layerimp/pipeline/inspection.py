"""The document that describes a model without reading its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp.blocks.memory import free_bytes
from layerimp.blocks.middle import Whole
from layerimp.models.devices import device_named
from layerimp.models.dtypes import SAFETENSORS, name_of
from layerimp.pipeline.outline import Outline
from layerimp.report.conversion import finite
from layerimp.steps import sublayers_of

if TYPE_CHECKING:
    from layerimp.recipe import Permissions
    from layerimp.report.forecast_documents import Files, InspectedBlock, Inspection, Part
    from layerimp.sizes.ledger import Amounts


def inspect_model(model: str, permissions: Permissions) -> Inspection:
    """Describe a model from its configuration and the headers of its weight files.

    Raises:
        ModelError: the model cannot be understood, or no blocks can be removed from such a model.
    """
    outline = Outline.of(model, trust_remote_code=permissions.trust_remote_code)
    whole, outside = outline.ledger.left(()), outline.ledger.outside
    place = device_named(None)
    return {
        "schema_version": "layerimp.inspection/1",
        "model": model,
        "architecture": type(outline.stack.model).__name__,
        "stored_dtype": name_of(outline.stored),
        "num_blocks": len(outline.stack),
        "parameters": whole.parameters,
        "bytes": whole.bytes,
        "kv_bytes_per_token": finite(whole.cache),
        "outside": _part(outside),
        "blocks": [_block(outline, index, refusal) for index, refusal in enumerate(outline.removable())],
        "files": _files(outline),
        "memory": {
            "device": str(place),
            "weights": whole.bytes,
            "offloaded": outline.held_if_offloaded(place) * outline.stored.itemsize,
            "free": free_bytes(place),
        },
        "notes": list(_notes(outline)),
    }


def _block(outline: Outline, index: int, refusal: str) -> InspectedBlock:
    attention, mlp = sublayers_of(index)
    ledger, halves = outline.ledger, outline.halves[index]
    amounts = ledger.inside((attention, mlp))
    divided, cached = not isinstance(halves, Whole), math.isfinite(ledger.outside.cache)
    return {
        "block": index,
        "kind": outline.names[index],
        "alike": outline.alike[index],
        "parameters": amounts.parameters,
        "bytes": amounts.bytes,
        "kv_bytes_per_token": amounts.cache if cached else None,
        "attention": _part(ledger.inside([attention])) if divided else None,
        "mlp": _part(ledger.inside([mlp])) if divided else None,
        "not_divided": halves.reason if isinstance(halves, Whole) else "",
        "not_removed": refusal,
    }


def _part(amounts: Amounts) -> Part:
    return {"parameters": amounts.parameters, "bytes": amounts.bytes}


def _files(outline: Outline) -> Files | None:
    headers = outline.headers
    if headers is None:
        return None
    return {"files": headers.files, "bytes": headers.bytes, "numbers": headers.numbers}


def _notes(outline: Outline) -> Iterator[str]:
    """Note where the files and the configuration disagree."""
    if outline.headers is None:
        return
    numbers, described = outline.headers.numbers, outline.ledger.left(()).parameters
    if (held := sum(numbers.values())) < described:
        yield f"the weight files hold {held:,} numbers, and the configuration describes {described:,} parameters"
    if outline.stored not in (known := {SAFETENSORS[kind] for kind in numbers if kind in SAFETENSORS}) and known:
        kinds = ", ".join(sorted(map(name_of, known)))
        yield f"the configuration says {name_of(outline.stored)}, and the weights in the files are {kinds}"
