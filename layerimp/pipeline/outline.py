"""The outline of a model: its blocks and sizes, known from the configuration before weights are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from layerimp.errors import SurgeryError
from layerimp.indices import kept_blocks
from layerimp.models.configuration import configuration, stored_in, without_weights
from layerimp.models.devices import device_named
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import dtype_named, holds, note_stored
from layerimp.models.failures import unloadable
from layerimp.models.loading import float32_stands_in
from layerimp.models.safetensors_files import Headers, read_headers
from layerimp.models.sizing import ledger_of
from layerimp.models.unsupported import refuse_config
from layerimp.registry.assets import located
from layerimp.report.results.models import Size
from layerimp.surgery.config_search import shortened
from layerimp.surgery.meta_model import facts

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack
    from layerimp.recipe import Permissions, Recipe
    from layerimp.sizes.ledger import Ledger


@dataclass(frozen=True)
class Outline:
    """A model without its weights.

    Attributes:
        stack: The blocks of a model on the meta device.
        stored: The dtype of the weights in checkpoints: the stored one, or the one to compute in if that is narrower.
        headers: The headers of the weight files; None if the files are not on this machine.
        ledger: The sizes of the parts.
        alike: For each block, the index of the first block with the same structure.
        names: For each block, the configuration's name for its kind, such as `sliding_attention`; empty if it has none.
    """

    stack: BlockStack
    stored: torch.dtype
    headers: Headers | None
    ledger: Ledger
    alike: Sequence[int]
    names: Sequence[str]

    @property
    def size(self) -> Size:
        """The size of the whole model."""
        whole = self.ledger.left(())
        return Size(blocks=len(self.stack), parameters=whole.parameters, bytes=whole.bytes)

    def computed_in(self, recipe: Recipe, permissions: Permissions) -> tuple[torch.device, torch.dtype]:
        """Return the device that the model of a recipe would be on, and the dtype that it would compute in."""
        place, wanted = device_named(recipe.device), dtype_named(recipe.dtype)
        if recipe.dtype is not None:
            return place, wanted
        trusted = permissions.trust_remote_code
        widened = float32_stands_in(recipe.model, self.stack.model.config, place, trust_remote_code=trusted)
        return place, torch.float32 if widened else self.stored

    @classmethod
    def of(cls, model: str, *, dtype: str | None = None, trust_remote_code: bool = False) -> Outline:
        """Make the outline of a model. Only the configuration and the headers of the weight files are read.

        Args:
            model: The model.
            dtype: The dtype to compute in, if checkpoints get it where it is narrower than the stored one.
            trust_remote_code: Whether Python code that comes with the model may run.

        Raises:
            ModelError: the model cannot be understood, or no blocks can be removed from such a model.
        """
        config = configuration(model, trust_remote_code=trust_remote_code)
        refuse_config(config, f"the model {model!r}")
        headers = read_headers(model)
        stored = stored_in(located("models", model), config) or torch.float32
        if dtype is not None and not holds(computed_in := dtype_named(dtype), stored):  # as `remember_stored`
            stored = computed_in
        stack = find_blocks(_described(config, trust_remote_code, model))
        _ = stack.vocab_size  # refuses a model without a table of token embeddings
        nn.Module.to(stack.model, torch.bfloat16)  # some kernels of experts take no other dtype on the meta device
        note_stored(stack.model, stored)
        return cls(stack, stored, headers, ledger_of(stack), alike(stack), _names(stack))

    def held_if_offloaded(self) -> int:
        """Return how many parameters are in memory at a time if the model is offloaded.

        These are those of the largest block and those outside the blocks, without a head that is not tied.
        """
        ends = (self.stack.model.get_input_embeddings(), self.stack.model.get_output_embeddings())
        table, head = (getattr(end, "weight", None) for end in ends)
        apart = 0 if head is None or head is table else head.numel()
        return self.ledger.outside.parameters - apart + self.ledger.largest_block.parameters

    def removable(self) -> list[str]:
        """For each block, why stock code cannot build the model without it; empty if it can.

        This is one half of the verification. The other half, that the same values are computed, needs the weights.
        """
        count = len(self.stack)
        tried = range(count) if len(set(self.alike)) > 1 else sorted({0, count // 2, count - 1})
        reasons = {block: self.refusal([block]) for block in tried}
        if len(reasons) < count and len(set(reasons.values())) > 1:
            reasons |= {block: self.refusal([block]) for block in range(count) if block not in reasons}
        return [reasons.get(block, reasons[0]) for block in range(count)]

    def refusal(self, removed: Collection[int]) -> str:
        """Tell why stock code cannot build the model without some blocks; empty if it can."""
        kept = kept_blocks(removed, len(self.stack))
        if not kept:
            return f"removing all {len(self.stack)} blocks leaves no model"
        try:
            shortened(self.stack, kept)
        except SurgeryError as error:
            return str(error)
        return ""


def alike(stack: BlockStack) -> list[int]:
    """For each block, return the index of the first block with the same structure, whatever their positions."""
    known = [facts(block) for block in stack]
    places = {name for name in known[0] if all(of.get(name) == index for index, of in enumerate(known))}
    plain = [{name: value for name, value in of.items() if name not in places} for of in known]
    return [plain.index(of) for of in plain]


def _described(config: PretrainedConfig, trust_remote_code: bool, model: str) -> PreTrainedModel:
    """Build the model of a configuration on the meta device."""
    try:
        return without_weights(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # building from a configuration can fail in any way
        raise unloadable(model, error, what="build") from error


def _names(stack: BlockStack) -> list[str]:
    """Return the configuration's name for the kind of each block."""
    names = getattr(stack.config, "layer_types", None)
    listed = isinstance(names, list | tuple) and len(names) == len(stack)
    return list(map(str, names)) if listed else [""] * len(stack)  # type: ignore[arg-type]
