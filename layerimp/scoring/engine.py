"""Runs many scorers over a calibration set in as few sweeps as possible."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import LayerimpError, OptionError, PluginError
from layerimp.indices import kept_blocks
from layerimp.models.discovery import find_blocks
from layerimp.progress import SILENT, Progress
from layerimp.registry.attribution import attributing
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.passes import Scored, shared_passes
from layerimp.scoring.requested import Options, requested

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.sweep.cache import BlockCache


def score(
    model: PreTrainedModel,
    calibration: Iterable[Batch],
    scorers: Sequence[str | Scorer] | Mapping[str, str | Scorer],
    *,
    options: Options = MappingProxyType({}),
    progress: Progress | None = None,
) -> dict[str, Importance]:
    """Score every block of a model.

    Args:
        model: Any Hugging Face transformer; it is not changed.
        calibration: Batches of `input_ids` and `attention_mask` [batch, seq]; iterated over once per pass.
        scorers: Names of registered scorers, or `Scorer` instances for this model's number of blocks; in a mapping, by
            the label of the result. An instance adds to what it has seen before.
        options: Options of scorers that are given by name, by label, such as `{"avss": {"site": "block_delta"}}`.
        progress: Where to report progress.

    Returns:
        The importance by label, which is the scorer's name if no label was given.

    Raises:
        UnknownNameError: no scorer has that name, or no such option exists.
        OptionError: an option has a value of the wrong type, or belongs to an instance, which has its options already.
        ModelError: a scorer does not fit the model.
        CalibrationError: a batch is empty, malformed or holds ids that the model has no embedding for.
        NonFiniteError: the model or a scorer produces a NaN or an infinity.
    """
    stack = find_blocks(model)
    return measure(stack, calibration, requested(scorers, options, len(stack)), progress=progress or SILENT)


@dataclass(frozen=True)
class Filled:
    """A scorer that has seen a calibration set.

    Attributes:
        scorer: The scorer.
        blocks: The blocks that it scored.
        notes: What a reader of its scores has to know.
        error: The error with which it failed, so that it has not seen the whole text; None if it did not fail.
    """

    scorer: Scorer
    blocks: Sequence[int]
    notes: Sequence[str] = ()
    error: LayerimpError | None = None


class How(TypedDict, total=False):
    """How a calibration set is scored.

    Attributes:
        removed: The blocks that are bypassed.
        progress: Where to report progress.
        cache: The outputs of blocks in earlier calls.
        memory: What sweeps keep of the intact model in earlier calls; see `Drive.memory`. For one set only.
        among: The blocks to score, if not all that are left. The scorers are made for their number.
    """

    removed: Collection[int]
    progress: Progress
    cache: BlockCache | None
    memory: MutableMapping[Hashable, Any]
    among: Collection[int] | None


def measure(
    stack: BlockStack, calibration: Iterable[Batch], scorers: Mapping[str, Scorer], **how: Unpack[How]
) -> dict[str, Importance]:
    """Run fresh scorers over the calibration set, with the blocks `removed` bypassed; see `score`.

    If the same `cache` is passed to several calls with the same set, blocks before the first difference between two
    calls are not run again.

    Args:
        stack: The model's blocks.
        calibration: The calibration set.
        scorers: The scorers, by label, made for the number of scored blocks.
        how: See `How`.

    Raises:
        ModelError: a scorer does not fit the model.
    """
    filled = fill(stack, calibration, scorers, **how)
    return {label: finished(label, scored) for label, scored in filled.items()}


def fill(
    stack: BlockStack, calibration: Iterable[Batch], scorers: Mapping[str, Scorer], **how: Unpack[How]
) -> dict[str, Filled]:
    """Run fresh scorers over a calibration set, without asking what they found; see `measure`.

    If a scorer fails, the others go on without it.
    """
    removed, cache = sorted(how.get("removed", ())), how.get("cache")
    blocks = scored_blocks(removed, len(stack), how.get("among"))
    filled: dict[str, Filled] = {}
    for label, scorer in scorers.items():
        if scorer.num_blocks != len(blocks):
            raise OptionError(f"scorer {label!r} was made for {scorer.num_blocks} blocks; there are {len(blocks)}")
        scorer.blocks = blocks
        filled[label] = Filled(scorer, blocks)
    if isinstance(calibration, Iterator):  # an iterator can be used only once
        calibration = list(calibration)
    passes = shared_passes(scorers)
    with in_eval_mode(stack.model):
        if cache is not None:
            cache.begin(removed)
        memory = how.get("memory", {})
        scored = Scored(stack, calibration, removed, blocks, how.get("progress", SILENT), cache, memory)
        for one_pass in passes:
            one_pass.scout(stack)
        for one_pass in passes:
            one_pass.run(scored)
            for label in one_pass.scorers:
                notes, error = one_pass.notes(stack, label), one_pass.failed.get(label)
                filled[label] = replace(filled[label], notes=notes, error=error)
    return filled


def scored_blocks(removed: Collection[int], num_blocks: int, among: Collection[int] | None = None) -> list[int]:
    """The blocks that are scored without the blocks `removed`: all that are left, or those of them in `among`."""
    return [block for block in kept_blocks(removed, num_blocks) if among is None or block in among]


def finished(label: str, filled: Filled) -> Importance:
    """Compute the importance from what a scorer has seen.

    Raises:
        PluginError: the scorer failed, or does not score every block, or every window.
        NonFiniteError: a score is a NaN or an infinity.
    """
    if filled.error:
        raise filled.error
    blocks = filled.blocks
    with attributing("scorer", label, type(filled.scorer)):
        importance = filled.scorer.compute()
        if not isinstance(importance, Importance):
            raise PluginError(f"compute() gives {type(importance).__name__}, not an Importance")
        if len(importance.scores) != len(blocks):
            raise PluginError(f"it gave {len(importance.scores)} scores for {len(blocks)} blocks")
        for length, windows in importance.spans.items():
            if len(windows) != len(blocks) - length + 1:
                raise PluginError(f"it gave {len(windows)} windows of {length} for {len(blocks)} blocks")
    return replace(importance, blocks=list(blocks), notes=(*filled.notes, *importance.notes))
