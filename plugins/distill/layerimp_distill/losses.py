"""The training losses: the distance between the pruned and the intact model on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.healing import Teaching
    from layerimp.sweep import Batch

Loss = Callable[["Batch"], "Tensor"]
"""Computes the loss of a batch as a scalar, with its autograd graph."""


def loss_of(name: str, teaching: Teaching, batches: Iterable[Batch]) -> Loss:
    """Return a loss by its name.

    Args:
        name: `divergence`, `hidden`, `streams` or `text`. For a classifier, `hidden` means the divergence as well.
        teaching: Both models.
        batches: The text from which the metric of the head is estimated.
    """
    if name == "streams":
        return lambda batch: _streams(teaching, batch)
    if name == "text":
        return lambda batch: _mean(*teaching.text(batch))
    if name == "divergence" or teaching.predicts == "label":
        return lambda batch: _mean(*teaching.divergence(batch))
    values, directions = torch.linalg.eigh(teaching.head_metric(batches).double())
    root = (directions * values.clamp_min(0).sqrt()).float()  # root root' = M

    def hidden(batch: Batch) -> Tensor:
        ours, theirs = teaching.hidden(batch)
        away = (ours.float() - theirs.float()) @ root.to(ours.device)
        lost: Tensor = away.square().sum(dim=-1).mean() / 2
        return lost

    return hidden


def terms_of(name: str, teaching: Teaching) -> Callable[[Batch], int]:
    """Return what counts the terms of a batch that a loss is the mean of: its tokens, or else its predictions."""
    return tokens_in if name == "streams" else teaching.predictions


def tokens_in(batch: Batch) -> int:
    """Return the number of tokens in a batch, without padding."""
    return int(batch["attention_mask"].sum())


def _mean(total: Tensor, count: int) -> Tensor:
    return total / max(count, 1)


def _streams(teaching: Teaching, batch: Batch) -> Tensor:
    """Return the squared distance of the streams, relative to the teacher's; the mean over tokens and blocks."""
    shares = []
    for ours, theirs in teaching.streams(batch):
        away, size = (ours.float() - theirs.float()).square().sum(dim=-1), theirs.float().square().sum(dim=-1)
        shares.append((away / size.clamp_min(torch.finfo(torch.float32).tiny)).mean())
    return torch.stack(shares).mean()
