"""The description of a model, made without reading its weights: `layerimp inspect`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from layerimp.blocks.memory import free_bytes
from layerimp.component import versioned
from layerimp.models.devices import device_named
from layerimp.models.dtypes import SAFETENSORS, name_of
from layerimp.models.sizing import language_model
from layerimp.pipeline.outline import Outline
from layerimp.report.results.part import Known, Part, Versioned

if TYPE_CHECKING:
    from layerimp.recipe import Permissions
    from layerimp.sizes.ledger import Amounts


class PartSize(Part):
    """The size of a part of a model."""

    parameters: int
    """Its parameters, without those that another part uses as well."""
    bytes: int
    """The bytes of these parameters in the stored dtype."""

    @classmethod
    def of(cls, amounts: Amounts) -> PartSize:
        """Return what a ledger counts."""
        return cls(parameters=amounts.parameters, bytes=amounts.bytes)


class InspectedBlock(Part):
    """A block of a model."""

    block: int
    """The index of the block."""
    kind: str
    """The kind in the configuration (`layer_types`); empty if it has no name."""
    alike: int
    """The first block with the same structure."""
    parameters: int
    """The parameters that are removed with the block."""
    bytes: int
    """The bytes of these parameters in the stored dtype."""
    kv_bytes_per_token: Known
    """The KV cache of the block per token, in bytes; null if not known."""
    not_removed: str
    """Why stock code cannot build the model without the block; empty if it can."""


class Files(Part):
    """The weight files, as described by their headers."""

    files: int
    """The number of files."""
    bytes: int
    """The bytes of the weights in the files; a tied weight may count twice."""
    numbers: dict[str, int]
    """How many numbers of each kind there are, such as `BF16`."""


class Fit(Part):
    """Whether a model fits into memory. Activations need further memory."""

    device: str
    """The device that models are loaded on by default."""
    weights: int
    """The bytes of all weights, as they are stored."""
    offloaded: int
    """The bytes of the weights that an offloaded model holds at a time: the embedding and the largest block."""
    free: int
    """The bytes that are currently free on the device."""


class Inspection(Versioned):
    """The document that `layerimp inspect` prints with `--json`."""

    schema_version: Literal["layerimp.inspection/1"] = versioned("layerimp.inspection/1")
    model: str
    """The model, as it was named."""
    architecture: str
    """The class that stock code builds."""
    stored_dtype: str
    """The dtype that the weights are stored in, by the configuration."""
    num_blocks: int
    """The number of blocks."""
    parameters: int
    """The parameters of the whole model; tied weights count once."""
    bytes: int
    """The bytes of the parameters in the stored dtype."""
    kv_bytes_per_token: Known
    """The KV cache per token, in bytes; 0 for a model without a cache, null if not known."""
    outside: PartSize
    """The part that is never removed: embeddings, head, and the like."""
    language_model: PartSize | None
    """The language model in a model that reads more than text: its blocks, embeddings and head; null for others."""
    blocks: list[InspectedBlock]
    """The blocks, by depth."""
    files: Files | None
    """The weight files; null if they are not in a local directory."""
    memory: Fit
    """The memory that the weights take, and the memory that is free."""
    notes: list[str]
    """Where the files and the configuration disagree."""


def inspect_model(model: str, permissions: Permissions) -> Inspection:
    """Describe a model from its configuration and the headers of its weight files.

    Raises:
        ModelError: the model cannot be understood, or no blocks can be removed from such a model.
    """
    outline = Outline.of(model, trust_remote_code=permissions.trust_remote_code)
    whole, headers, place = outline.ledger.left(()), outline.headers, device_named(None)
    language = language_model(outline.stack)
    return Inspection(
        model=model,
        architecture=type(outline.stack.model).__name__,
        stored_dtype=name_of(outline.stored),
        num_blocks=len(outline.stack),
        parameters=whole.parameters,
        bytes=whole.bytes,
        kv_bytes_per_token=whole.cache,
        outside=PartSize.of(outline.ledger.outside),
        language_model=None if language is None else PartSize.of(language),
        blocks=[_block(outline, index, refusal) for index, refusal in enumerate(outline.removable())],
        files=None
        if headers is None
        else Files(files=headers.files, bytes=headers.bytes, numbers=dict(headers.numbers)),
        memory=Fit(
            device=str(place),
            weights=whole.bytes,
            offloaded=outline.held_if_offloaded() * outline.stored.itemsize,
            free=free_bytes(place),
        ),
        notes=list(_notes(outline)),
    )


def _block(outline: Outline, index: int, refusal: str) -> InspectedBlock:
    amounts = outline.ledger.inside([index])
    return InspectedBlock(
        block=index,
        kind=outline.names[index],
        alike=outline.alike[index],
        parameters=amounts.parameters,
        bytes=amounts.bytes,
        kv_bytes_per_token=amounts.cache if math.isfinite(outline.ledger.outside.cache) else None,
        not_removed=refusal,
    )


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
