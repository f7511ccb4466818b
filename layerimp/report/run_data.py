"""What the commands on one model scored, removed and measured, from which their results are built."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.metric import Metric
from layerimp.recipe import ComponentSpec, Recipe
from layerimp.report.healing import Healing
from layerimp.report.results.models import Size
from layerimp.report.search import Search
from layerimp.sizes.targets import Reached

if TYPE_CHECKING:
    from layerimp.calibration.sampling import Calibration
    from layerimp.pruner import PrunePlan
    from layerimp.scorer import Importance


@dataclass
class RunData:
    """What a run scored, removed and measured. Parts that a command does not produce stay empty.

    Attributes:
        recipe: The recipe as it was given.
        num_blocks: The number of blocks of the intact model.
        loader: The stock `Auto` class that loads the checkpoints.
        calibration: The text that was drawn, with its fingerprint; None if none was.
        sizes: The sizes of the models, by label; the intact model's under `original`.
        importance: The importance, by scorer label.
        plans: The plans, by scorer label.
        reached: By scorer label, the values that the plan reaches beside the targets, if targets were given.
        healed: What healers did, by label of the healed model, which is `SCORER+HEALER`.
        checkpoints: The checkpoints, by label.
        metrics: The metrics of kind `quality`, by label; the intact model's under `original`.
        footprint: The metrics of kind `cost`, by label.
        search: The result of a search for the most blocks that may be removed; None if there was none.
        resolved: Recipe fields as the run resolved them: absolute paths, and the values of defaults.
        scorers: The scorers that were asked for, and the baselines, by label.
        blind: The labels of scorers that do not look at the model, so that no text changes their scores.
        baselines: The labels of the baselines, which were measured only for comparison.
        left_out: By label, why a scorer that was not requested by name was left out.
        failed: By label, why a scorer or an evaluator that was requested failed while the others went on.
        output: The output directory.
    """

    recipe: Recipe
    num_blocks: int
    loader: str
    calibration: Calibration | None = None
    sizes: dict[str, Size] = field(default_factory=dict)
    importance: dict[str, Importance] = field(default_factory=dict)
    plans: dict[str, PrunePlan] = field(default_factory=dict)
    reached: dict[str, list[Reached]] = field(default_factory=dict)
    healed: dict[str, Healing] = field(default_factory=dict)
    checkpoints: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    footprint: dict[str, list[Metric]] = field(default_factory=dict)
    search: Search | None = None
    resolved: dict[str, Any] = field(default_factory=dict)
    scorers: dict[str, ComponentSpec] = field(default_factory=dict)
    blind: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    output: Path | None = None

    def plan_of(self, label: str) -> PrunePlan:
        """Return the plan by which a model, healed or not, was pruned."""
        if self.search is not None and (plan := self.search.removable[label].plan) is not None:
            return plan
        return self.plans[self.healed[label].scorer if label in self.healed else label]

    def standing(self, label: str) -> list[Reached]:
        """Return the values of the pruned model under `label` beside the targets; empty if there are no targets.

        Parameters and bytes are counted on the pruned model itself.
        """
        size, scorer = self.sizes.get(label), self.healed[label].scorer if label in self.healed else label
        real = {} if size is None else {"parameters": size.parameters, "bytes": size.bytes}
        return [
            replace(each, value=real.get(each.target.quantity, each.value)) for each in self.reached.get(scorer, ())
        ]
