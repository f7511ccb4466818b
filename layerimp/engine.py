"""Runs many scorers over a calibration set in as few sweeps as possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from layerimp.blocks import find_blocks
from layerimp.errors import CalibrationError, LayerimpError, ModelError, OptionError, PluginError
from layerimp.model import in_eval_mode
from layerimp.plugins import one_line
from layerimp.progress import SILENT, Progress
from layerimp.registry import registry
from layerimp.scorer import Importance, Scorer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack
    from layerimp.sweep import Batch, Scouting, Sweep, Trace
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
    made = registry().get("scorer", item)(num_blocks)
    assert isinstance(made, Scorer)
    return made


@dataclass
class _Pass:
    """One sweep, and the scorers that share it.

    Attributes:
        sweep: The sweep that serves all of them.
        scorers: The scorers, by label.
        scouting: Where the model has the sites that they read.
        renamed: For each scorer, the sites that the model lacks, and what is read in their place.
    """

    sweep: Sweep
    scorers: dict[str, Scorer]
    scouting: Scouting = field(init=False)
    renamed: dict[str, dict[str, str]] = field(init=False)

    def scout(self, stack: BlockStack) -> None:
        """Find out, before anything long, whether the model has what the scorers read."""
        wanted = {site for scorer in self.scorers.values() for site in scorer.observes}
        # The sites that stand in for others are looked for as well, since the probe is made once.
        substitutes = {scorer.fallbacks.get(site) for scorer in self.scorers.values() for site in scorer.observes}
        self.scouting = self.sweep.scout(stack, frozenset(wanted | {site for site in substitutes if site}))
        missing = self.scouting.missing
        self.renamed = {label: _fallbacks(label, scorer, missing) for label, scorer in self.scorers.items()}

    @property
    def sites(self) -> frozenset[str]:
        """The sites that are read."""
        scorers = self.scorers.items()
        return frozenset(self.renamed[label].get(site, site) for label, scorer in scorers for site in scorer.observes)


@dataclass(frozen=True)
class Filled:
    """A scorer that has seen a calibration set, or a shard of one.

    Attributes:
        scorer: The scorer.
        blocks: The indices of the blocks that it scored, in the original model.
        notes: What a reader of its scores has to know.
    """

    scorer: Scorer
    blocks: Sequence[int]
    notes: Sequence[str] = ()


def measure(
    stack: BlockStack,
    calibration: Iterable[Batch],
    scorers: Mapping[str, Scorer],
    *,
    removed: Sequence[int] = (),
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Importance]:
    """Run fresh scorers over the calibration set, with the blocks `removed` bypassed; see `score`.

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
    removed: Sequence[int] = (),
    progress: Progress = SILENT,
    cache: BlockCache | None = None,
) -> dict[str, Filled]:
    """Run fresh scorers over a calibration set, or over a shard of it, without asking what they found."""
    passes: list[_Pass] = []
    for label, scorer in scorers.items():
        if scorer.sweep is None:
            continue
        for existing in passes:
            if joint := existing.sweep.union(scorer.sweep):
                existing.sweep = joint
                existing.scorers[label] = scorer
                break
        else:
            passes.append(_Pass(scorer.sweep, {label: scorer}))
    if isinstance(calibration, Iterator):  # it could be gone through only once
        calibration = list(calibration)
    kept = [index for index in range(len(stack)) if index not in set(removed)]
    found = {label: Filled(scorer, kept) for label, scorer in scorers.items()}
    with in_eval_mode(stack.model):
        if cache is not None:
            cache.begin(removed)
        for one in passes:
            one.scout(stack)
        for one in passes:
            _run(one, stack, calibration, kept, removed, progress, cache)
            for label, scorer in one.scorers.items():
                scorer.end_sweep()
                found[label] = replace(found[label], notes=_fallback_notes(stack, one, label))
    return found


def finished(label: str, shards: Sequence[Filled]) -> Importance:
    """What a scorer found in the shards of a calibration set, of which the first one absorbs the others.

    Raises:
        PluginError: the scorer does not score every block.
        NonFiniteError: a score is a NaN or an infinity.
    """
    first = shards[0]
    for other in shards[1:]:
        first.scorer.merge(other.scorer)
    importance = first.scorer.compute()
    if len(importance.scores) != len(first.blocks):
        raise PluginError(f"scorer {label!r} gave {len(importance.scores)} scores for {len(first.blocks)} blocks")
    return replace(importance, blocks=list(first.blocks), notes=(*first.notes, *importance.notes))


