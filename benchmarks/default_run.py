"""The CPU time of the default run, divided into forward passes of the model by purpose, imports, and the rest.

    python benchmarks/default_run.py

Runs `layerimp run --scorer avss` with an empty metrics cache, and finds out the purpose of every outermost call of a
module. The time is CPU time of the process with all threads, and includes the time of Python inside a module.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any

import typer

LIBRARIES = ("torch", "transformers", "datasets", "lm_eval.evaluator", "lm_eval.models.huggingface")


class Ledger:
    """Attributes CPU time to the current purpose."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._purpose, self._depth = "scoring and footprint", 0

    def forward(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the call of a module so that its time is attributed, unless it is inside another module's call."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = time.process_time()
            try:
                return real(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.spent[f"forwards: {self._purpose}"] += time.process_time() - start

        return call

    def serving(self, purpose: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that forward passes inside it are attributed to a purpose."""

        def call(*args: Any, **kwargs: Any) -> Any:
            before, self._purpose = self._purpose, purpose
            try:
                return real(*args, **kwargs)
            finally:
                self._purpose = before

        return call


def main() -> None:
    """Run it, and print the shares."""
    ledger = Ledger()
    start = time.process_time()
    for library in LIBRARIES:
        __import__(library)
    ledger.spent["imports"] = time.process_time() - start
    import torch
    from layerimp_harness.model import ModelInMemory

    from layerimp.cli import main as command

    torch.nn.Module.__call__ = ledger.forward(torch.nn.Module.__call__)
    for name, purpose in (
        ("loglikelihood", "options of questions"),
        ("loglikelihood_rolling", "whole texts"),
        ("generate_until", "generated answers"),
    ):
        setattr(ModelInMemory, name, ledger.serving(purpose, getattr(ModelInMemory, name)))
    sys.argv = ["layerimp", "run", "--scorer", "avss"]
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        os.environ["LAYERIMP_CACHE"] = folder
        with suppress(SystemExit):
            command()
    total = time.process_time()
    ledger.spent["all else"] = total - sum(ledger.spent.values())
    for what, seconds in ledger.spent.most_common():
        print(f"{what:32} {seconds:6.1f} s  {seconds / total:6.1%}")
    outside = sum(seconds for what, seconds in ledger.spent.items() if not what.startswith("forwards"))
    print(f"{'outside forwards':32} {outside:6.1f} s  {outside / total:6.1%} of {total:.1f} s")


if __name__ == "__main__":
    typer.run(main)
