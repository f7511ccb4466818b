"""The contracts of a scorer, checked in float64 on models of four blocks, which are driven as in a run."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from layerimp.errors import LayerimpError, PluginError
from layerimp.models.discovery import find_blocks
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import fill, measure
from layerimp.surgery.removal import pruned
from layerimp.sweep import Trace
from layerimp.sweep.cache import BlockCache
from layerimp.testing.contracts import Contracts, only_if, require, unharmed
from layerimp.testing.tiny import BLOCKS, VOCAB, batch, padded_batch, tiny_classifier, tiny_model

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch

LENGTHS = (12, 5, 9, 7)
TEXT = (padded_batch(LENGTHS),)
PAIR = (*TEXT, batch())
"""Two batches, one without padding, for which `trace.rows` makes no copy."""
ROUNDING = 1e-8
"""The tolerance relative to a scorer's largest number. Two ways to add up the same float64 numbers differ by less."""
SILENT_PROJECTIONS = ("self_attn.o_proj", "mlp.down_proj")
"""The projections through which a block of the tiny decoder adds to the residual stream."""


def _model(blocks: int = BLOCKS) -> Any:
    return tiny_model(dtype=torch.float64, num_hidden_layers=blocks)


def _rows(whole: Batch = TEXT[0]) -> list[Batch]:
    """Return the rows of a batch, one by one and without padding."""
    kept = whole["attention_mask"].bool()
    return [{name: part[row : row + 1, kept[row]] for name, part in whole.items()} for row in range(len(kept))]


def _scored(scorer: Scorer, batches: Iterable[Batch] = TEXT, model: Any = None, **how: Any) -> Importance:
    return measure(find_blocks(model or _model()), batches, {scorer.name: scorer}, **how)[scorer.name]


def _recorded(scorer: Scorer) -> list[list[Trace]]:
    """Return copies of the traces that a scorer is shown, by batch."""
    traces: list[list[Trace]] = [[] for _ in PAIR]
    vars(scorer).update(update=lambda trace: traces[trace.batch].append(_copied(trace)), end_sweep=lambda: None)
    fill(find_blocks(_model()), PAIR, {scorer.name: scorer})
    return traces


def _replayed(
    scorer: Scorer, batches: Iterable[Iterable[Trace]], update: Callable[[Trace], None] | None = None
) -> Importance:
    """Show a scorer recorded traces, each time as new copies, and return what it computes."""
    with torch.no_grad():
        for trace in chain(*batches):
            (update or scorer.update)(_copied(trace))
        scorer.end_sweep()
    return scorer.compute()


def _copied(trace: Trace) -> Trace:
    """Return a trace with copies of its tensors."""
    parts = {name: dict(part) if isinstance(part, Mapping) else part for name, part in vars(trace).items()}
    return replace(trace, **tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), parts))


