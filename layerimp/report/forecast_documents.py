"""The JSON documents of what is known before anything is done: `layerimp inspect`.

See `report.documents` for what the types are for.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # typing's own lacks what pydantic needs before Python 3.12

from layerimp.report.documents import Number, closed


@closed
class Part(TypedDict):
    """What a part of a model amounts to."""

    parameters: Annotated[int, Field(description="Its parameters; what another part uses as well is not counted.")]
    bytes: Annotated[int, Field(description="Theirs, as they are stored.")]


@closed
class InspectedBlock(TypedDict):
    """A block of a model."""

    block: Annotated[int, Field(description="Its index.")]
    kind: Annotated[str, Field(description="What the configuration calls it (`layer_types`); empty without a name.")]
    alike: Annotated[int, Field(description="The first block that is built as this one is.")]
    parameters: Annotated[int, Field(description="What goes with it.")]
    bytes: Annotated[int, Field(description="The same in bytes, as they are stored.")]
    kv_bytes_per_token: Annotated[
        Number, Field(description="What generation keeps of each token for it, in bytes; null where that is not known.")
    ]
    attention: Annotated[Part | None, Field(description="Its attention; null where the two are not told apart.")]
    mlp: Annotated[Part | None, Field(description="Its MLP; null where the two are not told apart.")]
    not_divided: Annotated[
        str, Field(description="Why it cannot be divided into attention and MLP, so that it has no seams; else empty.")
    ]
    not_removed: Annotated[
        str, Field(description="Why stock code does not build the model without it; empty where it does.")
    ]


@closed
class Files(TypedDict):
    """The weight files, by their headers."""

    files: Annotated[int, Field(description="How many there are.")]
    bytes: Annotated[int, Field(description="What the weights take in them; a tied one may be there twice.")]
    numbers: Annotated[dict[str, int], Field(description="How many numbers there are of each kind, such as `BF16`.")]


@closed
class Inspection(TypedDict):
    """What `layerimp inspect` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.inspection/1"], Field(description="The version of this format.")]
    model: Annotated[str, Field(description="The model, as it was named.")]
    architecture: Annotated[str, Field(description="The class that stock code builds.")]
    stored_dtype: Annotated[str, Field(description="The dtype that the weights are stored in, by the configuration.")]
    num_blocks: Annotated[int, Field(description="How many blocks it has.")]
    parameters: Annotated[int, Field(description="Of the whole model; tied weights count once.")]
    bytes: Annotated[int, Field(description="Theirs, as they are stored.")]
    kv_bytes_per_token: Annotated[
        Number,
        Field(
            description="What generation keeps of each token, in bytes; 0 for a model that keeps nothing, null where "
            "that is not known."
        ),
    ]
    outside: Annotated[Part, Field(description="What stays whatever is removed: embeddings, head, and the like.")]
    blocks: Annotated[list[InspectedBlock], Field(description="By depth.")]
    files: Annotated[Files | None, Field(description="The weight files; null where they are not in a directory here.")]
    notes: Annotated[list[str], Field(description="Where the files and the configuration disagree.")]
