"""What the cards of pruned and of healed checkpoints say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.calibration.sampling import Calibration
    from layerimp.evaluator import DataFile
    from layerimp.healer import Healer, Repair
    from layerimp.metric import Metric
    from layerimp.models.origin import Origin
    from layerimp.pruner import PrunePlan
    from layerimp.recipe import Recipe
    from layerimp.report.results.contenders import Contender
    from layerimp.report.results.models import Repaired, Size
    from layerimp.sizes.targets import Reached


@dataclass(frozen=True)
class Checkpoint:
    """A pruned checkpoint, as its card describes it.

    Attributes:
        contender: The scorer, and the healer if there is one.
        recipe: The recipe in the user's words.
        loader: The stock `Auto` class that loads the checkpoint.
        plan: What was removed.
        intact: The size of the intact model.
        size: The size of the pruned model.
        standing: The values that the model reaches beside the targets; empty without targets.
        healing: What a healer did; None without a healer.
        calibration: The text that was drawn; None if none was.
        before: The metrics of the intact model.
        after: The metrics of the pruned model; empty if nothing was measured.
        scored: Whether scores led to the plan, rather than a plan that was given.
        data_files: The local files whose rows the evaluators read.
    """

    contender: Contender
    recipe: Recipe
    loader: str
    plan: PrunePlan
    intact: Size
    size: Size
    standing: Sequence[Reached] = ()
    healing: Repaired | None = None
    calibration: Calibration | None = None
    before: Sequence[Metric] = ()
    after: Sequence[Metric] = ()
    scored: bool = False
    data_files: Sequence[DataFile] = ()


@dataclass(frozen=True)
class HealedCheckpoint:
    """A checkpoint that was healed by itself, as its card describes it.

    Attributes:
        origin: The intact model.
        loader: The stock `Auto` class that loads the checkpoint.
        recipe: The recipe, with the pruned model and the calibration text.
        healer: The healer.
        repairs: The repairs, one for each gap.
        recovered: What came back, as `recovery` says it.
        text: The text that was drawn.
    """

    origin: Origin
    loader: str
    recipe: Recipe
    healer: Healer
    repairs: Sequence[Repair]
    recovered: str
    text: Calibration
