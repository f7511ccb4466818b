"""Where the cells of a grid are computed."""

from __future__ import annotations

import pytest
import torch
from support.heard import Heard

from layerimp.bench.engine import Engine
from layerimp.errors import InputError


@pytest.mark.parametrize(("engine", "told"), [(Engine(), True), (Engine(device="cpu"), False)])
def test_a_line_tells_of_gpus_that_stay_idle(monkeypatch: pytest.MonkeyPatch, engine: Engine, told: bool) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    heard = Heard()
    engine.check(heard)
    assert heard.lines == ["one of 4 GPUs is used; --engine ray uses all of them"] * told


def test_a_device_that_is_not_here_is_said() -> None:
    with pytest.raises(InputError, match="no device"):
        Engine(device="cuda:99").check(Heard())
