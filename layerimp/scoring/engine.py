"""Runs many scorers over a calibration set in as few sweeps as possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

from layerimp.blocks.halves import halves_of
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import LayerimpError, OptionError, PluginError
from layerimp.models.discovery import find_blocks
from layerimp.progress import SILENT, Progress
from layerimp.registry.attribution import attributing
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.passes import Scored, shared_passes
from layerimp.scoring.requested import Options, requested
from layerimp.scoring.series import ScoredSeries, joined
from layerimp.steps import Cuts, Step, candidates, checked_cuts, simplest, sublayer_units
from layerimp.sweep.units import divided_by, units_of

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
    cuts: Cuts = "blocks",
    progress: Progress | None = None,
) -> dict[str, Importance]:
    """Score every block of a model, and with the cuts `all` every seam between two blocks as well.

    Args:
        model: Any Hugging Face transformer; it is not changed.
        calibration: Batches of `input_ids` and `attention_mask` [batch, seq]; iterated over once per pass.
        scorers: Names of registered scorers, or `Scorer` instances for this model's number of blocks; in a mapping, by
            the label of the result. An instance adds to what it has seen before.
        options: Options of scorers that are given by name, by label, such as `{"avss": {"site": "block_delta"}}`.
        cuts: The units to score: `blocks`, or `all` for blocks and seams, which are two series in one result, each with
            shares and windows of its own.
        progress: Where to report progress.

    Returns:
        The importance by label, which is the scorer's name if no label was given.

    Raises:
        UnknownNameError: no scorer has that name, no such option exists, or `cuts` is neither `blocks` nor `all`.
        OptionError: an option has a value of the wrong type, or belongs to an instance, which has its options already.
        ModelError: a scorer does not fit the model, or cannot score seams.
        CalibrationError: a batch is empty, malformed or holds ids that the model has no embedding for.
        NonFiniteError: the model or a scorer produces a NaN or an infinity.
    """
    cuts, stack = checked_cuts(cuts), find_blocks(model)
    ready = requested(scorers, options, len(stack))
    beside: dict[str, Scorer] = {}
    if cuts == "all" and len(stack) > 1:
        for label, scorer in ready.items():
            with attributing("scorer", label, type(scorer)):
                beside[label] = type(scorer)(len(stack) - 1, scorer.config)
    return measure(stack, calibration, ready, seams=beside, progress=progress or SILENT)


@dataclass(frozen=True)
class Filled:
    """A scorer that has seen a calibration set, or a shard of one.

    Attributes:
        scorer: The scorer.
        blocks: What it scored, as steps.
        notes: What a reader of its scores has to know.
        error: The error with which it failed, so that it has not seen the whole text; None if it did not fail.
        beside: The scorer of the second series, such as the seams; None if there is only one series.
        what: What it scored, in a word such as `seams`.
    """

    scorer: Scorer
    blocks: Sequence[Step]
    notes: Sequence[str] = ()
    error: LayerimpError | None = None
    beside: Filled | None = None
    what: str = "blocks"


def measure(
    stack: BlockStack,
    calibration: Iterable[Batch],
    scorers: Mapping[str, Scorer],
    *,
    seams: Mapping[str, Scorer] = MappingProxyType({}),
    removed: Sequence[Step] = (),
    cuts: Cuts | None = None,
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Importance]:
    """Run fresh scorers over the calibration set, with the steps `removed` bypassed; see `score`.

    The steps that can be taken next are scored; see `layerimp.steps.candidates`. If the same `cache` is passed to
    several calls with the same set, blocks before the first difference between two calls are not run again.

    Args:
        stack: The model's blocks.
        calibration: The calibration set.
        scorers: The scorers of blocks, by label, made for the number of blocks.
        seams: The scorers of seams, by the same labels, made for the number of seams. They share the passes of the
            other scorers, and one result holds both series, in depth order.
        removed: The steps that are bypassed.
        cuts: Whether to score only blocks of which nothing is removed (`blocks`), or also those composed of two halves
            (`all`); by default `all` if `seams` are given.
        progress: Where to report progress.
        cache: The outputs of blocks in earlier calls.

    Raises:
        ModelError: a scorer does not fit the model, or cannot score seams; or the model's blocks cannot be divided.
    """
    filled = fill(stack, calibration, scorers, seams=seams, removed=removed, cuts=cuts, progress=progress, cache=cache)
    return {label: finished(label, [shard]) for label, shard in filled.items()}


def fill(
    stack: BlockStack,
    calibration: Iterable[Batch],
    scorers: Mapping[str, Scorer],
    *,
    seams: Mapping[str, Scorer] = MappingProxyType({}),
    removed: Sequence[Step] = (),
    cuts: Cuts | None = None,
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Filled]:
    """Run fresh scorers over a calibration set, or over a shard of it, without asking what they found; see `measure`.

    If a scorer fails, the others go on without it.
    """
    removed = simplest(removed)
    steps = candidates(removed, len(stack), cuts or ("all" if seams else "blocks"))
    series = (ScoredSeries("blocks", steps[0], scorers), ScoredSeries("seams", steps[1], seams, "seam"))
    return _fill(stack, calibration, series, removed, progress, cache)


def measure_sublayers(
    stack: BlockStack,
    calibration: Iterable[Batch],
    attention: Mapping[str, Scorer],
    mlp: Mapping[str, Scorer],
    *,
    removed: Sequence[Step] = (),
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Importance]:
    """Score the attentions and the MLPs separately, with the steps `removed` bypassed.

    Attentions and MLPs are two series, each scored by itself. One result holds both, in depth order: `0.attn`, `0.mlp`,
    `1.attn`. None of them can be removed alone.

    Args:
        stack: The model's blocks.
        calibration: The calibration set.
        attention: The scorers of the attentions that are left, by label, made for the number of these attentions.
        mlp: The scorers of the MLPs, by the same labels.
        removed: The steps that are bypassed.
        progress: Where to report progress.
        cache: The outputs of blocks in earlier calls.

    Raises:
        ModelError: a scorer does not fit the model or cannot score single sublayers, or the model's blocks cannot be
            divided.
    """
    filled = fill_sublayers(stack, calibration, attention, mlp, removed=removed, progress=progress, cache=cache)
    return {label: finished(label, [shard]) for label, shard in filled.items()}


def fill_sublayers(
    stack: BlockStack,
    calibration: Iterable[Batch],
    attention: Mapping[str, Scorer],
    mlp: Mapping[str, Scorer],
    *,
    removed: Sequence[Step] = (),
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Filled]:
    """Run fresh scorers over a calibration set without asking what they found; see `measure_sublayers`.

    If a scorer fails, the others go on without it.
    """
    removed = simplest(removed)
    steps = sublayer_units(removed, len(stack))
    series = (
        ScoredSeries("attention", steps[0], attention, "sublayer"),
        ScoredSeries("MLP", steps[1], mlp, "sublayer"),
    )
    return _fill(stack, calibration, series, removed, progress, cache)


def _fill(
    stack: BlockStack,
    calibration: Iterable[Batch],
    series: Sequence[ScoredSeries],
    removed: Sequence[Step],
    progress: Progress,
    cache: BlockCache | None,
) -> dict[str, Filled]:
    """Run the scorers of all series over a calibration set."""
    if strange := sorted(series[1].scorers.keys() - series[0].scorers.keys()):
        raise OptionError(f"scorer {strange[0]!r} is to score the {series[1].what}, and not the {series[0].what}")
    for own in series:
        own.check()
    scorers = {(label, which): scorer for label in series[0].scorers for which, scorer in _both(series, label)}
    passes = shared_passes(scorers)
    if isinstance(calibration, Iterator):  # an iterator can be used only once
        calibration = list(calibration)
    filled = {key: Filled(scorer, series[key[1]].steps, what=series[key[1]].what) for key, scorer in scorers.items()}
    with in_eval_mode(stack.model):
        if cache is not None:
            cache.begin(removed)
        units = [units_of(own.steps if own.scorers else [], removed) for own in series]
        scored = Scored(removed, units, halves_of(stack, divided_by(chain(*units))) if passes else {})
        for one_pass in passes:
            one_pass.scout(stack)
        for one_pass in passes:
            one_pass.run(stack, calibration, scored, progress, cache)
            for key, scorer in one_pass.scorers.items():
                notes, error = one_pass.notes(stack, key), one_pass.failed.get(key)
                filled[key] = replace(filled[key], scorer=scorer, notes=notes, error=error)
    return {label: replace(filled[label, 0], beside=filled.get((label, 1))) for label in series[0].scorers}


def _both(series: Sequence[ScoredSeries], label: str) -> Iterator[tuple[int, Scorer]]:
    """Yield the scorers of a label, each with the number of its series."""
    for which, own in enumerate(series):
        if label in own.scorers:
            yield which, own.scorers[label]


def finished(label: str, shards: Sequence[Filled]) -> Importance:
    """Compute the importance from the shards of a calibration set; the first scorer absorbs the others.

    Raises:
        PluginError: the scorer failed, or does not score every block.
        NonFiniteError: a score is a NaN or an infinity.
    """
    importance = _computed(label, shards)
    beside = [shard.beside for shard in shards if shard.beside is not None]
    if not beside:
        return importance
    return joined(importance, _computed(label, beside), beside[0].what)


def _computed(label: str, shards: Sequence[Filled]) -> Importance:
    """Compute the importance in one series."""
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
            raise PluginError(f"it gave {len(importance.scores)} scores for {len(first.blocks)} {first.what}")
    return replace(importance, blocks=list(first.blocks), notes=(*first.notes, *importance.notes))
