"""The JSON documents of `layerimp inspect` and `--dry-run`, which describe a model or a command before any work.

See `report.documents` for what the types are for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict  # before Python 3.12, typing.TypedDict lacks what pydantic needs

from layerimp.report.json_types import Number, closed
from layerimp.steps import Step


@closed
class Part(TypedDict):
    """The size of a part of a model."""

    parameters: Annotated[int, Field(description="Its parameters, without those that another part uses as well.")]
    bytes: Annotated[int, Field(description="The bytes of these parameters in the stored dtype.")]


@closed
class InspectedBlock(TypedDict):
    """A block of a model."""

    block: Annotated[int, Field(description="The index of the block.")]
    kind: Annotated[str, Field(description="The kind in the configuration (`layer_types`); empty if it has no name.")]
    alike: Annotated[int, Field(description="The first block with the same structure.")]
    parameters: Annotated[int, Field(description="The parameters that are removed with the block.")]
    bytes: Annotated[int, Field(description="The bytes of these parameters in the stored dtype.")]
    kv_bytes_per_token: Annotated[
        Number, Field(description="The KV cache of the block per token, in bytes; null if not known.")
    ]
    attention: Annotated[Part | None, Field(description="The attention; null if the block cannot be divided.")]
    mlp: Annotated[Part | None, Field(description="The MLP; null if the block cannot be divided.")]
    not_divided: Annotated[
        str, Field(description="Why the block cannot be divided into attention and MLP, and has no seams; else empty.")
    ]
    not_removed: Annotated[
        str, Field(description="Why stock code cannot build the model without the block; empty if it can.")
    ]


@closed
class Files(TypedDict):
    """The weight files, as described by their headers."""

    files: Annotated[int, Field(description="The number of files.")]
    bytes: Annotated[int, Field(description="The bytes of the weights in the files; a tied weight may count twice.")]
    numbers: Annotated[dict[str, int], Field(description="How many numbers of each kind there are, such as `BF16`.")]


@closed
class Fit(TypedDict):
    """Whether a model fits into memory. Activations need further memory."""

    device: Annotated[str, Field(description="The device that models are loaded on by default.")]
    weights: Annotated[int, Field(description="The bytes of all weights, as they are stored.")]
    offloaded: Annotated[
        int,
        Field(
            description="The bytes of the weights that an offloaded model holds at a time: the embedding and the "
            "largest block, the latter twice on a GPU."
        ),
    ]
    free: Annotated[int, Field(description="The bytes that are currently free on the device.")]


@closed
class Inspection(TypedDict):
    """The document that `layerimp inspect` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.inspection/1"], Field(description="The version of this format.")]
    model: Annotated[str, Field(description="The model, as it was named.")]
    architecture: Annotated[str, Field(description="The class that stock code builds.")]
    stored_dtype: Annotated[str, Field(description="The dtype that the weights are stored in, by the configuration.")]
    num_blocks: Annotated[int, Field(description="The number of blocks.")]
    parameters: Annotated[int, Field(description="The parameters of the whole model; tied weights count once.")]
    bytes: Annotated[int, Field(description="The bytes of the parameters in the stored dtype.")]
    kv_bytes_per_token: Annotated[
        Number,
        Field(description="The KV cache per token, in bytes; 0 for a model without a cache, null if not known."),
    ]
    outside: Annotated[Part, Field(description="The part that is never removed: embeddings, head, and the like.")]
    blocks: Annotated[list[InspectedBlock], Field(description="The blocks, by depth.")]
    files: Annotated[Files | None, Field(description="The weight files; null if they are not in a local directory.")]
    memory: Annotated[Fit, Field(description="The memory that the weights take, and the memory that is free.")]
    notes: Annotated[list[str], Field(description="Where the files and the configuration disagree.")]


@closed
class Range(TypedDict):
    """A number that may not be known exactly before the blocks are scored. If it is known, both ends are equal."""

    least: Annotated[float, Field(description="The smallest possible value.")]
    most: Annotated[float, Field(description="The largest possible value.")]


@closed
class SizeForecast(TypedDict):
    """A size before and after pruning."""

    original: Annotated[float, Field(description="The size of the intact model.")]
    pruned: Annotated[Range, Field(description="The size of the pruned model, by arithmetic.")]


