"""Nothing is printed or changed, and nothing is imported before it is needed."""

from __future__ import annotations

import logging
import random
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from layerimp_harness import Harness, layerimp_evaluators
from layerimp_harness.isolation import contained
from support.lm_tasks import (
    harness,
)

from layerimp.progress import Silent


def test_hook_and_cheap_import():
    assert layerimp_evaluators() == [Harness]
    code = "import sys, layerimp_harness; assert not {'torch', 'lm_eval', 'datasets'} & set(sys.modules)"
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_nothing_is_printed_or_changed(folder, model, tokenizer, capfd):
    logging.getLogger("lm_eval").addHandler(handler := logging.StreamHandler())
    model.train()
    model.model.layers[0].eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def state():
        return (
            [part.training for part in model.modules()],
            model.config.to_dict(),
            model.generation_config.to_dict(),
            tokenizer.backend_tokenizer.to_str(),
            tokenizer.special_tokens_map,
            tokenizer.padding_side,
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            sys.stdout,
            sys.stderr,
            logging.root.manager.disable,
        )

    before = state()
    try:
        evaluator = harness(folder, "choice", "rolling", "generate")
        evaluator.evaluate(model, tokenizer)
        evaluator.fingerprint()
    finally:
        logging.getLogger("lm_eval").removeHandler(handler)
    assert state() == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_all_is_undone_after_an_error(capfd):
    before = sys.stdout, sys.stderr, random.getstate(), logging.root.manager.disable

    def fail():
        with contained(3):
            print("unseen", random.random())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (sys.stdout, sys.stderr, random.getstate(), logging.root.manager.disable) == before
    assert capfd.readouterr() == ("", "")


def test_progress(folder, model, tokenizer):
    class Listener:
        def __init__(self):
            self.stages = []

        @contextmanager
        def stage(self, description, total=None, *, unit):
            self.stages.append([description, total, unit, 0])
            old = sys.stdout, sys.stderr
            sys.stdout = sys.stderr = sys.__stdout__  # as a live display does
            try:
                yield self.advance
            finally:
                sys.stdout, sys.stderr = old

        def advance(self, units):
            self.stages[-1][-1] += units

    evaluator = harness(folder, "choice", "rolling", "generate", max_length=6)
    evaluator.progress = Listener()
    before = sys.stdout, sys.stderr
    evaluator.evaluate(model, tokenizer)
    assert evaluator.progress.stages == [["evaluate choice, rolling, generate", 36, "requests", 36]]
    assert (sys.stdout, sys.stderr) == before


def test_a_long_text_is_done_bit_by_bit(folder, model, tokenizer):
    """Its windows come first and last; a reader would wait for the last of them without a word."""
    steps = []

    class Listener(Silent):
        @contextmanager
        def stage(self, description, total=None, **_more):
            yield steps.append

    evaluator = harness(folder, "rolling", max_length=3, batch_size=1)
    evaluator.progress = Listener()
    evaluator.evaluate(model, tokenizer)
    assert sum(steps) == 9
    done = [sum(steps[:end]) for end in range(len(steps))]
    assert done.index(3) < len(done) / 2
