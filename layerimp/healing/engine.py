"""The engine, which runs a healer on a pruned model beside the intact one and checks the contract of healers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.snapshot import unchanged
from layerimp.calibration.splits import split
from layerimp.calibration.validation import Checked
from layerimp.errors import NonFiniteError, PluginError
from layerimp.fidelity import Distance, Loss
from layerimp.healer import Case, Gap, Healer, Repair
from layerimp.healing.gaps import find_gaps
from layerimp.healing.judging import Judge
from layerimp.healing.loss import HeldOutLoss
from layerimp.healing.origin import check_pair
from layerimp.healing.parameters import changed, held_by, put
from layerimp.healing.reruns import Reruns
from layerimp.indices import named as written
from layerimp.models.fingerprint import model_fingerprint
from layerimp.progress import SILENT, Progress
from layerimp.registry.attribution import attributing, named
from layerimp.registry.source_code import code_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.cache.unfinished import Unfinished


@dataclass(frozen=True)
class Healed:
    """A healed model, and what was done.

    Attributes:
        model: The pruned model, with new parameters where it was healed. It may share the other parameters with the
            intact model.
        repairs: What was done at each gap.
        loss: The mean loss per prediction, in nats, of the `intact`, the `pruned` and the `healed` model, on rows of
            the text that were used neither for the fit nor for any choice. `pruned` is the intact model without the
            removed blocks; if the model was healed before, its loss at that state is under `healed_before`.
        accuracy: For a classifier, the share of these rows that each of these models labels correctly; else empty.
        distance: The mean divergences from the intact model in nats, on the rows that decide whether the result is
            kept: `divergence_before` and `divergence_after`; `repeated_before` and `repeated_after` in rows that hold
            the same tokens twice.
        judging_rows: How many rows of documents that nothing else reads decided; 0 if rows of the text did.
        changed: The paths of the parameters that were replaced; for tied parameters the first path.
    """

    model: PreTrainedModel
    repairs: Sequence[Repair]
    loss: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    distance: dict[str, float] = field(default_factory=dict)
    judging_rows: int = 0
    changed: Sequence[str] = ()

    @property
    def recovered(self) -> float | None:
        """The share of the removal's cost that healing took away again, in loss or in a classifier's accuracy.

        It counts from the intact model without the removed blocks, whatever healed the model before. None if that had
        lost nothing. Negative if the healed model is worse.
        """
        costs = {name: -value for name, value in self.accuracy.items()} or self.loss
        lost = costs["pruned"] - costs["intact"]
        return (costs["pruned"] - costs["healed"]) / lost if lost > 0 else None


def heal_beside(
    intact: BlockStack,
    pruned: BlockStack,
    removed: Sequence[int],
    calibration: Iterable[Batch],
    healer: Healer,
    *,
    further: Iterable[Batch] | None = None,
    judging: Iterable[Batch] | None = None,
    unfinished: Unfinished | None = None,
    progress: Progress = SILENT,
) -> Healed:
    """Heal a pruned model, which is a separate tree of modules, beside the intact one.

    After any error the pruned model is as before.

    Args:
        intact: The blocks of the intact model, which is not changed, bit for bit.
        pruned: The blocks of the pruned model, which gets new parameters. It may share tensors with the intact model,
            and it may have been healed before.
        removed: The removed blocks, by the indices of the intact model.
        calibration: Batches of text, padded on either side. Two of eight rows are held out: one for choices, and one to
            measure the result on.
        healer: The healer.
        further: More text to heal on, for healers that train.
        judging: Rows to decide by whether the result is kept, and which step of a training; used for nothing else. By
            default the rows of the calibration text that are held out for choices.
        unfinished: Where healers that train keep their state, to continue after an interruption; None to keep none.
        progress: Where to report progress.

    Raises:
        ModelError: the two models do not belong together, or the healer cannot heal such a model.
        CalibrationError: a batch is malformed or holds ids that the model does not know, or there are fewer than
            `HEALING_ROWS` rows.
        PluginError: the healer breaks its contract.
        NonFiniteError: a new parameter holds a NaN or an infinity.
    """
    began = time.monotonic()
    unhealed = check_pair(intact, pruned, removed)
    gaps = find_gaps(pruned, removed)
    text = split(Checked(calibration, intact))
    choosing, measuring = HeldOutLoss(intact, text.choosing), HeldOutLoss(intact, text.measuring)
    losses = _before(intact, pruned, [] if unhealed else removed, measuring)
    apart = list(judging or ())
    rows = list(Checked(apart, intact)) if apart else text.choosing
    judge = Judge(intact, rows)
    ours, theirs = Reruns(pruned, [*text.choosing, *text.healing]), Reruns(intact, text.healing)
    case = Case(
        intact,
        pruned,
        gaps,
        text.healing,
        text.choosing,
        loss=partial(choosing.of, pruned, ours),
        distance=partial(judge.of, pruned),
        progress=progress,
        further=() if further is None else Checked(further, pruned),
        further_length=getattr(further, "max_length", 0),
        rerun=lambda stack, batch: (theirs if stack is intact else ours).of(batch),
        began=began,
    )
    if unfinished is not None:
        case = replace(case, workspace=partial(_workspace, unfinished, case, healer, rows, further))
    start, before = case.distance(), held_by(pruned.model)
    end = start
    try:
        repairs = _healed(case, healer)
        if changed(before, pruned.model) and not (end := case.distance()).is_better_than(start):
            put(before)
            repairs = _taken_back(gaps, healer, start, end, progress)
            end = start
        losses["healed"] = measuring.of(pruned)
    except BaseException:
        put(before)
        raise
    loss = {name: value.mean for name, value in losses.items()}
    accuracy = {name: value.accuracy for name, value in losses.items() if value.accuracy is not None}
    distance = start.numbers("before") | end.numbers("after")
    decided = sum(len(batch["input_ids"]) for batch in apart)
    return Healed(pruned.model, repairs, loss, accuracy, distance, decided, list(changed(before, pruned.model)))


def _before(intact: BlockStack, pruned: BlockStack, removed: Sequence[int], held_out: HeldOutLoss) -> dict[str, Loss]:
    """Measure the models before the healing. If blocks are given, the pruned model was healed before.

    What such a model has recovered is counted from the intact model without these blocks, which are bypassed here.
    """
    whole, given = held_out.of(intact), held_out.of(pruned)
    if not removed:
        return {"intact": whole, "pruned": given}
    with bypassed(intact, removed):
        return {"intact": whole, "pruned": held_out.of(intact), "healed_before": given}


def _workspace(
    unfinished: Unfinished, case: Case, healer: Healer, judging: Sequence[Batch], further: Iterable[Batch] | None
) -> Path | None:
    """Return the directory for the state of a healing, named after everything that determines the result.

    None if there can be none: without a `fingerprint` of the further text, an interrupted run could not know whether
    that is still the same.
    """
    more = getattr(further, "fingerprint", None)
    if further is not None and more is None:
        return None
    rows = (*case.batches, *case.held_out, *judging)
    content = {
        "healer": healer.name,
        "code": code_of(healer),
        "options": healer.config.model_dump(mode="json"),
        "intact": model_fingerprint(case.intact.model, None),
        "pruned": model_fingerprint(case.pruned.model, None),
        "gaps": [gap.removed for gap in case.gaps],
        "text": [{name: _hash(value) for name, value in batch.items()} for batch in rows],
        "batches": [len(case.batches), len(case.held_out)],
        "further": more,
    }
    removed = written([block for gap in case.gaps for block in gap.removed])
    return unfinished.directory(content, f"{healer.name} of {type(case.intact.model).__name__} without {removed}")


def _hash(value: Tensor) -> str:
    """Return a hash of the numbers of a tensor, and of its shape."""
    numbers = value.cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(f"{list(value.shape)}".encode() + numbers, digest_size=16).hexdigest()


def _taken_back(
    gaps: Sequence[Gap], healer: Healer, start: Distance, end: Distance, progress: Progress
) -> list[Repair]:
    """Say that a healer's work was undone, because the model did not come clearly nearer to the intact one."""
    why = f"{healer.name} was taken back: {end.words(start)}, which is not clearly nearer to the intact model"
    progress.note(why)
    return [Repair(gap, "nothing", why) for gap in gaps]


def _healed(case: Case, healer: Healer) -> list[Repair]:
    """Run a healer, check that it kept its contract, and return its repairs."""
    who = named("healer", healer.name, type(healer))
    before = held_by(case.pruned.model)
    versions = {path: (parameter, parameter._version) for path, parameter in case.pruned.model.named_parameters()}
    with (
        unchanged(case.intact.model, who),
        unchanged(case.pruned.model, who, weights=True),
        attributing("healer", healer.name, type(healer)),
    ):
        repairs = healer.at_every_gap(case)
        for path, (parameter, version) in versions.items():
            if parameter._version != version:
                raise PluginError(f"it wrote into {path} in place, which cannot be taken back")
        for path, (old, new) in changed(before, case.pruned.model).items():
            if (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
                raise PluginError(f"the shape, the dtype or the device of {path} is another than before")
            if not new.isfinite().all():
                raise NonFiniteError(f"the new value of {path} holds a NaN or an infinity")
    return repairs
