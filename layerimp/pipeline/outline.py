"""The outline of a model: its blocks, sizes and halves, known from the configuration before weights are read."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from layerimp.blocks.halves import find_halves
from layerimp.blocks.memory import free_bytes
from layerimp.blocks.middle import Halves, Whole
from layerimp.blocks.modes import quiet
from layerimp.errors import SurgeryError
from layerimp.models.configuration import configuration, stored_in, without_weights
from layerimp.models.devices import device_named
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import dtype_named, holds, note_stored
from layerimp.models.failures import unloadable
from layerimp.models.loading import float32_stands_in
from layerimp.models.safetensors_files import Headers, read_headers
from layerimp.models.sizing import ledger_of
from layerimp.models.unsupported import refuse_config
from layerimp.pipeline.beside_text import BesideText, beside_text
from layerimp.registry.assets import located
from layerimp.report.results.models import Size
from layerimp.steps import kept_halves
from layerimp.surgery.config_search import shortened
from layerimp.surgery.meta_model import Builder, facts
from layerimp.surgery.proof import put_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack
    from layerimp.recipe import Permissions, Recipe
    from layerimp.sizes.ledger import Ledger
    from layerimp.steps import Step

VOCABULARY = 64
"""The size of the vocabulary of a model that is only tried, for which a small embedding table is enough."""
UNKNOWN = "not known until the model is loaded"


@dataclass(frozen=True)
class Outline:
    """A model without its weights.

    Attributes:
        stack: The blocks of a model on the meta device.
        stored: The dtype of the weights in checkpoints: the stored one, or the one to compute in if that is narrower.
        headers: The headers of the weight files; None if the files are not on this machine.
        halves: The halves of each block, or why the block has none.
        ledger: The sizes of the parts, divided by halves if these are known.
        alike: For each block, the index of the first block with the same structure.
        names: For each block, the configuration's name for its kind, such as `sliding_attention`; empty if it has none.
    """

    stack: BlockStack
    stored: torch.dtype
    headers: Headers | None
    halves: Sequence[Halves | Whole]
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
        halves = _halves(stack)
        nn.Module.to(stack.model, torch.bfloat16)  # some kernels of experts take no other dtype on the meta device
        note_stored(stack.model, stored)
        known = {index: parts for index, parts in enumerate(halves) if isinstance(parts, Halves)}
        return cls(stack, stored, headers, halves, ledger_of(stack, known), alike(stack), _names(stack))

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
        shifted = [self.beside_text.refusal] * count
        for modality, depths in self.beside_text.depths.items():
            reason = f"with {modality.phrase} {put_in(depths)}"
            shifted = [known or reason * (block <= max(depths)) for block, known in enumerate(shifted)]
        return [reasons.get(block, reasons[0]) or shifted[block] for block in range(count)]

    @cached_property
    def beside_text(self) -> BesideText:
        """What the model does with images, video and audio."""
        return beside_text(self.stack)

    def refusal(self, steps: Sequence[Step]) -> str:
        """Tell why stock code cannot build the model without some steps; empty if it can, or if that is not known."""
        kept = kept_halves(steps, len(self.stack))
        if not kept:
            return f"removing all {len(self.stack)} blocks leaves no model"
        cut = sorted({index for pair in kept if len(set(pair)) > 1 for index in pair})
        whole = {index: parts.reason for index in cut if isinstance(parts := self.halves[index], Whole)}
        if UNKNOWN in whole.values():
            return ""
        for index, reason in whole.items():
            return f"block {index} cannot be divided into attention and MLP: {reason}"
        try:
            with quiet():
                shortened(self.stack, kept, {i: parts for i in cut if isinstance(parts := self.halves[i], Halves)})
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


def _halves(stack: BlockStack) -> list[Halves | Whole]:
    """Find the halves of each block by a trial of one block of each structure, with random weights."""
    unknown: list[Halves | Whole] = [Whole(UNKNOWN)] * len(stack)
    try:
        with quiet():
            tried = stand_in(stack)
            return unknown if tried is None else find_halves(tried)
    except Exception:  # whatever a model makes of weights that were never trained
        return unknown


def stand_in(stack: BlockStack) -> BlockStack | None:
    """Make a model in which one block of each kind has random float32 weights, and the other blocks have none.

    Args:
        stack: The blocks of the model, on the meta device.

    Returns:
        The blocks of the new model, which has a small vocabulary; None if there is not enough memory, or if the model
        cannot be built this way.
    """
    config = copy.deepcopy(stack.model.config)
    text = config.get_text_config()
    text.vocab_size = VOCABULARY
    if (getattr(text, "pad_token_id", None) or 0) >= VOCABULARY:
        text.pad_token_id = None
    built = find_blocks(Builder(stack.model).build(config).eval())
    kinds = [built[index] for index in sorted(set(alike(built)))]
    left_out = {module for block in built for module in block.modules()} | _beside_text(built)
    filled = [module for module in built.model.modules() if module not in left_out]
    filled += [module for block in kinds for module in block.modules()]
    needed = sum(parameter.numel() for module in filled for parameter in module.parameters(recurse=False))
    if 1.5 * needed * torch.float32.itemsize > free_bytes(torch.device("cpu")):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in filled:
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.is_meta:
                    setattr(module, name, nn.Parameter(_drawn(parameter.shape), requires_grad=False))
    return built


def _beside_text(stack: BlockStack) -> set[nn.Module]:
    """Return the modules that no text passes through, such as those that read images."""
    model = stack.model
    if model.config.is_encoder_decoder:
        return set()
    others = [
        part for part in vars(model.config).values() if hasattr(part, "to_diff_dict") and part is not stack.config
    ]
    parts = (part for part in model.modules() if any(getattr(part, "config", None) is other for other in others))
    return {module for part in parts for module in part.modules()}


def _drawn(shape: torch.Size) -> torch.Tensor:
    """Draw random weights that keep activations bounded; factors of norms are close to one."""
    if len(shape) < 2:
        return 1 + 0.1 * torch.randn(shape)
    return torch.randn(shape) / math.sqrt(shape[-1])
