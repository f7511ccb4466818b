"""Compute the keys and values of a shared context once, and run the continuations from the cached ones.

Contexts are padded on the left and continuations on the right, with an attention mask and position ids, as in batched
generation. Every architecture that supports batched generation supports this.
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
_CACHE = ("cache", "past_key_values")  # the argument's name in transformers, and its earlier name
_ORDINARY = frozenset({DynamicLayer, DynamicSlidingWindowLayer})  # other layers keep a state that cannot be rewound


class Contexts:
    """Computes the logits of groups of rows.

    Args:
        model: A decoder-only model.
        max_length: The maximum number of tokens in a row, including padding.
    """

    def __init__(self, model: PreTrainedModel, max_length: int) -> None:
        self._model = model
        self._max_length = max_length
        self._accepted = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in _CACHE if name in self._accepted), "")
        self._token_bytes = 0

    @property
    def possible(self) -> bool:
        """Whether the model accepts the necessary arguments; whether the results are right has to be tested."""
        return self._cache_name != "" and self._accepted.keys() >= _NEEDED

    def bytes_of(self, group: Group) -> int:
        """Return the estimated size of a row's cache in bytes: the context's, its copy, and one more while it grows."""
        return self._token_bytes * 3 * (len(group.context) + group.width)

    def logits(self, groups: Sequence[Group], rows: int) -> Iterator[tuple[Group, Row, Tensor]]:
        """Yield each row with its group and its logits from the last position of the context on [position, vocab].

        Args:
            groups: At most `rows` groups.
            rows: The maximum number of rows per forward.

        Raises:
            TypeError: the model's cache holds something other than keys and values.
        """
        longest = max(len(group.context) for group in groups)
        if len(groups) > 1 and longest + max(group.width for group in groups) > self._max_length:
            half = len(groups) // 2  # padded rows would be too long, since a short context may have a long continuation
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
        """Return the logits of continuations [tail, position, vocab].

        Args:
            cache: The cache of all contexts.
            mask: The attention mask of all contexts [context, token].
            numbers: The number of the context of each continuation.
            tails: The tokens of the continuations.
        """
        width = max(map(len, tails))
        ids = torch.zeros(len(tails), width, dtype=torch.long)
        own = torch.zeros_like(ids)
        for number, tail in enumerate(tails):
            ids[number, : len(tail)] = torch.tensor(tail)
            own[number, : len(tail)] = 1
        chosen = copy.copy(cache)
        chosen.layers = [copy.copy(layer) for layer in cache.layers]
        chosen.batch_select_indices(torch.tensor(numbers))  # copies, so that the cache of the contexts is unchanged
        logits: Tensor = self._forward(ids, torch.cat([mask[numbers], own], 1), **{self._cache_name: chosen}).logits
        return logits[:, -width:]

    def _forward(self, ids: Tensor, mask: Tensor, **options: Any) -> Any:
        """Run one forward with a cache. `mask` [row, token] covers cached and new tokens; `ids` only new ones."""
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
    kept = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)
