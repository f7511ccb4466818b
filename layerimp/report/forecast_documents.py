"""The JSON documents of what is known before anything is done: `layerimp inspect` and `--dry-run`.

See `report.documents` for what the types are for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict  # typing's own lacks what pydantic needs before Python 3.12

from layerimp.report.json_types import Number, closed
from layerimp.steps import Step


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


@closed
class Range(TypedDict):
    """A number that is not known exactly before the blocks are scored; both ends are equal where it is."""

    least: Annotated[float, Field(description="The least that it can be.")]
    most: Annotated[float, Field(description="The most that it can be.")]


@closed
class SizeForecast(TypedDict):
    """A size before and after."""

    original: Annotated[float, Field(description="Of the intact model.")]
    pruned: Annotated[Range, Field(description="Of what is left, by arithmetic.")]


@closed
class PassForecast(TypedDict):
    """A pass over the calibration text that some scorers share."""

    sweep: Annotated[str, Field(description="How the model is driven.")]
    scorers: Annotated[list[str], Field(description="The scorers that read it.")]
    backbone: Annotated[Number, Field(description="About how many forward passes of the blocks; null if unknown.")]
    head: Annotated[Number, Field(description="About how many forward passes of the head; null if unknown.")]


@closed
class MemoryForecast(TypedDict):
    """The memory that the weights need, beside which there are activations."""

    device: Annotated[str, Field(description="Where the model is to lie.")]
    dtype: Annotated[str, Field(description="What it is to compute in.")]
    weights: Annotated[int, Field(description="Bytes of the weights in that dtype.")]
    verifying: Annotated[int, Field(description="Bytes of the copy that a checkpoint is verified by; 0 without one.")]
    free: Annotated[int, Field(description="Bytes that are free there now.")]


@closed
class TimeForecast(TypedDict):
    """An estimate of the time, from one block of each kind with random weights; reality may be far off."""

    block_ms: Annotated[
        Number, Field(description="Measured: one block and one batch of the text, in milliseconds; null if unknown.")
    ]
    scoring_s: Annotated[Number, Field(description="Estimated from it: the first scoring in seconds; null if unknown.")]
    rescoring_s: Annotated[
        Number, Field(description="The further scorings of the pruner, at most, in seconds; null if unknown.")
    ]


@closed
class WrittenFile(TypedDict):
    """What would be written."""

    path: Annotated[str, Field(description="Where.")]
    bytes: Annotated[Range | None, Field(description="How large its weights are; null for what is small.")]


@closed
class Forecast(TypedDict):
    """What `run` and `prune` print with `--dry-run --json`."""

    schema_version: Annotated[Literal["layerimp.forecast/1"], Field(description="The version of this format.")]
    command: Annotated[str, Field(description="The command: `run` or `prune`.")]
    model: Annotated[str, Field(description="The model, as it was named.")]
    num_blocks: Annotated[int, Field(description="Blocks of the intact model.")]
    scorers: Annotated[list[str], Field(description="The labels of the scorers; empty where nothing is scored.")]
    baselines: Annotated[list[str], Field(description="Those of the baselines.")]
    healers: Annotated[list[str], Field(description="Those of the healers.")]
    tasks: Annotated[list[str], Field(description="The tasks that quality is measured on.")]
    removed: Annotated[Range, Field(description="How many blocks go.")]
    parameters: Annotated[SizeForecast, Field(description="Parameters.")]
    bytes: Annotated[SizeForecast, Field(description="Bytes of the parameters, as they are stored.")]
    kv_bytes_per_token: Annotated[
        SizeForecast | None, Field(description="What generation keeps of each token, in bytes; null if not known.")
    ]
    text: Annotated[str | None, Field(description="The text that drives scoring; null where nothing is scored.")]
    tokens: Annotated[int, Field(description="How many tokens are drawn from it, at most.")]
    passes: Annotated[list[PassForecast], Field(description="The passes over the text, of one scoring.")]
    rescorings: Annotated[int, Field(description="How often pruners score again what is left, at most.")]
    memory: Annotated[MemoryForecast, Field(description="Memory.")]
    time: Annotated[TimeForecast, Field(description="Time. Reading the model, evaluation and healing are not in it.")]
    writes: Annotated[list[WrittenFile], Field(description="What would be written; nothing was.")]
    notes: Annotated[list[str], Field(description="What a reader has to know.")]


@closed
class CellForecast(TypedDict):
    """How much there is to do of one kind."""

    finished: Annotated[int, Field(description="Cells that are finished.")]
    most: Annotated[int, Field(description="All that there can be, those that are finished among them.")]


@closed
class ModelWork(TypedDict):
    """What a grid has to do for one model."""

    model: Annotated[str, Field(description="The model.")]
    num_blocks: Annotated[int, Field(description="How many blocks it has.")]
    removed: Annotated[list[int], Field(description="How many blocks go, each number that is asked for.")]
    cells: Annotated[
        dict[str, CellForecast],
        Field(description="By kind: `scoring`, `planning`, `evaluation` (healed ones among them) and `costing`."),
    ]
    tokens: Annotated[int, Field(description="How many tokens a repeat draws for scoring, at most.")]
    passes: Annotated[list[PassForecast], Field(description="The passes over the text, of one repeat.")]
    memory: Annotated[MemoryForecast, Field(description="Memory.")]
    block_ms: Annotated[
        Number, Field(description="Measured: one block and one batch of the text, in milliseconds; null if unknown.")
    ]
    scoring_s: Annotated[
        Number, Field(description="Estimated from it: all scorings that are left, in seconds; null if unknown.")
    ]


@closed
class GridForecast(TypedDict):
    """What `bench` prints with `--dry-run --json`."""

    schema_version: Annotated[Literal["layerimp.grid-forecast/1"], Field(description="The version of this format.")]
    models: Annotated[dict[str, ModelWork], Field(description="By label.")]
    repeats: Annotated[int, Field(description="How often each scoring is done, each time with other text.")]
    writes: Annotated[list[WrittenFile], Field(description="What would be written; nothing was.")]
    notes: Annotated[list[str], Field(description="What a reader has to know.")]


@closed
class ModelSize(TypedDict):
    """The size of a model."""

    blocks: Annotated[int, Field(description="Blocks.")]
    parameters: Annotated[int, Field(description="Parameters; tied weights count once.")]
    bytes: Annotated[int, Field(description="Theirs, as they are stored.")]


@closed
class HealedSizes(TypedDict):
    """The sizes of the two models that healing takes."""

    teacher: Annotated[ModelSize, Field(description="Of the intact model.")]
    pruned: Annotated[ModelSize, Field(description="Of the pruned one, which the healed one has as well.")]


@closed
class PassTime(TypedDict):
    """An estimate of the time, from one block of each kind with random weights; reality may be far off."""

    block_ms: Annotated[
        Number, Field(description="Measured: one block and one batch of the text, in milliseconds; null if unknown.")
    ]
    pass_s: Annotated[
        Number,
        Field(description="Estimated from it: one pass of both models over the text in seconds; null if unknown."),
    ]


@closed
class HealingForecast(TypedDict):
    """What `heal` prints with `--dry-run --json`."""

    schema_version: Annotated[Literal["layerimp.healing-forecast/1"], Field(description="The version of this format.")]
    model: Annotated[str, Field(description="The pruned model, as it was named.")]
    teacher: Annotated[str, Field(description="The intact model.")]
    removed: Annotated[list[Step], Field(description="What is gone of the intact model.")]
    gaps: Annotated[list[str], Field(description="What is gone at each gap, in words.")]
    healer: Annotated[str, Field(description="The healer.")]
    options: Annotated[dict[str, Any], Field(description="Its options.")]
    sizes: Annotated[HealedSizes, Field(description="The sizes of both models.")]
    text: Annotated[str, Field(description="The text that drives healing.")]
    further_text: Annotated[
        str | None, Field(description="The text that a healer may train on besides; null for none.")
    ]
    tokens: Annotated[int, Field(description="How many tokens are drawn from the text, at most.")]
    memory: Annotated[MemoryForecast, Field(description="Memory, of both models.")]
    time: Annotated[PassTime, Field(description="Time of one pass. Reading the models is not in it.")]
    writes: Annotated[list[WrittenFile], Field(description="What would be written; nothing was.")]
    notes: Annotated[list[str], Field(description="What a reader has to know.")]
