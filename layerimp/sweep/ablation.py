"""The ablation sweep: the model's predictions with one block changed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.head import Head
from layerimp.blocks.stack import Batch
from layerimp.errors import CalibrationError, NonFiniteError
from layerimp.indices import kept_blocks
from layerimp.sweep.base import Drive, Sweep, Trace
from layerimp.sweep.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from layerimp.blocks.stack import BlockStack

Probe = float | Literal["mean"]
"""A change of a block: a factor on what the block adds, or "mean" for the mean of that over the calibration set."""


@dataclass(frozen=True)
class Ablation(Sweep):
    """For each block, the log-probability of each target with that block changed and with the model intact.

    A scorer that reads how much the loss rises per target without a block:

        sweep = Ablation(frozenset({0.0}))
        observes = frozenset({Ablation.INTACT, Ablation.site(0.0)})

        def update(self, trace):
            intact, without = trace.rows(Ablation.INTACT), trace.rows(Ablation.site(0.0))
            self.rise.add(trace.block, intact - without)

    A block with the input h and the output h + D has the output h + a D under the probe a: 0 skips the block, 1 is the
    intact model. Under the probe "mean" the output is h + the mean of D over the real tokens of the whole set; the mean
    takes a pass of its own, which comes first. The blocks before the changed one are not run again but return their
    outputs from the intact pass.

    Sites: `Ablation.site(probe)` for each probe and for the intact model (`Ablation.INTACT`), [batch, position] as in
    `layerimp.blocks.head.Targets`. The trace's mask is True at the positions that have a target.

    Attributes:
        probes: The changes to try. The intact model is always included, at no extra cost.
    """

    INTACT: ClassVar[str] = "log_prob@1.0"
    predicts: ClassVar[bool] = True
    separate: ClassVar[bool] = True

    probes: frozenset[Probe] = frozenset({0.0})

    @staticmethod
    def site(probe: Probe) -> str:
        """The site that holds the log-probabilities under a probe, such as `log_prob@0.5`."""
        return f"log_prob@{probe if isinstance(probe, str) else float(probe) + 0.0}"  # -0.0 is 0.0

    @property
    def sites(self) -> frozenset[str]:
        """All sites that this sweep offers."""
        return frozenset(map(self.site, self.probes)) | {self.INTACT}

    def passes(self, blocks: int, rows: int) -> float:
        """One intact pass, one for a mean, and half a pass per block and probe, since earlier blocks do not run."""
        return 1 + ("mean" in self.probes) + blocks * len(self.probes - {1}) / 2

    def union(self, other: Sweep) -> Sweep | None:
        """Return an ablation with the probes of both, if nothing else differs."""
        if not isinstance(other, Ablation) or replace(other, probes=self.probes) != self:
            return None
        return replace(self, probes=self.probes | other.probes)

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the model, and again from each block on for each probe; see `Sweep.drive`.

        Raises:
            ModelError: the model predicts nothing, or a block cannot be run without the blocks before it.
            CalibrationError: the whole set holds nothing to predict.
            NonFiniteError: the model puts out a NaN or an infinity; the error names the block and the batch.
        """
        with ExitStack() as undo, torch.no_grad():  # unlike inference mode, it counts writes to a tensor
            head = Head(stack)
            batches = head.labelled(batches) if drive.removed else batches
            undo.enter_context(bypassed(stack, drive.removed, idle=True))
            replay = Replay(stack, head.backbone, kept_blocks(drive.removed, len(stack)))
            means = _means(replay, batches, drive) if "mean" in self.probes else {}
            seen = 0
            for number, batch in enumerate(batches):
                passed = replay.record(batch, f"in batch {number}", drive.remembered(number))
                targets = head.targets(batch, passed.output)
                seen += int(targets.mask.sum())
                intact = _finite(head.log_probs(passed.output, targets), "the intact model", number)
                mask, padded = targets.mask.to(intact.device), not bool(targets.mask.all())
                for position, index in enumerate(drive.blocks):
                    acts = {self.INTACT: intact}
                    for probe in self.probes - {1}:
                        if (site := self.site(probe)) not in drive.sites:
                            continue
                        by = means[index] if isinstance(probe, str) else probe
                        output = replay.resume(passed, index, passed.changed(index, by))
                        what = f"with block {index} changed ({site}), the model"
                        acts[site] = _finite(head.log_probs(output, targets), what, number)
                    drive.emit(Trace(position, number, acts, mask, padded))
                drive.end_batch()
        if not seen:
            raise CalibrationError("the calibration set holds nothing to predict: every row is a single token")


def _finite(log_probs: Tensor, what: str, number: int) -> Tensor:
    if not log_probs.isfinite().all():
        raise NonFiniteError(f"{what} puts out a NaN or an infinity in batch {number}")
    return log_probs


def _means(replay: Replay, batches: Iterable[Batch], drive: Drive) -> dict[int, Tensor]:
    """The mean over all real tokens of what each scored block adds [hidden], in float64, by the block's index."""
    totals: dict[int, Tensor] = {}
    count = 0
    for number, batch in enumerate(batches):
        mask = batch["attention_mask"].bool()
        passed = replay.record(batch, f"in batch {number}", drive.remembered(number))
        for index in drive.blocks:
            added = passed.added(index)
            new = added[mask.to(added.device)].sum(dim=0, dtype=torch.float64)
            totals[index] = totals[index] + new if index in totals else new
        count += int(mask.sum())
    return {index: total / count for index, total in totals.items()}
