"""Checks that the batches of a calibration set are valid for a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from layerimp.errors import CalibrationError

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.blocks.stack import Batch, BlockStack


@dataclass(frozen=True)
class Checked:
    """The batches of a calibration set, each of them checked, padded on the right, and on the model's device.

    Attributes:
        calibration: The original batches.
        stack: The blocks of the model that reads them.

    Raises:
        CalibrationError: during iteration: there is no batch, a row has no token, an id is beyond the embedding, or a
            label is not a class of the model.
    """

    calibration: Iterable[Batch]
    stack: BlockStack

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.calibration, Mapping):
            raise CalibrationError("the calibration text is a single batch, not a list of batches: pass [batch]")
        number = -1
        for number, batch in enumerate(self.calibration):
            yield _sound(batch, self.stack, number)
        if number < 0:
            raise CalibrationError("the calibration set is empty")


def _sound(batch: Batch, stack: BlockStack, number: int) -> Batch:
    _check_kind(batch, number)
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise CalibrationError(
            f"batch {number}: input_ids {list(ids.shape)} and attention_mask {list(mask.shape)} are not both "
            "[batch, seq]"
        )
    if not ids.numel():
        raise CalibrationError(f"batch {number}: input_ids {list(ids.shape)} hold no token")
    if ids.is_floating_point():
        raise CalibrationError(f"batch {number}: input_ids of {str(ids.dtype).removeprefix('torch.')} are no token ids")
    ids, mask = ids.long(), mask.bool().long()  # a head takes its targets by int64
    if empty := (~mask.bool().any(dim=1)).nonzero().flatten().tolist():
        raise CalibrationError(f"batch {number}: row {empty[0]} holds no token")
    real = ids[mask.bool()]
    if int(real.max()) >= stack.vocab_size or int(real.min()) < 0:
        raise CalibrationError(
            f"batch {number} holds token id {int(real.max() if real.min() >= 0 else real.min())}, but the model "
            f"has embeddings for ids 0 to {stack.vocab_size - 1}; is this the model's own tokenizer?"
        )
    # Padding is moved to the right, where it shifts no position, and its ids, which may be anything, become valid ones.
    order = mask.bool().sort(dim=1, descending=True, stable=True).indices
    ids, mask = ids.gather(1, order).clamp(0, stack.vocab_size - 1), mask.gather(1, order)
    moved = {"input_ids": ids, "attention_mask": mask}
    return {name: value.to(stack.device) for name, value in moved.items()} | _labels(batch, stack, number)


def _check_kind(batch: object, number: int) -> None:
    """Refuse anything that is not a batch, such as text, and say how to make one."""
    if isinstance(batch, str):
        raise CalibrationError(
            f"batch {number} is text, not token ids: pass [tokenizer(texts, return_tensors='pt', padding=True)], or "
            "what layerimp.calibration.load_calibration draws from a file"
        )
    if not isinstance(batch, Mapping) or "input_ids" not in batch:
        raise CalibrationError(
            f"batch {number} is a {type(batch).__name__} without input_ids: calibration text is a list of batches, "
            "each with the tensors input_ids and attention_mask [batch, seq]"
        )
    for name in ("input_ids", "attention_mask", "labels"):
        if not isinstance(value := batch.get(name), torch.Tensor | None):
            raise CalibrationError(
                f"batch {number}: {name} is a {type(value).__name__}, not a tensor; a tokenizer gives tensors with "
                "return_tensors='pt'"
            )


def _labels(batch: Batch, stack: BlockStack, number: int) -> dict[str, Tensor]:
    """Return the checked class ids [batch] of a batch, if any; labels are ignored for a model that generates text."""
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
