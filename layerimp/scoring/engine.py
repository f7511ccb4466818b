"""Runs many scorers over a calibration set in as few sweeps as possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import LayerimpError, OptionError, PluginError
from layerimp.models.discovery import find_blocks
from layerimp.progress import SILENT, Progress
from layerimp.registry.attribution import attributing
from layerimp.registry.catalog import registry
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.passes import shared_passes
from layerimp.steps import Step, in_depth_order, untouched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.sweep.cache import BlockCache


def score(
    model: PreTrainedModel,
    calibration: Iterable[Batch],
    scorers: Sequence[str | Scorer] | Mapping[str, str | Scorer],
    *,
    progress: Progress | None = None,
) -> dict[str, Importance]:
    """Score every block of a model.

    Args:
        model: Any transformer of Hugging Face; left as it was.
        calibration: Batches of `input_ids` and `attention_mask` [batch, seq]; iterated once per pass.
        scorers: Names of registered scorers, or configured `Scorer`s for this model's block count; in a mapping,
            by the label that their result gets.
        progress: Where to report progress.

    Returns:
        The importance by label: the scorer's name, where no label was given.

    Raises:
        UnknownNameError: no scorer has that name.
        CalibrationError: a batch is empty, malformed or holds ids that the model has no embedding for.
        NonFiniteError: the model, or a scorer, yields a NaN or an infinity.
    """
    stack = find_blocks(model)
    labelled = scorers if isinstance(scorers, Mapping) else _by_name(scorers)
    ready = {label: _configured(item, len(stack)) for label, item in labelled.items()}
    return measure(stack, calibration, ready, progress=progress or SILENT)


def _by_name(scorers: Sequence[str | Scorer]) -> dict[str, str | Scorer]:
    names = [item if isinstance(item, str) else item.name for item in scorers]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"the scorer {name!r} comes twice; give each a label: {{'label': scorer, ...}}")
    return dict(zip(names, scorers, strict=True))


def _configured(item: str | Scorer, num_blocks: int) -> Scorer:
    if isinstance(item, Scorer):
        if item.num_blocks != num_blocks:
            raise OptionError(f"scorer {item.name!r} was made for {item.num_blocks} blocks; the model has {num_blocks}")
        return item
    made = registry().create("scorer", item, {}, num_blocks)
    assert isinstance(made, Scorer)
    return made


@dataclass(frozen=True)
class Filled:
    """A scorer that has seen a calibration set, or a shard of one.

    Attributes:
        scorer: The scorer.
        blocks: The indices of the blocks that it scored, in the original model.
        notes: What a reader of its scores has to know.
        error: Why it was set aside, if it was: it has not seen all.
    """

    scorer: Scorer
    blocks: Sequence[int]
    notes: Sequence[str] = ()
    error: LayerimpError | None = None


def measure(
    stack: BlockStack,
    calibration: Iterable[Batch],
    scorers: Mapping[str, Scorer],
    *,
    removed: Sequence[Step] = (),
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Importance]:
    """Run fresh scorers over the calibration set, with the steps `removed` bypassed; see `score`.

    Scored are the blocks of which nothing is removed.

    A `cache` that is kept from call to call, with one and the same set, saves the blocks before the first one in which
    two calls differ.
    """
    filled = fill(stack, calibration, scorers, removed=removed, progress=progress, cache=cache)
    return {label: finished(label, [one]) for label, one in filled.items()}


def fill(
    stack: BlockStack,
    calibration: Iterable[Batch],
    scorers: Mapping[str, Scorer],
    *,
    removed: Sequence[Step] = (),
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Filled]:
    """Run fresh scorers over a calibration set, or over a shard of it, without asking what they found.

    A scorer that fails is set aside, and the others go on.
    """
    passes = shared_passes(scorers)
    if isinstance(calibration, Iterator):  # it could be gone through only once
        calibration = list(calibration)
    removed = in_depth_order(set(removed))
    kept = untouched(removed, len(stack))
    found = {label: Filled(scorer, kept) for label, scorer in scorers.items()}
    with in_eval_mode(stack.model):
        if cache is not None:
            cache.begin(removed)
        for one in passes:
            one.scout(stack)
        for one in passes:
            one.run(stack, calibration, removed, progress, cache)
            for label, scorer in one.scorers.items():
                found[label] = Filled(scorer, kept, one.notes(stack, label), one.failed.get(label))
    return found


def finished(label: str, shards: Sequence[Filled]) -> Importance:
    """What a scorer found in the shards of a calibration set, of which the first one absorbs the others.

    Raises:
        PluginError: the scorer failed, or does not score every block.
        NonFiniteError: a score is a NaN or an infinity.
    """
    first = shards[0]
    for shard in shards:
        if shard.error:
            raise shard.error
    with attributing("scorer", label, type(first.scorer)):
        for other in shards[1:]:
            first.scorer.merge(other.scorer)
        importance = first.scorer.compute()
        if not isinstance(importance, Importance):
            raise PluginError(f"compute() gives {type(importance).__name__}, not an Importance")
        if len(importance.scores) != len(first.blocks):
            raise PluginError(f"it gave {len(importance.scores)} scores for {len(first.blocks)} blocks")
    return replace(importance, blocks=list(first.blocks), notes=(*first.notes, *importance.notes))
