"""Contexts that change the modes of a model and of Transformers, and restore them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import transformers

from layerimp.errors import PluginWarning

if TYPE_CHECKING:
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
def quiet() -> Iterator[None]:
    """A context without the progress bars, log lines and warnings of Transformers, and the hub's notes on retries."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", PluginWarning)  # layerimp's own warning, which users have to see
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            transformers.logging.enable_progress_bar()
