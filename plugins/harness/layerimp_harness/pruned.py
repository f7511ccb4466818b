"""The model `layerimp` for lm-evaluation-harness: a model that is pruned in memory by a plan.

Importing this module registers the model, for versions of lm-eval that do not read its entry point.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import layerimp
from layerimp.errors import OptionError, listing
from layerimp.registry.assets import assets
from layerimp_harness.lm_eval_names import HFLM, register_model

if TYPE_CHECKING:
    from layerimp import PrunePlan

_LOG = logging.getLogger(__name__)


@register_model("layerimp")
class PrunedModel(HFLM):  # type: ignore[misc]
    """The model `hf` of lm-eval, with the blocks of a plan removed after loading.

        lm_eval --model layerimp --model_args pretrained=DIR,plan=out/plan.json --tasks wikitext

    The results are those of `--model hf` on the checkpoint that `layerimp prune --plan` writes for the same plan.

    Args:
        pretrained: A model directory, the id of a model on the hub, or the name of a model that a plugin ships.
        plan: A file of plans, such as the `plan.json` of a run. Without a plan the model stays intact.
        label: The label of the plan, if the file holds several.
        count: How many blocks of the plan to use, from the first on; by default all.
        options: The arguments of `hf`: `dtype`, `device`, `batch_size`, `max_length`, `trust_remote_code` and others.

    Raises:
        OptionError: the file holds several plans and no label is given, the plan is for another number of blocks or
            cannot be shortened, or `pretrained` is not a text.
        InputError: the file cannot be read, or does not hold plans.
        ModelError: the blocks of the model cannot be found.
        SurgeryError: the blocks cannot be removed exactly; the error says why.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        plan: str | None = None,
        label: str | int | None = None,
        count: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(pretrained, str):
            raise OptionError("pretrained names a model; layerimp.prune prunes one that is in memory, and hf takes it")
        if plan is None and (label, count) != (None, None):
            raise OptionError("label and count choose in a file of plans; name the file with plan=FILE")
        self.plan = None if plan is None else _chosen(Path(plan).expanduser(), label, count)
        _note_another_model(self.plan, pretrained)
        super().__init__(str(assets().models.get(pretrained, pretrained)), **options)

    def _create_model(self, *arguments: Any, **options: Any) -> None:
        """Load the model, and apply the plan before lm-eval wraps the model for several processes."""
        super()._create_model(*arguments, **options)
        if self.plan is not None:
            layerimp.prune(self._model, self.plan)
            self._config = self._model.config

    def get_model_info(self) -> dict[str, Any]:
        """Return the information about the model that lm-eval stores in its results, with the plan."""
        plan = None if self.plan is None else self.plan.model_dump(mode="json")
        return {**super().get_model_info(), "plan": plan}


def _chosen(file: Path, label: str | int | None, count: int | None) -> PrunePlan:
    """Return the plan with this label; lm-eval passes a label of digits as a number."""
    plans = layerimp.read_plans(file, None if label is None else [str(label)], count)
    if len(plans) > 1:
        raise OptionError(f"{file} holds several plans; choose one with label=: {listing(plans)}")
    (plan,) = plans.values()
    return plan


def _note_another_model(plan: PrunePlan | None, pretrained: str) -> None:
    """Log a warning if the plan was made for a model of another name."""
    here = {None, pretrained, str(Path(pretrained).expanduser().absolute())}
    if plan is not None and plan.model not in here:
        _LOG.warning("the plan was made for %s, and is applied to %s", plan.model, pretrained)
