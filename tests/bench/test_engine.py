"""Where the cells of a grid are computed, as far as it is known before there are workers."""

from __future__ import annotations

import pytest
import torch

from layerimp.bench.engine import Engine


@pytest.mark.parametrize(
    ("engine", "copies"),
    [
        (Engine(), 1),
        (Engine(workers=0), 1),
        (Engine(workers=4), 1),
        (Engine(workers=5), 2),
        (Engine(workers=4, device="cuda:1"), 4),
        (Engine(workers=4, device="cpu"), 4),
        (Engine("ray", workers=4), 1),
    ],
)
def test_workers_share_the_memory_of_their_own_device(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, copies: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert engine.copies == copies
