"""Isolate the process from lm-eval: its output, logs, random generators and templates."""

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
    from contextlib import AbstractContextManager

    import torch

    from layerimp_harness.config import HarnessConfig

_TEMPLATES = 1024  # each task of a large group has several templates


@contextmanager
def contained(seed: int, device: torch.device | None = None, *, sandbox: bool = True) -> Iterator[None]:
    """Run lm-eval inside this context without output, from a seed, and undo its changes to the process.

    Args:
        seed: The seed of the random generators of Python, NumPy and torch.
        device: The model's device, whose generator is seeded too.
        sandbox: Whether to keep the templates of tasks from accessing Python objects.
    """
    with ExitStack() as stack:
        for guard in (muted(), _silent_logs(), _offline_throughout(), _seeded(seed, device)):
            stack.enter_context(guard)
        if sandbox:
            stack.enter_context(_sandboxed_templates())
        yield


def contained_by(config: HarnessConfig, device: torch.device | None = None) -> AbstractContextManager[None]:
    """The context `contained` by the options of the harness: with a sandbox unless code of tasks is allowed.

    Args:
        config: The options.
        device: The model's device, whose generator is seeded too.
    """
    return contained(config.seed, device, sandbox=not config.allow_task_code)


@contextmanager
def muted() -> Iterator[None]:
    """Discard everything written to `sys.stdout` and `sys.stderr` inside this context."""
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
    # Handlers keep a reference to their original stream, so redirecting the stream is not enough.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _offline_throughout() -> Iterator[None]:
    """Pass the offline mode on to the package `evaluate`, which scores some tasks and has its own variable for it."""
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
        for gpu in cuda:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _sandboxed_templates() -> Iterator[None]:
    """Render lm-eval's templates in a sandbox, and cache the compiled templates.

    lm-eval's own jinja2 environment gives templates access to Python objects. It also compiles a template again for
    every document, which takes longer than the rendering.
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
