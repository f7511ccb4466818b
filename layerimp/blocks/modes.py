"""Contexts that change the modes of a model and of Transformers, or the values of tensors, and restore them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import transformers

from layerimp.errors import PluginWarning

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@contextmanager
def in_eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """A context in which every module is in evaluation mode."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def holding(values: Iterable[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """A context in which tensors hold other values, given beside each; they may be of another dtype."""
    with ExitStack() as undo:
        for tensor, other in values:
            undo.callback(setattr, tensor, "data", tensor.data)
            tensor.data = other
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """A context without the progress bars, log lines and warnings of Transformers, and the hub's notes on retries."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    _set_levels(hub, logging.ERROR, logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", PluginWarning)  # layerimp's own warning, which users have to see
            yield
    finally:
        _set_levels(hub, verbosity, level)
        if bars:
            transformers.logging.enable_progress_bar()


def _set_levels(hub: logging.Logger, verbosity: int, level: int) -> None:
    """Set two levels, where they differ from what they are: each change clears the caches of all loggers."""
    if transformers.logging.get_verbosity() != verbosity:
        transformers.logging.set_verbosity(verbosity)
    if hub.level != level:
        hub.setLevel(level)