@closed
class PassForecast(TypedDict):
    """A pass over the calibration text that some scorers share."""

    sweep: Annotated[str, Field(description="How the model is driven.")]
    scorers: Annotated[list[str], Field(description="The scorers that read it.")]
    backbone: Annotated[Number, Field(description="The work in forward passes of the blocks, about; null if unknown.")]
    head: Annotated[Number, Field(description="The work in forward passes of the head, about; null if unknown.")]


@closed
class MemoryForecast(TypedDict):
    """The memory that the weights need. Activations need further memory."""

    device: Annotated[str, Field(description="The device of the model.")]
    dtype: Annotated[str, Field(description="The dtype that the model computes in.")]
    offloaded: Annotated[
        bool,
        Field(description="Whether the blocks are read one after another, so that few weights are held at a time."),
    ]
    weights: Annotated[int, Field(description="The bytes of the weights in that dtype, held at a time.")]
    verifying: Annotated[int, Field(description="The bytes of the copy that verifies a checkpoint; 0 without one.")]
    free: Annotated[int, Field(description="The bytes that are currently free on the device.")]


@closed
class TimeForecast(TypedDict):
    """An estimate of the time, from one block of each kind with random weights; reality may be far off."""

    block_ms: Annotated[
        Number, Field(description="Measured: one block and one batch of the text, in milliseconds; null if unknown.")
    ]
    scoring_s: Annotated[Number, Field(description="Estimated: the first scoring, in seconds; null if unknown.")]
    rescoring_s: Annotated[
        Number, Field(description="Estimated: the pruner's further scorings, at most, in seconds; null if unknown.")
    ]
    healing_s: Annotated[
        Number, Field(description="Estimated: healing every pruned model, in seconds; null if unknown, 0 for none.")
    ]
    model_s: Annotated[
        Number,
        Field(description="Estimated: measuring the quality of one model, in seconds; null if unknown, 0 for none."),
    ]
    evaluation_s: Annotated[
        Number,
        Field(
            description="Estimated: the same for all models, in seconds; null if unknown, as it is for `--keep`, whose "
            "search decides how many models it measures."
        ),
    ]


@closed
class WrittenFile(TypedDict):
    """A file or directory that would be written."""

    path: Annotated[str, Field(description="Where.")]
    bytes: Annotated[Range | None, Field(description="The size of its weights; null for small files.")]


@closed
class Forecast(TypedDict):
    """The document that `run` and `prune` print with `--dry-run --json`."""

    schema_version: Annotated[Literal["layerimp.forecast/1"], Field(description="The version of this format.")]
    command: Annotated[str, Field(description="The command: `run` or `prune`.")]
    model: Annotated[str, Field(description="The model, as it was named.")]
    num_blocks: Annotated[int, Field(description="The number of blocks of the intact model.")]
    scorers: Annotated[list[str], Field(description="The labels of the scorers; empty if nothing is scored.")]
    baselines: Annotated[list[str], Field(description="The labels of the baselines.")]
    healers: Annotated[list[str], Field(description="The labels of the healers.")]
    tasks: Annotated[list[str], Field(description="The tasks that quality is measured on.")]
    removed: Annotated[Range, Field(description="How many blocks are removed.")]
    parameters: Annotated[SizeForecast, Field(description="Parameters.")]
    bytes: Annotated[SizeForecast, Field(description="The bytes of the parameters in the stored dtype.")]
    kv_bytes_per_token: Annotated[
        SizeForecast | None, Field(description="The KV cache per token, in bytes; null if not known.")
    ]
    text: Annotated[str | None, Field(description="The text that drives scoring; null if nothing is scored.")]
    tokens: Annotated[int, Field(description="How many tokens are drawn from the text, at most.")]
    passes: Annotated[list[PassForecast], Field(description="The passes over the text for one scoring.")]
    rescorings: Annotated[int, Field(description="How often pruners score the partly pruned model again, at most.")]
    memory: Annotated[MemoryForecast, Field(description="Memory.")]
    time: Annotated[TimeForecast, Field(description="Time, without reading the model and costs.")]
    writes: Annotated[list[WrittenFile], Field(description="What the command would write; a dry run writes nothing.")]
    notes: Annotated[list[str], Field(description="Notes for a reader.")]


@closed
class CellForecast(TypedDict):
    """The cells of one kind."""

    finished: Annotated[int, Field(description="The number of finished cells.")]
    most: Annotated[int, Field(description="The largest possible number of cells, including finished ones.")]