class ScorerContracts(Contracts[Scorer]):
    """The contracts of a scorer."""

    def _fresh(self, num_blocks: int = BLOCKS) -> Scorer:
        return type(self.component)(num_blocks, self.component.config)

    def scores_are_whole_and_finite(self) -> None:
        """There is one finite score per block, and each column has as many values."""
        importance = _scored(self._fresh())  # which checks the number of scores
        require(all(map(math.isfinite, importance.scores)), f"the scores are {importance.scores}")
        require(all(isinstance(note, str) for note in importance.notes), "a note is no text")

    def computing_changes_nothing(self) -> None:
        """`compute` may be called at any time, and again.

        It reads what `update` gathered, and does not change it.
        """
        used = self._fresh()
        _scored(used, _rows())
        first, second = used.compute(), used.compute()
        require(first == second, f"compute() gives {second.scores} where it gave {first.scores} before")

    def runs_are_repeatable(self) -> None:
        """The same model, text and options give the same scores.

        Draw random numbers from a generator whose seed is an option. Instances share nothing.
        """
        runs = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                runs.append(_scored(self._fresh()))
        _require_same(runs[1], runs[0], "in a second run")

    def batch_size_changes_nothing(self) -> None:
        """Means are over tokens or rows, never over batches.

        The batch size depends only on the memory at hand.
        """
        pairs = [{name: part[rows] for name, part in TEXT[0].items()} for rows in (slice(2), slice(2, None))]
        _require_same(_scored(self._fresh(), pairs), _scored(self._fresh()), "in batches of two")

    def padding_changes_nothing(self) -> None:
        """Only tokens where `trace.mask` is True count; `trace.rows(site)` gives these.

        Padding may stand on either side, with any ids.
        """
        for side in ("left", "right"):
            whole = padded_batch(LENGTHS, left=side == "left")
            ids = whole["input_ids"].masked_fill(whole["attention_mask"] == 0, VOCAB - 1)
            together, alone = _scored(self._fresh(), [whole | {"input_ids": ids}]), _scored(self._fresh(), _rows(whole))
            _require_same(together, alone, f"with padding on the {side} (trace.rows(site) leaves it out)")

    def order_changes_nothing(self) -> None:
        """The blocks of a batch may come in any order.

        A scorer that needs the inputs of earlier blocks asks for them by `lookback`.
        """
        batches = _recorded(self._fresh())
        forwards = _replayed(self._fresh(), batches)
        backwards = _replayed(self._fresh(), [traces[::-1] for traces in batches])
        _require_same(backwards, forwards, "when the last block comes first")

    def offloading_changes_nothing(self) -> None:
        """Of an offloaded model, all batches pass through a block before any of them reaches the next block.

        A scorer that needs a batch as a whole keeps its numbers by `trace.batch`, and joins them in `end_sweep`.
        """
        only_if(self.component.sweep is not None and self.component.sweep.reads_offloaded)
        batches = _recorded(self._fresh())
        by_block = sorted(chain(*batches), key=lambda trace: trace.block)
        usual, offloaded = _replayed(self._fresh(), batches), _replayed(self._fresh(), [by_block])
        _require_same(offloaded, usual, "when all batches pass through a block before the next block")

    def borrowed_tensors_stay_as_they_are(self) -> None:
        """The tensors in a trace belong to the model: a scorer neither changes nor keeps them.

        Reduce a tensor, and keep the result. A view is a tensor of the model, too.
        """
        batches = _recorded(self._fresh())
        careful, robbed = self._fresh(), self._fresh()

        def lend(lent: Trace) -> None:
            before = _copied(lent)
            robbed.update(lent)
            for (what, now), (_, then) in zip(lent.lent(), before.lent(), strict=True):
                require(torch.equal(now, then), f"update() changed {what} of block {lent.block}; reduce a copy")
                now.fill_(True if now.dtype == torch.bool else -7)

        expected, actual = _replayed(careful, batches), _replayed(robbed, batches, lend)
        _require_same(actual, expected, "when its trace is used again after update(): it keeps a tensor")
        before = len(pickle.dumps(careful))
        _replayed(careful, batches)
        grown = (len(pickle.dumps(careful)) - before) / len(batches)
        lent = min((act.nbytes for trace in chain(*batches) for act in trace.acts.values()), default=0)
        require(grown <= lent, f"it grows by {grown:,.0f} bytes with each batch: it keeps what it is shown")

    def the_model_stays_as_it_is(self) -> None:
        """Weights, hooks, modes, the configuration and the random generators are as before.

        If a scorer has to change the model for a while, use a context manager that undoes the change.
        """
        model = _model()
        model.model.layers[1].train()
        with unharmed(model):
            _scored(self._fresh(), model=model)

    def other_architectures_are_scored_or_refused(self) -> None:
        """A post-norm encoder with a label is scored, or refused with a `LayerimpError` that says why.

        Any other exception looks like a crash to a user.
        """
        labelled = [TEXT[0] | {"labels": torch.tensor([0, 1, 1, 0])}]
        try:
            _scored(self._fresh(), labelled, tiny_classifier(dtype=torch.float64))
        except PluginError:
            raise
        except LayerimpError:
            pass

    def an_identity_scores_least(self) -> None:
        """If the scorer declares `identity_scores_least`, a block whose output projections are zero scores least.

        If harmful blocks score below 0, it gets exactly 0.
        """
        only_if(self.component.identity_scores_least)
        for block in (0, BLOCKS - 2):
            model = _model()
            _silence(model.model.layers[block])
            scores = _scored(self._fresh(), model=model).scores
            least = min(range(BLOCKS), key=scores.__getitem__)
            require(
                scores[block] in (0, scores[least]),
                f"block {block} adds nothing and scores {scores[block]:.6g}, block {least} adds something and scores "
                f"{scores[least]:.6g}",
            )

    def some_blocks_score_as_among_all(self) -> None:
        """If the sweep declares `separate`, a block's score does not depend on which other blocks are scored.

        A search relies on it when it scores only a few blocks again.
        """
        sweep = self.component.sweep
        only_if(sweep is not None and sweep.separate and not self.component.lookback)
        few, every = _scored(self._fresh(2), among=[0, BLOCKS - 2]), _scored(self._fresh()).scores
        scale = max(map(abs, every)) or 1.0
        for block, score in zip(few.blocks, few.scores, strict=True):
            near = abs(score - every[block]) <= ROUNDING * scale
            require(near, f"block {block} scores {score:.6g} among 2 blocks, and {every[block]:.6g} among all")

    def removed_blocks_are_out(self) -> None:
        """After a removal, the scores are those of a model that never had the removed blocks.

        A sweep bypasses `drive.removed`. If it declares `reads_intact`, the removed block of the tested model adds
        nothing, so that the intact models predict the same.
        """
        only_if(self.component.sweep is not None)
        gone, model = 1, _model(BLOCKS + 1)
        if self.component.sweep is not None and self.component.sweep.reads_intact:
            _silence(model.model.layers[gone])
        actual = _scored(self._fresh(), model=model, removed=[gone])
        with pruned(model, [gone]):
            expected = _scored(self._fresh(), model=model)
        _require_same(actual, expected, f"after block {gone} was removed", "in a model that never had it")

    def kept_memory_changes_nothing(self) -> None:
        """A search scores one text many times, and passes on what was kept: `drive.memory` and `drive.cache`.

        Keep only what depends on the intact model and the text, whatever is removed.
        """
        only_if(self.component.sweep is not None)
        model = _model(BLOCKS + 1)
        kept: dict[str, Any] = {"cache": BlockCache(find_blocks(model)), "memory": {}}
        for gone in ([1], [], [2]):
            fresh = [self._fresh(BLOCKS + 1 - len(gone)) for _ in range(2)]
            with_memory = _scored(fresh[0], model=model, removed=gone, **kept)
            without = _scored(fresh[1], model=model, removed=gone)
            when = f"without block {gone[0]}" if gone else "in the intact model"
            _require_same(with_memory, without, f"{when} after earlier scorings", "without these")


