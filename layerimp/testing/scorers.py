"""The contracts of a scorer, checked in float64 on models of four blocks, which are driven as in a run."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layerimp.blocks.snapshot import Snapshot
from layerimp.errors import LayerimpError, PluginError
from layerimp.models.discovery import find_blocks
from layerimp.progress import Silent
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import Filled, fill, finished, measure
from layerimp.sweep import Trace
from layerimp.testing.assertions import leaving_the_generator, require, require_same, require_unharmed
from layerimp.testing.tiny import BLOCKS, VOCAB, batch, padded_batch, tiny_classifier, tiny_model

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch

LENGTHS = (12, 5, 9, 7)
PADDING = {"input_ids": VOCAB - 1, "attention_mask": 0}
SILENT_PROJECTIONS = ("self_attn.o_proj", "mlp.down_proj")
"""The projections through which a block of the tiny decoder adds to the residual stream."""


def _fresh(scorer: Scorer) -> Scorer:
    return type(scorer)(scorer.num_blocks, scorer.config)


def _model() -> Any:
    return tiny_model(dtype=torch.float64)


def _rows() -> list[Batch]:
    """Return the rows of the calibration set, one by one and without padding."""
    whole = padded_batch(LENGTHS)
    return [{name: part[row : row + 1, :length] for name, part in whole.items()} for row, length in enumerate(LENGTHS)]


def _scored(scorer: Scorer, batches: Iterable[Batch], model: Any = None) -> Importance:
    importances = measure(find_blocks(_model() if model is None else model), batches, {scorer.name: scorer})
    return importances[scorer.name]


def scores_are_whole_and_finite(scorer: Scorer) -> None:
    """There is one finite score per block, and each column has as many values."""
    importance = _scored(_fresh(scorer), [padded_batch(LENGTHS)])
    require(len(importance.scores) == BLOCKS, f"{len(importance.scores)} scores for {BLOCKS} blocks")
    require(all(map(math.isfinite, importance.scores)), f"the scores are {importance.scores}")
    require(all(isinstance(note, str) for note in importance.notes), "a note is no text")


def computing_changes_nothing(scorer: Scorer) -> None:
    """`compute` may be called at any time, and again."""
    used = _fresh(scorer)
    _scored(used, _rows())
    first, second = used.compute(), used.compute()
    require(first == second, f"compute() gives {second.scores} where it gave {first.scores} before")


def runs_are_repeatable(scorer: Scorer) -> None:
    """The same model, text and options give the same scores.

    Nothing is drawn from the global generators, and instances share no state.
    """
    runs = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            runs.append(_scored(_fresh(scorer), [padded_batch(LENGTHS)]))
    require_same(runs[1], runs[0], "in a second run")


def batch_size_changes_nothing(scorer: Scorer) -> None:
    """Means are over tokens or rows, never over batches."""
    whole = padded_batch(LENGTHS)
    pairs = [{name: part[start : start + 2] for name, part in whole.items()} for start in range(0, len(LENGTHS), 2)]
    require_same(_scored(_fresh(scorer), pairs), _scored(_fresh(scorer), [whole]), "in batches of two")


def padding_changes_nothing(scorer: Scorer) -> None:
    """Only tokens where `trace.mask` is True count; `trace.rows(site)` gives these."""
    rows = _rows()
    alone = _scored(_fresh(scorer), rows)
    for side in ("left", "right"):
        together = {name: torch.full((len(rows), max(LENGTHS)), filler) for name, filler in PADDING.items()}
        for index, (row, length) in enumerate(zip(rows, LENGTHS, strict=True)):
            where = slice(max(LENGTHS) - length, None) if side == "left" else slice(length)
            for name, part in row.items():
                together[name][index, where] = part[0]
        when = f"with padding on the {side} (trace.rows(site) leaves it out)"
        require_same(_scored(_fresh(scorer), [together]), alone, when)


def shards_merge(scorer: Scorer) -> None:
    """After `merge`, a scorer is as if it had seen both shards."""
    stack, rows = find_blocks(_model()), _rows()
    whole = _scored(_fresh(scorer), rows)
    for cut in (1, len(rows) - 1):
        shards: list[Filled] = []
        for part in (rows[:cut], rows[cut:]):
            shards += fill(stack, part, {scorer.name: _fresh(scorer)}).values()
        require_same(finished(scorer.name, shards), whole, "merged from two shards")


def order_changes_nothing(scorer: Scorer) -> None:
    """The blocks of a batch may come in any order."""
    batches = _recorded(scorer)
    forwards, backwards = _fresh(scorer), _fresh(scorer)
    _replay(forwards, batches)
    _replay(backwards, [batch[::-1] for batch in batches])
    require_same(backwards.compute(), forwards.compute(), "when the last block comes first")


def offloading_changes_nothing(scorer: Scorer) -> None:
    """Of an offloaded model, all batches pass through a block before any of them reaches the next block."""
    batches = _recorded(scorer)
    usual, offloaded = _fresh(scorer), _fresh(scorer)
    _replay(usual, batches)
    apart = type(scorer).end_batch is not Scorer.end_batch
    readers = [_fresh(scorer) if apart else offloaded for _ in batches]
    traces = [(reader, trace) for reader, batch in zip(readers, batches, strict=True) for trace in batch]
    with torch.no_grad():
        for reader, trace in sorted(traces, key=lambda pair: pair[1].block):
            reader.update(_copied(trace))
        for reader in readers:
            reader.end_batch()
            if apart:
                offloaded.merge(reader)
        offloaded.end_sweep()
    require_same(offloaded.compute(), usual.compute(), "when all batches pass through a block before the next block")


def borrowed_tensors_stay(scorer: Scorer) -> None:
    """The tensors in a trace belong to the model: a scorer neither changes nor keeps them."""
    batches = _recorded(scorer)
    careful, robbed = _fresh(scorer), _fresh(scorer)

    def lend(trace: Trace) -> None:
        lent = _copied(trace)
        robbed.update(lent)
        for (what, now), (_, before) in zip(lent.lent(), trace.lent(), strict=True):
            require(torch.equal(now, before), f"update() changed {what} of block {trace.block}; reduce a copy")
            now.fill_(True if now.dtype == torch.bool else -7)

    _replay(careful, batches)
    _replay(robbed, batches, lend)
    expected, actual = careful.compute(), robbed.compute()
    require_same(actual, expected, "when its trace is used again after update(): it keeps a tensor")
    before = len(pickle.dumps(careful))
    _replay(careful, batches)
    grown = (len(pickle.dumps(careful)) - before) / max(1, len(batches))
    lent = min((act.nbytes for traces in batches for trace in traces for act in trace.acts.values()), default=0)
    require(grown <= lent, f"it grows by {grown:,.0f} bytes with each batch: it keeps what it is shown")


def model_stays(scorer: Scorer) -> None:
    """Weights, hooks, modes, the configuration and the random generators are as before."""
    model = _model()
    model.model.layers[1].train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot, listener = Snapshot.of(model), _Listener()
    with leaving_the_generator():
        measure(find_blocks(model), [padded_batch(LENGTHS)], {scorer.name: _fresh(scorer)}, progress=listener)
    require_unharmed(model, snapshot, weights)
    require(not listener.notes, "; ".join(listener.notes))


def pickles_when_used(scorer: Scorer) -> None:
    """A scorer can be pickled after it has seen text: a shard is scored in one process and merged in another."""
    used = _fresh(scorer)
    expected = _scored(used, _rows())
    require_same(pickle.loads(pickle.dumps(used)).compute(), expected, "after pickling")


def other_architectures(scorer: Scorer) -> None:
    """A post-norm encoder with a label is scored, or refused with a `LayerimpError` that says why."""
    text = padded_batch(LENGTHS) | {"labels": torch.tensor([0, 1, 1, 0])}
    model = tiny_classifier(dtype=torch.float64)
    try:
        importance = _scored(_fresh(scorer), [text], model)
    except PluginError:
        raise
    except LayerimpError:
        return
    require(len(importance.scores) == BLOCKS, f"{len(importance.scores)} scores for the {BLOCKS} blocks of an encoder")


def identity_scores_least(scorer: Scorer) -> None:
    """If the scorer declares `identity_scores_least`, a block whose output projections are zero scores least."""
    for block in (0, BLOCKS - 2):
        model = _model()
        for path in SILENT_PROJECTIONS:
            nn.init.zeros_(model.model.layers[block].get_submodule(path).weight)
        scores = _scored(_fresh(scorer), [padded_batch(LENGTHS)], model).scores
        # By magnitude: if harmful blocks score below 0, a block that adds nothing scores 0.
        least = min(range(BLOCKS), key=lambda index: abs(scores[index]))
        require(
            abs(scores[block]) == abs(scores[least]),
            f"block {block} adds nothing and scores {scores[block]:.6g}, block {least} adds something and scores "
            f"{scores[least]:.6g}",
        )


def seams_are_scored_like_blocks(scorer: Scorer) -> None:
    """A seam that adds the same to the same stream as a block gets the same score.

    In the tested model the attention of later blocks adds nothing, so that the seam 1/2 does what block 1 does. The
    last block adds nothing at all. The first block is not scored; it is whole, so that the halves of a block are found.
    """
    last = BLOCKS
    model = tiny_model(dtype=torch.float64, num_hidden_layers=last + 1)
    for index, layer in enumerate(model.model.layers[1:], 1):
        for path in SILENT_PROJECTIONS if index == last else SILENT_PROJECTIONS[:1]:
            nn.init.zeros_(layer.get_submodule(path).weight)
    stack, text = find_blocks(model), [padded_batch(LENGTHS)]
    blocks, seams = (type(scorer)(BLOCKS - 1, scorer.config) for _ in range(2))
    expected = measure(stack, text, {scorer.name: blocks}, removed=[0, last])[scorer.name]
    every = {scorer.name: _fresh(scorer)}
    filled = fill(stack, text, every, seams={scorer.name: seams}, removed=[0])[scorer.name]
    assert filled.beside is not None
    require_same(finished(scorer.name, [filled.beside]), expected, "as the seam that does the same")


def _takes_seams(scorer: Scorer) -> bool:
    """Whether a scorer can score seams and reads no weights, which differ between a seam and a block."""
    if scorer.sweep is None or getattr(scorer.sweep, "parameters", False) or scorer.refusal("seam"):
        return False
    try:
        type(scorer)(BLOCKS - 1, scorer.config)
    except LayerimpError:  # its options need more blocks
        return False
    return True


def scorer_contracts(scorer: Scorer) -> dict[str, Callable[[Any], None]]:
    """Return the contracts that a scorer has to keep, by name."""
    chosen: dict[str, Callable[[Any], None]] = {
        "scores are whole and finite": scores_are_whole_and_finite,
        "computing changes nothing": computing_changes_nothing,
        "runs are repeatable": runs_are_repeatable,
        "batch size changes nothing": batch_size_changes_nothing,
        "padding changes nothing": padding_changes_nothing,
        "order changes nothing": order_changes_nothing,
        "borrowed tensors stay as they are": borrowed_tensors_stay,
        "the model stays as it is": model_stays,
        "it pickles with what it has seen": pickles_when_used,
        "other architectures are scored or refused": other_architectures,
    }
    if scorer.sweep is not None and scorer.sweep.reads_offloaded:
        chosen["offloading changes nothing"] = offloading_changes_nothing
    if scorer.sweep is None or not scorer.sweep.whole:
        chosen["shards merge"] = shards_merge
    if _takes_seams(scorer):
        chosen["seams are scored like blocks"] = seams_are_scored_like_blocks
    if scorer.identity_scores_least:
        chosen["an identity scores least"] = identity_scores_least
    return chosen


class _Listener(Silent):
    """Collects the notes of the engine about a pass, such as hooks that it had to remove."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class _Recorder(Scorer):
    """Keeps copies of the traces that another scorer would see."""

    name = "recorder"

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer.num_blocks)
        self.sweep, self.observes, self.lookback = scorer.sweep, scorer.observes, scorer.lookback
        self.batches: list[list[Trace]] = [[]]

    def update(self, trace: Trace) -> None:
        self.batches[-1].append(_copied(trace))

    def end_batch(self) -> None:
        self.batches.append([])

    def merge(self, other: _Recorder) -> None:
        raise NotImplementedError

    def compute(self) -> Importance:
        return Importance(scores=[0.0] * self.num_blocks)


def _recorded(scorer: Scorer) -> list[list[Trace]]:
    """Return a scorer's traces of two batches, one without padding, for which `trace.rows` makes no copy."""
    recorder = _Recorder(scorer)
    _scored(recorder, [padded_batch(LENGTHS), batch()])
    return recorder.batches[:-1]


def _replay(scorer: Scorer, batches: Sequence[Sequence[Trace]], update: Callable[[Trace], None] | None = None) -> None:
    """Show a scorer the recorded traces, each time as new copies."""
    with torch.no_grad():
        for batch in batches:
            for trace in batch:
                (update or (lambda shown: scorer.update(_copied(shown))))(trace)
            scorer.end_batch()
        scorer.end_sweep()


def _copied(trace: Trace) -> Trace:
    return replace(
        trace,
        acts={site: act.detach().clone() for site, act in trace.acts.items()},
        mask=trace.mask.clone(),
        inputs={at: act.detach().clone() for at, act in trace.inputs.items()},
        targets=None if trace.targets is None else trace.targets.detach().clone(),
        extras={name: extra.detach().clone() for name, extra in trace.extras.items()},
        gradients={
            name: (weight.detach().clone(), gradient.detach().clone())
            for name, (weight, gradient) in trace.gradients.items()
        },
    )
