"""What lm-eval touches and must not: streams, logs, random numbers, templates, the model's mode."""

from __future__ import annotations

import logging
import os
import random
import warnings
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_TEMPLATES = 1024  # a group of many tasks has some of its own for each


@contextmanager
def contained(seed: int, device: torch.device | None = None, *, sandbox: bool = True) -> Iterator[None]:
    """Run lm-eval quietly, from `seed`, and undo whatever it does to the process.

    Args:
        seed: Where the random numbers of python, numpy and torch start.
        device: The model's, whose generator is seeded too.
        sandbox: Whether templates of tasks are kept from reaching Python objects.
    """
    with ExitStack() as stack:
        for guard in (muted(), _silent_logs(), _offline_throughout(), _seeded(seed, device)):
            stack.enter_context(guard)
        if sandbox:
            stack.enter_context(_sandboxed_templates())
        yield


@contextmanager
def muted() -> Iterator[None]:
    """Drop what is written to `sys.stdout` and `sys.stderr`."""
    with (
        open(os.devnull, "w", encoding="utf-8") as sink,
        redirect_stdout(sink),
        redirect_stderr(sink),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _silent_logs() -> Iterator[None]:
    # Handlers hold on to the stream that they were made with, so redirecting it is not enough.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _offline_throughout() -> Iterator[None]:
    """`evaluate`, through which some tasks of lm-eval score, has an offline variable of its own."""
    from huggingface_hub import constants

    with patch.dict(os.environ, {"HF_EVALUATE_OFFLINE": "1"} if constants.HF_HUB_OFFLINE else {}):
        yield


@contextmanager
def _seeded(seed: int, device: torch.device | None) -> Iterator[None]:
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _sandboxed_templates() -> Iterator[None]:
    """lm-eval renders templates in a plain jinja2 environment, from which Python is two attributes away.

    It also compiles a template anew for every document, which takes longer than to render it; here each is kept.
    """
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    from layerimp_harness.lm_eval_names import utils

    class Sandbox(SandboxedEnvironment):
        def from_string(self, source: Any, *arguments: Any, **options: Any) -> Any:
            return compiled(source, *arguments, **options)

    usual: Any = utils.env
    safe = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)
    compiled = lru_cache(_TEMPLATES)(super(Sandbox, safe).from_string)
    safe.filters.update(usual.filters)
    with patch.object(utils, "env", safe):
        yield
