"""The batch fits into the memory that there is."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from support.lm_tasks import (
    WORDS,
    harness,
    write_docs,
)

from layerimp.errors import TaskError


@contextmanager
def forwards_that_take(most: int, model):
    """A model whose memory is enough for `most` sequences."""
    sizes = []

    def hook(module, args, kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        if len(ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        sizes.append(len(ids))

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    yield sizes
    handle.remove()


def test_memory_that_runs_out_shrinks_the_batch(folder, model, tokenizer):
    names = ("choice", "rolling", "generate")
    expected = harness(folder, *names, batch_size=1).evaluate(model, tokenizer)
    with forwards_that_take(2, model) as sizes:
        metrics = harness(folder, *names, batch_size=8).evaluate(model, tokenizer)
    assert max(sizes) == 2
    assert [m.value for m in metrics] == pytest.approx([m.value for m in expected], rel=1e-5)
    with forwards_that_take(0, model), pytest.raises(TaskError, match="memory"):
        harness(folder, "choice").evaluate(model, tokenizer)


def test_free_memory_bounds_the_batch_on_a_cpu(folder, model, tokenizer, monkeypatch):
    import psutil

    class Little:
        available = 2 * 2 * 10 * 19 * 12  # half of it is two sequences of ten tokens

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    write_docs(folder, [{"text": " ".join(WORDS[i : i + 10])} for i in range(5)])
    with forwards_that_take(99, model) as sizes:
        harness(folder, "rolling").evaluate(model, tokenizer)
    assert sizes == [2, 2, 1]