def _silence(block: nn.Module) -> None:
    """Let a block of the tiny decoder add nothing to the residual stream."""
    for path in SILENT_PROJECTIONS:
        nn.init.zeros_(block.get_submodule(path).get_parameter("weight"))


def _require_same(actual: Importance, expected: Importance, when: str, otherwise: str = "otherwise") -> None:
    """Require scores, columns and scores of windows that are equal up to rounding."""
    ours, theirs = _parts(actual), _parts(expected)
    shape, usual = ({part: len(values) for part, values in parts.items()} for parts in (ours, theirs))
    require(shape == usual, f"the numbers of values are {shape} {when}, and {usual} {otherwise}")
    for part, values in theirs.items():
        scale = max(map(abs, values), default=0.0) or 1.0
        for block, (own, other) in enumerate(zip(ours[part], values, strict=True)):
            near = abs(own - other) <= ROUNDING * scale
            require(near, f"the {part} of block {block} is {own:.6g} {when}, and {other:.6g} {otherwise}")


def _parts(importance: Importance) -> Mapping[str, Sequence[float]]:
    """Return the numbers of an importance, by what they are."""
    columns = {f"column {name}": values for name, values in importance.columns.items()}
    return {"score": importance.scores} | columns | {f"span of {n}": values for n, values in importance.spans.items()}
