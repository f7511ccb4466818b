"""The sweep `Repaired`: how far the model is from the intact one without one more block, its gap repaired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from layerimp.blocks import bypassed
from layerimp.blocks.head import Head
from layerimp.errors import NonFiniteError
from layerimp.fidelity import Intact, repeated
from layerimp.healing import Writers, trying
from layerimp.indices import kept_blocks
from layerimp.models import longest_row, special_ids
from layerimp.sweep import Replay, Sweep, Trace
from layerimp_closedform.repairs import Repairs
from layerimp_closedform.rows import split_rows

ROWS = 12
"""How many rows of a language model's text are measured."""
FITTING, LENGTH = 3, 256
"""What the fits cost, in forward passes over their rows, if one pass collects the sums of all gaps, and how many tokens
a row has, about."""

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from torch import Tensor

    from layerimp.blocks import BlockStack
    from layerimp.healer import Gap
    from layerimp.sweep import Batch, Drive, Recorded


@dataclass(frozen=True)
class Repaired(Sweep):
    """For each block, the divergence from the intact model once the block is out and its gap is repaired.

    The repair of a gap is the least-squares fit of the healer `linear`, with one ridge and without a factor. It is
    fitted on the intact model's states at both ends of the gap, so that it depends on the gap alone. Blocks that are
    out already have their gaps repaired as well; if a block lies beside such a gap, the two together are one gap.

    Some rows of the calibration set are measured, and the repairs are fitted on others. Which rows follows from their
    content. For a language model a measured row holds the first half of the row's own tokens twice, so that the model
    can copy the second time; rows that are too short for this are left out, unless all are, which are then measured as
    they are.

    Sites: `divergence` and `before` [batch, position], in nats, without the block and with it. The trace's mask is True
    at the positions with a target. Extras: `copied` [batch, position], True where the target can be copied; `repaired`
    [], whether there is a repair; `unrepeated` [], how many rows of a language model do not hold their first half
    twice.

    Attributes:
        rows: How many rows are measured, at most half of all; None for 12, or for half of all rows if the model
            predicts one label for each row.
        tokens: The repairs are fitted on rows that have so many tokens in all, or on all that are not measured.
        ridge: The ridge, in units of the mean square of the map's input.
    """

    SITES: ClassVar[frozenset[str]] = frozenset({"divergence", "before"})
    predicts: ClassVar[bool] = True
    reads_intact: ClassVar[bool] = True
    separate: ClassVar[bool] = True

    rows: int | None = None
    tokens: int = 4096
    ridge: float = 0.3

    def passes(self, blocks: int, rows: int) -> float:
        """The fits, and on the measured rows two passes, and half a pass per block, since earlier blocks do not run."""
        measured, fitted = (min(many, rows / 2) / rows for many in (self.rows or ROWS, self.tokens / LENGTH))
        return FITTING * fitted + measured * (2 + blocks / 2)

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Repair the gaps, and run the measured rows again from each block's gap on; see `Sweep.drive`.

        Raises:
            ModelError: the model predicts nothing, or a block cannot be run without the blocks before it.
            CalibrationError: there is only one row, or the measured rows hold nothing to predict.
            NonFiniteError: the model puts out a NaN or an infinity.
        """
        with torch.no_grad():
            batches = list(batches)
            known: _Known | None = drive.memory.get(self)
            head = Head(stack) if known is None else known.head
            with bypassed(stack, drive.removed):  # before the text, so that a model is refused for what it is
                replay = Replay(stack, head.backbone, kept_blocks(drive.removed, len(stack)))
            if known is None:
                known = drive.memory[self] = _Known(stack, head, batches, self)
            before = known.writers.gaps(drive.removed)
            beyond = {block: known.gap_of(block, drive.removed) for block in drive.blocks}
            known.repairs.fit([*before, *beyond.values()])
            through = _spread(drive.end_batch, len(batches), over=len(known.texts) * len(beyond))
            with trying(stack.model), bypassed(stack, drive.removed, idle=True):
                for gap in before:
                    known.repairs.put(gap)
                for number in range(len(known.texts)):
                    start, *without = known.divergences(number, replay, beyond, through)
                    acts = dict(zip(beyond, without, strict=True))
                    mask = known.texts[number].targets(0).mask
                    for position, block in enumerate(drive.blocks):
                        extras = {"copied": known.copied[number], "repaired": known.repairs.of(beyond[block])}
                        extras["unrepeated"] = torch.tensor(known.unrepeated)
                        shown = {"divergence": acts[block], "before": start}
                        drive.emit(Trace(position, number, shown, mask, not bool(mask.all()), extras=extras))


def _rows(batches: Iterable[Batch]) -> int:
    """Count the rows of batches."""
    return sum(len(batch["input_ids"]) for batch in batches)


def _spread(end_batch: Callable[[], None], batches: int, over: int) -> Callable[[], None]:
    """Return a function that, called `over` times, calls `end_batch` once for each batch, as evenly as possible."""
    done = 0

    def through() -> None:
        nonlocal done
        for _ in range((done + 1) * batches // over - done * batches // over):
            end_batch()
        done += 1

    return through


class _Known:
    """What depends on the intact model alone, and what compares repaired models with it.

    Attributes:
        head: The model's head.
        writers: The maps that write before gaps.
        repairs: The repairs of gaps.
        texts: For each measured batch the intact model's predictions.
        copied: For each measured batch, where the target can be copied [batch, position].
        unrepeated: How many measured rows of a language model do not hold their first half twice.
    """

    def __init__(self, stack: BlockStack, head: Head, batches: Sequence[Batch], sweep: Repaired) -> None:
        self.head, self._model, self.unrepeated = head, stack.model, 0
        rows = sweep.rows or (_rows(batches) if self.head.kind == "label" else ROWS)
        measured, fitted = split_rows(batches, rows, sweep.tokens)
        self.writers, self.repairs = Writers(stack), Repairs(stack, fitted, sweep.ridge)
        again: list[tuple[Batch, Tensor]] = []
        if self.head.kind == "next-token":
            again = list(repeated(measured, special_ids(stack.model), longest_row(stack.model)))
            self.unrepeated = _rows(measured) - _rows(batch for batch, _ in again)
        self.texts = [Intact(stack, [batch]) for batch in ([batch for batch, _ in again] or measured)]
        nowhere = [torch.zeros_like(text.targets(0).mask) for text in self.texts]
        self.copied = [copied for _, copied in again] or nowhere

    def gap_of(self, block: int, removed: Collection[int]) -> Gap:
        """Return the gap that a block lies in once it is out, beside the blocks `removed`."""
        return next(gap for gap in self.writers.gaps([*removed, block]) if block in gap.removed)

    def divergences(
        self, number: int, replay: Replay, beyond: Mapping[int, Gap], through: Callable[[], None]
    ) -> list[Tensor]:
        """Return the divergences of a batch's predictions [batch, position] before, and without each block.

        Args:
            number: The batch's number among the measured ones.
            replay: Runs the model, of which blocks are bypassed and their gaps repaired.
            beyond: For each block the gap that it then lies in.
            through: Called when the model has run without a block.
        """
        intact = self.texts[number]
        targets = intact.targets(0)
        passed = replay.record(targets.batch, f"in measured batch {number}, repaired")
        outputs = [passed.output]
        for block, gap in beyond.items():
            output = self._without(block, gap, replay, passed)
            if not output[self.head.field].isfinite().all():
                raise NonFiniteError(f"without block {block}, repaired, the model puts out a NaN or an infinity")
            outputs.append(output)
            through()
        values = []
        for compared in intact.compared(0, self.head, outputs):
            placed = torch.zeros(targets.mask.shape, dtype=torch.float64, device=targets.mask.device)
            placed[targets.mask] = compared.divergences.to(placed.device)
            values.append(placed)
        return values

    def _without(self, block: int, gap: Gap, replay: Replay, passed: Recorded) -> Any:
        """Return the backbone's output without a block, its gap repaired."""
        state = passed.inputs[block]
        with trying(self._model):
            if self.repairs.put(gap):
                assert gap.before is not None
                state = replay.alone(passed, gap.before).after(gap.before)
        return replay.resume(passed, block, state.to(passed.after(block).device))