def _run(
    one: _Pass,
    stack: BlockStack,
    calibration: Iterable[Batch],
    kept: list[int],
    removed: Sequence[int],
    progress: Progress,
    cache: BlockCache | None,
) -> None:
    def emit(trace: Trace) -> None:
        for label, scorer in one.scorers.items():
            try:
                scorer.update(_view(trace, one.renamed[label]))
            except (LayerimpError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                where = f"at block {kept[trace.block]}, batch {trace.batch}"
                raise PluginError(f"scorer {label!r} failed {where}: {one_line(error)}") from error

    total = len(calibration) if isinstance(calibration, Sized) else None
    with progress.stage(f"score {', '.join(one.scorers)}", total) as advance:

        def end_batch() -> None:
            for scorer in one.scorers.values():
                scorer.end_batch()
            advance(1)

        one.sweep.drive(
            stack,
            Checked(calibration, stack),
            sites=one.sites,
            scouting=one.scouting,
            lookback=max(scorer.lookback for scorer in one.scorers.values()),
            removed=removed,
            emit=emit,
            end_batch=end_batch,
            cache=cache,
        )


def _fallbacks(label: str, scorer: Scorer, missing: Mapping[str, list[int]]) -> dict[str, str]:
    """For each site that the model lacks, the one that the scorer reads in its place, in all blocks alike."""
    renamed = {}
    for site in sorted(scorer.observes & missing.keys()):
        other = scorer.fallbacks.get(site)
        if other is None:
            raise ModelError(f"scorer {label!r} reads the site {site!r}, which block {missing[site][0]} does not have")
        renamed[site] = other
    return renamed


def _fallback_notes(stack: BlockStack, one: _Pass, label: str) -> list[str]:
    missing = one.scouting.missing
    return [_fallback_note(stack, site, other, missing[site]) for site, other in one.renamed[label].items()]


def _fallback_note(stack: BlockStack, site: str, other: str, blocks: list[int]) -> str:
    where = "no block has" if len(blocks) == len(stack) else f"{len(blocks)} of {len(stack)} blocks have no"
    kind = type(stack[blocks[0]]).__name__
    return f"{where} site {site} ({kind}); {other} is read instead, in every block"


def _view(trace: Trace, renamed: Mapping[str, str]) -> Trace:
    if not renamed:
        return trace
    return replace(trace, acts={**trace.acts, **{site: trace.acts[other] for site, other in renamed.items()}})


@dataclass(frozen=True)
class Checked:
    """The batches of a calibration set, each of them sound, padded on the right and on the model's device.

    Attributes:
        calibration: The batches as they came.
        stack: The blocks of the model that they are for.

    Raises:
        CalibrationError: while iterating: there is no batch, a row without a token, an id beyond the embedding, or a
            label that is no class of the model.
    """

    calibration: Iterable[Batch]
    stack: BlockStack

    def __iter__(self) -> Iterator[Batch]:
        number = -1
        for number, batch in enumerate(self.calibration):
            yield _sound(batch, self.stack, number)
        if number < 0:
            raise CalibrationError("the calibration set is empty")


def _sound(batch: Batch, stack: BlockStack, number: int) -> Batch:
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise CalibrationError(
            f"batch {number}: input_ids {list(ids.shape)} and attention_mask {list(mask.shape)} are not both "
            "[batch, seq]"
        )
    if empty := (~mask.bool().any(dim=1)).nonzero().flatten().tolist():
        raise CalibrationError(f"batch {number}: row {empty[0]} holds no token")
    real = ids[mask.bool()]
    if int(real.max()) >= stack.vocab_size or int(real.min()) < 0:
        raise CalibrationError(
            f"batch {number} holds token id {int(real.max() if real.min() >= 0 else real.min())}, but the model "
            f"has embeddings for ids 0 to {stack.vocab_size - 1}; is this the model's own tokenizer?"
        )
    # Padding goes to the right, where it shifts no position, and its ids, which may be any, into the vocabulary.
    order = mask.bool().sort(dim=1, descending=True, stable=True).indices
    ids, mask = ids.gather(1, order).clamp(0, stack.vocab_size - 1), mask.gather(1, order)
    moved = {"input_ids": ids.to(stack.device), "attention_mask": mask.to(stack.device)}
    return moved | _labels(batch, stack, number)


def _labels(batch: Batch, stack: BlockStack, number: int) -> dict[str, Tensor]:
    """The class ids [batch] that came with a batch, sound; a model that generates text has none to predict."""
    labels = batch.get("labels")
    if labels is None or stack.model.can_generate():
        return {}
    rows, classes = len(batch["input_ids"]), int(stack.model.config.num_labels or 0)
    if labels.shape != (rows,) or labels.is_floating_point():
        kind = str(labels.dtype).removeprefix("torch.")
        raise CalibrationError(
            f"batch {number}: labels {list(labels.shape)} of {kind} are not one class id for each of {rows} rows"
        )
    if wrong := [int(label) for label in labels if not 0 <= int(label) < classes]:
        raise CalibrationError(f"batch {number} holds label {wrong[0]}, but the model has classes 0 to {classes - 1}")
    return {"labels": labels.long().to(stack.device)}
