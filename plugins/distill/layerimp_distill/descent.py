"""Steps of the optimizer, and the way back to the best values."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW

from layerimp.blocks import join_rows
from layerimp.errors import NonFiniteError
from layerimp_distill.options import MOVED, RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from layerimp.fidelity import Distance
    from layerimp.healer import Case
    from layerimp.healing import Teaching
    from layerimp.sweep import Batch
    from layerimp_distill.learning import Learner, Values
    from layerimp_distill.memory import State
    from layerimp_distill.options import DistillConfig
    from layerimp_distill.room import Plan

WARM_UP = 0.05
"""The share of the training during which the learning rate rises."""
LARGEST_GRADIENT = 1.0
"""Gradients are scaled down to this norm."""


@dataclass(frozen=True)
class Task:
    """What is trained, and how.

    Attributes:
        case: The models and the text.
        learner: The parameters to train.
        teaching: Both models; the divergence between their predictions is what training lowers.
        config: The options.
        plan: The rows of a step.
    """

    case: Case
    learner: Learner
    teaching: Teaching
    config: DistillConfig
    plan: Plan


class Descent:
    """Steps of AdamW down the divergence, from kept values and back to them.

    Args:
        task: What is trained, and how.

    Attributes:
        kept: The values of the parameters to go back to.
        optimizer: The optimizer.
        scaler: The scale of the loss, for float16.
        unsettled: Whether the values have changed since the attribute was last unset by what counts the steps.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._parameters = task, task.learner.parameters
        self.unsettled = False
        self.keep()
        self.renew()

    def step(self, rows: Sequence[Batch], rate: float) -> None:
        """Take a step.

        Raises:
            NonFiniteError: the loss is NaN or infinite; nothing changes.
        """
        task = self._task
        model, predictions = task.case.pruned.model, max(1, sum(map(task.teaching.predictions, rows)))
        half = model.dtype in (torch.float16, torch.bfloat16)
        for part in join_rows(rows, task.plan.at_once):
            with torch.autocast(model.device.type, model.dtype) if half else nullcontext():
                total, _ = task.teaching.divergence(part)
            loss = total / predictions
            if not loss.isfinite():
                self.optimizer.zero_grad()
                raise NonFiniteError(f"the loss is {loss.item()}")
            self.scaler.scale(loss).backward()
        self.unsettled = True
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, LARGEST_GRADIENT)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def distance(self) -> Distance:
        """Return how far the model is from the intact one."""
        with self._task.learner.settled():
            return self._task.case.distance()

    def keep(self) -> None:
        """Keep the values."""
        self.kept: Sequence[Tensor] = [parameter.detach().clone() for parameter in self._parameters]

    def put(self, values: Sequence[Tensor]) -> None:
        """Give the parameters these values."""
        self.unsettled = True
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)

    def renew(self) -> None:
        """Begin with a new optimizer, which knows nothing of earlier steps."""
        device, half = self._task.case.pruned.device.type, self._task.case.pruned.model.dtype is torch.float16
        self.optimizer = AdamW(self._parameters, weight_decay=0.0, fused=True)
        self.scaler: Any = torch.amp.GradScaler(device, enabled=half)

    def go_back(self) -> None:
        """Return to the kept values, with a new optimizer."""
        self.put(self.kept)
        self.renew()

    def state(self) -> dict[str, Any]:
        """Return the fields of a `State` that hold values, and those of the optimizer."""
        return {
            "values": [parameter.detach() for parameter in self._parameters],
            "best_values": self.kept,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, state: State) -> None:
        """Go on from a saved state."""
        self.put(state.values)
        self.kept = [value.to(self._parameters[0].device) for value in state.best_values]
        self.optimizer.load_state_dict(state.optimizer)
        self.scaler.load_state_dict(state.scaler)
        self.unsettled = False


def first_rate(values: Values) -> float:
    """Return the peak rate at which a training begins: `RATE`, or `MOVED` times the rms of small matrices if less.

    A step of Adam moves each value by about the rate, however small it is. Adafactor scales its steps by the rms of the
    values too (Shazeer and Stern 2018, arXiv:1804.04235). Nine of ten matrices are larger than the one that decides.

    Args:
        values: Returns each of the parameters that learn.
    """
    matrices = (made for value in values.values() if (made := value()).ndim > 1)
    sizes = sorted(filter(None, (float(matrix.square().mean().sqrt()) for matrix in matrices)))
    return min(RATE, MOVED * sizes[len(sizes) // 10]) if sizes else RATE


def schedule(spent: float, since: float = 0.0) -> float:
    """Return the learning rate as a share of its peak: a linear warm-up, and a cosine over the training.

    Args:
        spent: The share of the training that is over.
        since: The share that was over when the peak came into force.
    """
    rise = min(1.0, max(spent - since, 0.01) / WARM_UP)
    return rise * 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))
