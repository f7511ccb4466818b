"""Healing a pruned model: one in memory, or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from layerimp.defaults import HEALER
from layerimp.healer import Healer
from layerimp.healing.engine import Healed, heal_beside
from layerimp.models.discovery import find_blocks
from layerimp.progress import SILENT, Progress
from layerimp.pruner import PrunePlan, checked_blocks
from layerimp.registry.catalog import registry
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch


def heal(
    model: PreTrainedModel,
    blocks: Sequence[int] | PrunePlan,
    calibration: Iterable[Batch],
    healer: str | Healer = HEALER,
    *,
    pruned: PreTrainedModel | None = None,
    progress: Progress | None = None,
) -> Healed:
    """Repair what is left of a model without blocks.

    Args:
        model: The intact model; left as it is.
        blocks: The blocks that are gone: indices, or a plan.
        calibration: Batches of `input_ids` and `attention_mask` [batch, seq]. One row in eight is held out, to choose
            by.
        healer: The name of a registered healer, or a configured one.
        pruned: The model without the blocks, which gets new parameters; by default one is made beside the intact one,
            with which it shares every tensor that is not healed.
        progress: Where to report progress.

    Returns:
        The healed model, with what was done at each gap and what that brought. `save` writes it.

    Raises:
        UnknownNameError: no healer has that name.
        OptionError: a block does not exist, or comes twice.
        SurgeryError: the blocks cannot be removed exactly.
        ModelError: the two models do not belong together, or the healer cannot heal such a model.
        CalibrationError: there are fewer than two rows of text.
        NonFiniteError: the healer yields a NaN.
    """
    stack = find_blocks(model)
    gone = checked_blocks(blocks.blocks if isinstance(blocks, PrunePlan) else blocks, len(stack))
    if not isinstance(healer, Healer):
        made = registry().create("healer", healer, {})
        assert isinstance(made, Healer)
        healer = made
    rest = find_blocks(prepare(stack, gone).beside() if pruned is None else pruned)
    return heal_beside(stack, rest, gone, calibration, healer, progress=progress or SILENT)
