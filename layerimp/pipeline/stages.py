"""The first stages of a run: loading the model, and drawing the calibration text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerimp.calibration.documents import check_source, task_of
from layerimp.calibration.sampling import CalibrationSet, draw_calibration, load_calibration
from layerimp.errors import OptionError
from layerimp.evaluation.selection import for_training
from layerimp.models.discovery import find_blocks
from layerimp.models.loading import load, load_tokenizer
from layerimp.models.offloading import open_offloaded
from layerimp.registry.attribution import attributing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.evaluator import Document, Evaluator
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


def load_model(recipe: Recipe, permissions: Permissions, progress: Progress, *, offloaded: bool = False) -> Loaded:
    """Load a recipe's model, and find its blocks.

    Args:
        recipe: The recipe.
        permissions: What may run code.
        progress: Where to report progress.
        offloaded: Whether the weights of the blocks stay in their files until they are needed.

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
                scratch=recipe.scratch,
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
            progress=progress,
        )
    return Loaded(model, tokenizer, find_blocks(model))


def check_calibration(recipe: Recipe, permissions: Permissions, progress: Progress) -> Evaluator | None:
    """Check, before a model is loaded, that the calibration text and the further text exist.

    Returns:
        The evaluator of the task whose training split is the text; None for other texts.

    Raises:
        InputError: the text or the task does not exist, or contradicts another option.
    """
    spec = recipe.calibration
    if recipe.heal_text is not None:
        if (further := task_of(recipe.heal_text)) is None:
            check_source(recipe.heal_text, again=True)
        else:
            for_training(recipe, further, permissions, progress)
    if (task := task_of(str(spec.source))) is None:
        check_source(str(spec.source), packing=spec.packing, label_field=spec.label_field)
        return None
    if spec.label_field or ("field" in spec.model_fields_set and spec.field != "text"):
        raise OptionError(f"{spec.source} says itself where its text and its labels are; leave the fields out")
    return for_training(recipe, task, permissions, progress)


def draw(recipe: Recipe, loaded: Loaded, trained_on: Evaluator | None, progress: Progress) -> CalibrationSet:
    """Draw the calibration set.

    Args:
        recipe: The recipe, settled.
        loaded: The model that reads the text.
        trained_on: The evaluator of the task whose training split is the text; None for other texts.
        progress: Where to report progress.

    Raises:
        CalibrationError: the text cannot be read, or is too short.
    """
    spec = recipe.calibration
    amount: dict[str, Any] = {"samples": spec.samples, "max_length": spec.max_length, "packing": spec.packing}
    amount |= {"batch_size": recipe.batch_size, "seed": recipe.seed}
    source = str(spec.source)
    with progress.stage(f"read {spec.source}"):
        if trained_on is not None:
            documents = training_documents(trained_on, loaded)
            return draw_calibration(documents, loaded.tokenizer, source=source, **amount)
        label2id = {name: int(number) for name, number in (loaded.model.config.label2id or {}).items()}
        fields: dict[str, Any] = {"field": spec.field, "label_field": spec.label_field, "label2id": label2id}
        return load_calibration(source, loaded.tokenizer, **fields, **amount)


def training_documents(evaluator: Evaluator, loaded: Loaded) -> Sequence[Document]:
    """Return the training split of an evaluator's task.

    Raises:
        TaskError: the task has none.
    """
    with attributing("evaluator", evaluator.name, type(evaluator)):
        return evaluator.training_documents(loaded.model, loaded.tokenizer)
