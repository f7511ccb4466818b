"""Forwards over shared contexts, whose keys and values are computed once, and from which continuations go on.

Contexts are padded on the left and continuations on the right, with a mask and positions, as in generation: every
architecture that generates batches is made for that.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp_harness.rows import Group, Row

_NEEDED = frozenset({"use_cache", "attention_mask"})
_CACHE = ("cache", "past_key_values")  # transformers' name for it, and the one before
_ORDINARY = frozenset({DynamicLayer, DynamicSlidingWindowLayer})  # other layers keep a state that cannot be taken back


class Contexts:
    """Runs groups of rows.

    Args:
        model: A decoder-only model.
        max_length: The most tokens of a row, padding included.
    """

    def __init__(self, model: PreTrainedModel, max_length: int) -> None:
        self._model = model
        self._max_length = max_length
        self._accepted = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in _CACHE if name in self._accepted), "")
        self._token_bytes = 0

    @property
    def possible(self) -> bool:
        """Whether the model takes what is needed; whether it works is to be tried."""
        return self._cache_name != "" and self._accepted.keys() >= _NEEDED

    def bytes_of(self, group: Group) -> int:
        """How much the cache of a row takes, as far as is known: of its context, of its copy, and while it grows."""
        return self._token_bytes * 3 * (len(group.context) + group.width)

    def logits(self, groups: Sequence[Group], rows: int) -> Iterator[tuple[Group, Row, Tensor]]:
        """Each row with its logits from the last position of the context on [position, vocab].

        Args:
            groups: At most `rows`.
            rows: The most rows of a forward.

        Raises:
            TypeError: the model's cache is not one of keys and values alone.
        """
        longest = max(len(group.context) for group in groups)
        if len(groups) > 1 and longest + max(group.width for group in groups) > self._max_length:
            half = len(groups) // 2  # padded, the rows would not fit; a short context may have a long continuation
            yield from self.logits(groups[:half], rows)
            yield from self.logits(groups[half:], rows)
            return
        ids = torch.zeros(len(groups), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, group in enumerate(groups):
            ids[number, longest - len(group.context) :] = torch.tensor(group.context)
            mask[number, longest - len(group.context) :] = 1
        output = self._forward(ids, mask, logits_to_keep=1)
        cache, last = output[self._cache_name], output.logits[:, -1:]  # [group, 1, vocab]
        _check(cache)
        self._token_bytes = _bytes(cache) // ids.numel()
        members = [(number, row) for number, group in enumerate(groups) for row in group.rows]
        members.sort(key=lambda member: -len(groups[member[0]].tail(member[1])))
        for start in range(0, len(members), rows):
            chunk = members[start : start + rows]
            tails = [groups[number].tail(row) for number, row in chunk]
            logits = self._continued(cache, mask, [number for number, _row in chunk], tails)
            for (number, row), tail, own in zip(chunk, tails, logits, strict=True):
                yield groups[number], row, torch.cat([last[number].to(own.device), own[: len(tail)]])

    def _continued(self, cache: Any, mask: Tensor, numbers: list[int], tails: Sequence[tuple[int, ...]]) -> Tensor:
        """The logits of tails after the contexts of these numbers [tail, position, vocab]. `mask`: of the contexts."""
        width = max(map(len, tails))
        ids = torch.zeros(len(tails), width, dtype=torch.long)
        own = torch.zeros_like(ids)
        for number, tail in enumerate(tails):
            ids[number, : len(tail)] = torch.tensor(tail)
            own[number, : len(tail)] = 1
        chosen = copy.copy(cache)
        chosen.layers = [copy.copy(layer) for layer in cache.layers]
        chosen.batch_select_indices(torch.tensor(numbers))  # copies, so that the contexts' own stay as they are
        logits: Tensor = self._forward(ids, torch.cat([mask[numbers], own], 1), **{self._cache_name: chosen}).logits
        return logits[:, -width:]

    def _forward(self, ids: Tensor, mask: Tensor, **options: Any) -> Any:
        """One forward with a cache. `mask` [row, token] covers the cached tokens too, and `ids` only the new ones."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        device = self._model.device
        given: dict[str, Any] = {"attention_mask": mask.to(device), "use_cache": True, **options}
        given["position_ids"] = positions.to(device)
        optional = ("position_ids", "logits_to_keep")
        given = {name: value for name, value in given.items() if name not in optional or name in self._accepted}
        with torch.no_grad():
            return self._model(ids.to(device), **given)


def _check(cache: Any) -> None:
    if type(cache) is not DynamicCache or not {type(layer) for layer in cache.layers} <= _ORDINARY:
        raise TypeError(f"no ordinary cache: {type(cache).__name__}")


def _bytes(cache: Any) -> int:
    kept = [one for layer in cache.layers for one in (layer.keys, layer.values) if one is not None]
    return sum(one.numel() * one.element_size() for one in kept)
