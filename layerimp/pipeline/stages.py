"""The first stage of a run: loading the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerimp.blocks.input_forms import vision_part
from layerimp.models.discovery import find_blocks
from layerimp.models.loading import load, load_tokenizer
from layerimp.models.offloading import open_offloaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.progress import Progress
    from layerimp.recipe import Permissions, Recipe


@dataclass(frozen=True)
class Loaded:
    """A loaded model.

    Attributes:
        model: The model.
        tokenizer: The model's tokenizer.
        stack: The model's blocks.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stack: BlockStack


def load_model(
    recipe: Recipe,
    permissions: Permissions,
    progress: Progress,
    *,
    offloaded: bool = False,
    quantised: bool = False,
) -> Loaded:
    """Load a recipe's model, and find its blocks.

    Args:
        recipe: The recipe.
        permissions: What may run code.
        progress: Where to report progress.
        offloaded: Whether the weights of the blocks stay in their files until they are needed.
        quantised: Whether the weights may be quantised, since the model is only measured.

    Raises:
        ModelError: the model cannot be loaded or understood.
    """
    if offloaded:
        with progress.stage(f"open {recipe.model}"):
            stack = open_offloaded(
                recipe.model,
                dtype=recipe.dtype,
                device=recipe.device,
                trust_remote_code=permissions.trust_remote_code,
                progress=progress,
            )
            tokenizer = load_tokenizer(recipe.model, trust_remote_code=permissions.trust_remote_code)
        return Loaded(stack.model, tokenizer, stack)
    with progress.stage(f"load {recipe.model}"):
        model, tokenizer = load(
            recipe.model,
            dtype=recipe.dtype,
            device=recipe.device,
            device_map=recipe.device_map,
            trust_remote_code=permissions.trust_remote_code,
            quantised=quantised,
            progress=progress,
        )
    return Loaded(model, tokenizer, find_blocks(model, quantised=quantised))


def tell_unmeasured(recipe: Recipe, loaded: Loaded, progress: Progress) -> None:
    """Tell of a model that reads images that only what it makes of text is measured."""
    if vision_part(loaded.model.config) is not None:
        progress.note(f"{recipe.model} also reads images: it is measured on text alone")