@closed
class ModelWork(TypedDict):
    """The work of a grid for one model."""

    model: Annotated[str, Field(description="The model.")]
    num_blocks: Annotated[int, Field(description="The number of blocks.")]
    removed: Annotated[list[int], Field(description="The numbers of blocks to remove.")]
    removed_parameters: Annotated[
        list[Range], Field(description="For each of these numbers, the share of the parameters that goes.")
    ]
    cells: Annotated[
        dict[str, CellForecast],
        Field(description="By kind: `scoring`, `planning`, `evaluation` (including healed models) and `costing`."),
    ]
    tokens: Annotated[int, Field(description="How many tokens a repeat draws for scoring, at most.")]
    passes: Annotated[list[PassForecast], Field(description="The passes over the text for one repeat.")]
    memory: Annotated[MemoryForecast, Field(description="Memory.")]
    block_ms: Annotated[
        Number, Field(description="Measured: one block and one batch of the text, in milliseconds; null if unknown.")
    ]
    scoring_s: Annotated[Number, Field(description="Estimated: all remaining scorings, in seconds; null if unknown.")]
    evaluation_s: Annotated[
        Number, Field(description="Estimated: all remaining evaluations, at most, in seconds; null if unknown.")
    ]


@closed
class GridForecast(TypedDict):
    """The document that `bench` prints with `--dry-run --json`."""

    schema_version: Annotated[Literal["layerimp.grid-forecast/1"], Field(description="The version of this format.")]
    models: Annotated[dict[str, ModelWork], Field(description="The models, by label.")]
    repeats: Annotated[int, Field(description="How often each scoring is done, each time with different text.")]
    writes: Annotated[list[WrittenFile], Field(description="What the command would write; a dry run writes nothing.")]
    notes: Annotated[list[str], Field(description="Notes for a reader.")]


@closed
class ModelSize(TypedDict):
    """The size of a model."""

    blocks: Annotated[int, Field(description="Blocks.")]
    parameters: Annotated[int, Field(description="Parameters; tied weights count once.")]
    bytes: Annotated[int, Field(description="The bytes of the parameters in the stored dtype.")]


@closed
class HealedSizes(TypedDict):
    """The sizes of the two models in healing."""

    teacher: Annotated[ModelSize, Field(description="The size of the intact model.")]
    pruned: Annotated[ModelSize, Field(description="The size of the pruned model, and so of the healed one.")]


@closed
class PassTime(TypedDict):
    """An estimate of the time, from one block of each kind with random weights; reality may be far off."""

    block_ms: Annotated[
        Number, Field(description="Measured: one block and one batch of the text, in milliseconds; null if unknown.")
    ]
    pass_s: Annotated[
        Number,
        Field(description="Estimated: one pass of both models over the text, in seconds; null if unknown."),
    ]
    healing_s: Annotated[Number, Field(description="Estimated: healing, in seconds; null if unknown.")]


@closed
class HealingForecast(TypedDict):
    """The document that `heal` prints with `--dry-run --json`."""

    schema_version: Annotated[Literal["layerimp.healing-forecast/1"], Field(description="The version of this format.")]
    model: Annotated[str, Field(description="The pruned model, as it was named.")]
    teacher: Annotated[str, Field(description="The intact model.")]
    removed: Annotated[list[Step], Field(description="The steps removed from the intact model.")]
    gaps: Annotated[list[str], Field(description="What was removed at each gap, in words.")]
    healer: Annotated[str, Field(description="The healer.")]
    options: Annotated[dict[str, Any], Field(description="The healer's options.")]
    sizes: Annotated[HealedSizes, Field(description="The sizes of both models.")]
    text: Annotated[str, Field(description="The text that drives healing.")]
    further_text: Annotated[str | None, Field(description="Further text that a healer may train on; null for none.")]
    tokens: Annotated[int, Field(description="How many tokens are drawn from the text, at most.")]
    memory: Annotated[MemoryForecast, Field(description="The memory for both models.")]
    time: Annotated[PassTime, Field(description="The time of one pass, without reading the models.")]
    writes: Annotated[list[WrittenFile], Field(description="What the command would write; a dry run writes nothing.")]
    notes: Annotated[list[str], Field(description="Notes for a reader.")]
