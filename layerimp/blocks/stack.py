"""A model's stack of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from layerimp.blocks.batches import Batch as Batch
from layerimp.blocks.forward import computing
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TRIAL_TOKENS = 8
"""The tokens of a row that a model is tried on, where their number does not matter."""


class Residency(Protocol):
    """Loads the weights of a block into memory while they are needed, and releases them afterwards."""

    @property
    def block_bytes(self) -> int:
        """How many bytes a block takes in the files, on average."""

    def held(self, index: int, *, then: int | None = None) -> AbstractContextManager[None]:
        """A context in which the weights of one block are in memory. It can be nested.

        Args:
            index: The block.
            then: The block that is needed next, if known; its weights may be read ahead.

        Raises:
            ModelError: the weights cannot be read, or do not fit the configuration; the error names a weight.
            NonFiniteError: a weight is a NaN or an infinity; the error names the tensor.
        """


@dataclass(frozen=True)
class BlockStack(Sequence[nn.Module]):
    """The blocks of a model, in depth order.

    Attributes:
        model: The model that the blocks belong to.
        path: The path of the blocks in the model, such as `model.layers`.
        config: The (sub-)configuration that counts the blocks in `num_hidden_layers`.
        backbone: The part of the model that runs from token ids to the last hidden state, without a head.
        residency: What brings the weights of a block into memory when they are needed, for a model that is offloaded
            from its files; None for a model that lies in memory as a whole.
    """

    model: PreTrainedModel
    path: str
    config: PretrainedConfig
    backbone: nn.Module
    residency: Residency | None = None

    def __repr__(self) -> str:
        return f"BlockStack({len(self)} blocks of {type(self.model).__name__} at {self.path})"

    @property
    def modules(self) -> nn.ModuleList:
        """The list that currently holds the blocks."""
        modules = self.model.get_submodule(self.path)
        assert isinstance(modules, nn.ModuleList)
        return modules

    def __len__(self) -> int:
        return len(self.modules)

    def __getitem__(self, index: Any) -> Any:
        return self.modules[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.modules)

    @property
    def offloaded(self) -> bool:
        """Whether the weights of the blocks come from files, one block after another."""
        return self.residency is not None

    def held(self, index: int, *, then: int | None = None) -> AbstractContextManager[None]:
        """Keep the weights of one block in memory inside this context; see `Residency.held`."""
        return nullcontext() if self.residency is None else self.residency.held(index, then=then)

    @property
    def device(self) -> torch.device:
        """The device on which token ids have to be."""
        return self._embedding.device

    @property
    def vocab_size(self) -> int:
        """The number of token ids that the model has an embedding for."""
        return int(self._embedding.shape[0])

    @property
    def _embedding(self) -> Tensor:
        try:
            return next(self.model.get_input_embeddings().parameters())
        except (NotImplementedError, AttributeError, StopIteration) as error:
            raise ModelError(f"{type(self.model).__name__} has no table of token embeddings") from error


@contextmanager
def on_demand(stack: BlockStack) -> Iterator[None]:
    """Let each block of an offloaded model have its weights in memory while it runs, and only then.

    A pass of the model reads all blocks; for many batches see `layerimp.sweep.block_by_block`.
    """
    with ExitStack() as undo:
        for index, block in enumerate(stack if stack.offloaded else ()):
            undo.enter_context(computing(block, partial(_holding, stack, index, block.forward)))
        yield


def _holding(stack: BlockStack, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with stack.held(index, then=index + 1 if index + 1 < len(stack) else None):
        return forward(*args, **kwargs)


def probe_ids(stack: BlockStack, tokens: int = TRIAL_TOKENS) -> Tensor:
    """Return a row of token ids [1, seq] to try the model on."""
    return torch.arange(1, 1 + tokens, device=stack.device)[None] % stack.vocab_size


def whole_or_backbone(stack: BlockStack) -> nn.Module:
    """Return the part of a model that turns inputs into hidden states; an encoder-decoder model as a whole."""
    # The backbone of an encoder-decoder model may need the ids of both; the whole model makes the decoder's ids itself.
    part: nn.Module = stack.model if stack.model.config.is_encoder_decoder else stack.backbone
    return part
