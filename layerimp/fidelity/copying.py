"""Rows that hold the same tokens twice: a language model can copy the second half from the first.

Copying needs attention to earlier tokens across the whole row, and is the first ability that a pruned model loses while
its likelihood hardly changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from torch import Tensor

    from layerimp.blocks.stack import Batch

SHORTEST = 8
"""Rows whose half would have fewer tokens are left out."""


def repeated(
    batches: Iterable[Batch], special: Collection[int], longest: int | None = None
) -> Iterator[tuple[Batch, Tensor]]:
    """Make rows of the first half of each row's own tokens, once and again, without special tokens between.

    Special tokens at the beginning of a row stay there, since some models need one; all others are left out. A row has
    about as many tokens as before; rows that are too short are left out.

    Args:
        batches: Batches of text, padded on the right.
        special: The ids of the special tokens.
        longest: The most tokens that a row may have; None without a limit.

    Yields:
        A batch, padded on the right, and where a token of the second half is predicted [row, position]. Batches
        without a row are left out.
    """
    for batch in batches:
        rows, masks = [], []
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
            start, own = _own_tokens(ids[mask], special)
            room = len(start) + len(own) if longest is None else min(longest, len(start) + len(own))
            half = own[: (room - len(start)) // 2]
            if len(half) < SHORTEST:
                continue
            rows.append(torch.cat([start, half, half]))
            copied = torch.zeros(len(rows[-1]), dtype=torch.bool, device=ids.device)
            copied[-len(half) - 1 : -1] = True  # the token after this position belongs to the second half
            masks.append(copied)
        if rows:
            ids = pad_sequence(rows, batch_first=True)
            real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            yield {"input_ids": ids, "attention_mask": real}, pad_sequence(masks, batch_first=True)


def _own_tokens(row: Tensor, special: Collection[int]) -> tuple[Tensor, Tensor]:
    """Return the special tokens at the beginning of a row [token], and its tokens that are not special."""
    is_special = torch.isin(row, torch.tensor(sorted(special), dtype=row.dtype, device=row.device))
    leading = int(is_special.long().cumprod(dim=0).sum())
    return row[:leading], row[~is_special]
