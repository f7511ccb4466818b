"""Runs many scorers over a calibration set in as few sweeps as possible."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from layerimp.blocks.halves import halves_of
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import LayerimpError, PluginError
from layerimp.models.discovery import find_blocks
from layerimp.progress import SILENT, Progress
from layerimp.registry.attribution import attributing
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.passes import Key, Scored, shared_passes
from layerimp.scoring.requested import Options, requested
from layerimp.scoring.series import Units, joined, series_of
from layerimp.steps import Cuts, Step, checked_cuts, simplest
from layerimp.sweep.units import units_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.sweep.cache import BlockCache
    from layerimp.sweep.units import Unit


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
    return measure(stack, calibration, ready, beside=beside, progress=progress or SILENT)


@dataclass(frozen=True)
class Filled:
    """A scorer that has seen a calibration set.

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


class How(TypedDict, total=False):
    """How a calibration set is scored.

    Attributes:
        beside: The scorers of the second series, by label, made for the number of its units: seams, or MLPs. They
            share the passes of the other scorers, and one result holds both series of a label, in depth order.
        units: What is scored: only blocks of which nothing is removed (`blocks`), also those composed of two halves,
            and seams (`all`), or attentions and, beside them, MLPs, of which none can be removed alone (`sublayers`).
            By default `all` if there are scorers `beside` the others, else `blocks`.
        removed: The steps that are bypassed.
        progress: Where to report progress.
        cache: The outputs of blocks in earlier calls.
        memory: What sweeps keep of the intact model in earlier calls; see `Drive.memory`. For one set only.
        among: The steps to score, if not all that can be taken next. The scorers are made for their number.
    """

    beside: Mapping[str, Scorer]
    units: Units
    removed: Sequence[Step]
    progress: Progress
    cache: BlockCache | None
    memory: MutableMapping[Hashable, Any]
    among: Collection[Step] | None


def measure(
    stack: BlockStack, calibration: Iterable[Batch], scorers: Mapping[str, Scorer], **how: Unpack[How]
) -> dict[str, Importance]:
    """Run fresh scorers over the calibration set, with the steps `removed` bypassed; see `score`.

    The steps that can be taken next are scored; see `layerimp.steps.candidates`. If the same `cache` is passed to
    several calls with the same set, blocks before the first difference between two calls are not run again.

    Args:
        stack: The model's blocks.
        calibration: The calibration set.
        scorers: The scorers of the first series, by label, made for the number of its units.
        how: See `How`.

    Raises:
        ModelError: a scorer does not fit the model, or cannot score such units, or the blocks cannot be divided.
    """
    filled = fill(stack, calibration, scorers, **how)
    return {label: finished(label, scored) for label, scored in filled.items()}


def fill(
    stack: BlockStack, calibration: Iterable[Batch], scorers: Mapping[str, Scorer], **how: Unpack[How]
) -> dict[str, Filled]:
    """Run fresh scorers over a calibration set, without asking what they found; see `measure`.

    If a scorer fails, the others go on without it.
    """
    removed, beside, cache = simplest(how.get("removed", ())), how.get("beside", {}), how.get("cache")
    units_scored = how.get("units") or ("all" if beside else "blocks")
    series = series_of(units_scored, removed, len(stack), how.get("among"))
    filled: dict[Key, Filled] = {}
    units: list[list[Unit]] = []
    for which, own in enumerate((scorers, beside)):
        steps = series[which].steps
        for label, scorer in own.items():
            series[which].take(label, scorer)
            filled[label, which] = Filled(scorer, steps, what=series[which].what)
        units.append(units_of(steps if own else [], removed))
    if isinstance(calibration, Iterator):  # an iterator can be used only once
        calibration = list(calibration)
    passes = shared_passes((scorers, beside))
    with in_eval_mode(stack.model):
        if cache is not None:
            cache.begin(removed)
        halves = halves_of(stack, {block for unit in chain(*units) for block in unit.divided}) if passes else {}
        memory = how.get("memory", {})
        scored = Scored(stack, calibration, removed, units, halves, how.get("progress", SILENT), cache, memory)
        for one_pass in passes:
            one_pass.scout(stack)
        for one_pass in passes:
            one_pass.run(scored)
            for key in one_pass.scorers:
                notes, error = one_pass.notes(stack, key), one_pass.failed.get(key)
                filled[key] = replace(filled[key], notes=notes, error=error)
    joint: dict[str, Filled] = {}
    for (label, _), one in filled.items():
        joint[label] = replace(joint[label], beside=one) if label in joint else one
    return joint


def finished(label: str, filled: Filled) -> Importance:
    """Compute the importance from what a scorer has seen.

    Raises:
        PluginError: the scorer failed, or does not score every block, or every window.
        NonFiniteError: a score is a NaN or an infinity.
    """
    importance = _computed(label, filled)
    if filled.beside is None:
        return importance
    return joined(importance, _computed(label, filled.beside), filled.beside.what)


def _computed(label: str, filled: Filled) -> Importance:
    """Compute the importance in one series."""
    if filled.error:
        raise filled.error
    steps, what = filled.blocks, filled.what
    with attributing("scorer", label, type(filled.scorer)):
        importance = filled.scorer.compute()
        if not isinstance(importance, Importance):
            raise PluginError(f"compute() gives {type(importance).__name__}, not an Importance")
        if len(importance.scores) != len(steps):
            raise PluginError(f"it gave {len(importance.scores)} scores for {len(steps)} {what}")
        for length, windows in importance.spans.items():
            if len(windows) != len(steps) - length + 1:
                raise PluginError(f"it gave {len(windows)} windows of {length} for {len(steps)} {what}")
    return replace(importance, blocks=list(steps), notes=(*filled.notes, *importance.notes))
