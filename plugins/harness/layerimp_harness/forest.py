"""Run a model on trees of tokens."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import torch

from layerimp import find_blocks
from layerimp.blocks.head import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp_harness.trees import Tree

_MASKED = {"attention_mask", "position_ids"}
_LOCAL = re.compile("window|chunk|local")
"""Names in configurations, such as `sliding_window`, `attention_chunk_size` and `local_attention`."""


class Forest:
    """Runs trees through a model's backbone; the head computes the logits of some places.

    Args:
        model: A decoder-only model.

    Raises:
        ModelError: the model's blocks or its head cannot be found.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._head = Head(find_blocks(model, quantised=True))
        self._device, self._dtype = model.device, model.dtype
        self._accepted = inspect.signature(self._head.backbone.forward).parameters
        self._kinds = frozenset(getattr(model.config, "layer_types", None) or ())
        self._window = getattr(model.config, "sliding_window", None)
        sizes = model.config.get_text_config().to_dict().items()
        self._spans = [size for name, size in sizes if _LOCAL.search(name) and isinstance(size, int) and size]

    @property
    def possible(self) -> bool:
        """Whether the model accepts the necessary arguments; whether the results are right has to be tested."""
        return self._accepted.keys() >= _MASKED

    def reaches(self, length: int) -> bool:
        """Whether the last token of a row attends to the first one, as far as the configuration tells.

        False if any size of a window, a chunk or a local span is below the length; then a row of it has to be tested.
        """
        return all(length <= size for size in self._spans)

    def run(self, trees: Sequence[Tree]) -> Callable[[Tensor], Tensor]:
        """Run trees, and return what computes logits.

        Args:
            trees: The trees; all are padded to the longest one, on the right.

        Returns:
            A function from places to logits [place, vocab]. The places of a tree begin at its number times the length
            of the longest tree.
        """
        longest = max(len(tree.tokens) for tree in trees)
        ids = torch.zeros(len(trees), longest, dtype=torch.long)
        positions = torch.zeros_like(ids)
        sees = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)
        for number, tree in enumerate(trees):
            size = len(tree.tokens)
            ids[number, :size] = torch.tensor(tree.tokens)
            positions[number, :size] = tree.depths()
            sees[number, :size, :size] = tree.attends()
        given = {
            "input_ids": ids.to(self._device),
            "attention_mask": self._masks(positions, sees),
            "position_ids": positions.to(self._device),
            "use_cache": False,
        }
        output = self._head.backbone(**{name: given[name] for name in given.keys() & self._accepted.keys()})
        hidden: Tensor = output[self._head.field].flatten(0, 1)
        return lambda places: self._head.token_logits(output, hidden[places.to(hidden.device)])

    def _masks(self, positions: Tensor, sees: Tensor) -> Any:
        """Return what is added to the attention scores [tree, 1, place, place], by kind of layer if they differ.

        Args:
            positions: The depth of each token [tree, place].
            sees: Whether a token attends to another one [tree, place, place].
        """
        mask = self._mask(sees)
        if self._window is None or int(positions.max()) < self._window:
            return mask
        windowed = self._mask(sees & (positions[:, :, None] - positions[:, None, :] < self._window))
        kinds = {kind: windowed if kind == "sliding_attention" else mask for kind in self._kinds}
        return kinds or windowed

    def _mask(self, sees: Tensor) -> Tensor:
        mask = torch.zeros(sees.shape, dtype=self._dtype).masked_fill(~sees, torch.finfo(self._dtype).min)
        return mask[:, None].to(self._device)
