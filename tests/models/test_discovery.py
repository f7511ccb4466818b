"""The block finder, and other properties found from a model itself."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.fake_plugins import Install
from support.tiny import ALL, tiny
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

import layerimp
from layerimp.blocks import BlockStack
from layerimp.errors import ModelError, PluginWarning
from layerimp.models import longest_row
from layerimp.registry.loader import host
from layerimp.testing import BLOCKS


def test_a_model_without_blocks_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match=r"no list of 7 blocks \(its lists: model.layers \(4\)\)"):
        layerimp.find_blocks(model)
    monkeypatch.setattr(model.config, "get_text_config", lambda: SimpleNamespace())
    with pytest.raises(ModelError, match="num_hidden_layers"):
        layerimp.find_blocks(model)


@pytest.fixture
def teach(plugged: Callable[..., None], install: Install) -> Callable[[Any], None]:
    return lambda answer: plugged(install("teacher", layerimp_blocks=lambda model: answer(model)))


def test_a_plugin_teaches_an_architecture(teach: Callable[[Any], None]) -> None:
    model = tiny("llama")
    model.model.twins = nn.ModuleList(nn.Identity() for _ in range(BLOCKS))
    model.config.num_hidden_layers = 9
    teach(lambda m: BlockStack(m, "model.twins", m.config, m.model))
    assert layerimp.find_blocks(model).path == "model.twins"


def test_a_teacher_that_knows_nothing_is_passed_over(teach: Callable[[Any], None]) -> None:
    teach(lambda _model: None)
    assert layerimp.find_blocks(tiny("llama")).path == "model.layers"


@pytest.mark.parametrize(("answer", "said"), [(lambda _m: 1 / 0, "ZeroDivisionError"), (lambda _m: 5, "returns int")])
def test_a_bad_teacher_is_named_and_left_out(teach: Callable[[Any], None], answer: Any, said: str) -> None:
    teach(answer)
    with pytest.warns(PluginWarning, match=rf"the plugin 'teacher' \(layerimp-teacher 1.2\) is left out: .*{said}"):
        assert layerimp.find_blocks(tiny("llama")).path == "model.layers"
    assert layerimp.find_blocks(tiny("llama")).path == "model.layers"
    assert said in str(host().record("teacher").error)


def test_the_longest_row_leaves_out_positions_for_padding() -> None:
    assert longest_row(tiny("llama")) == 64
    roberta = AutoConfig.for_model("roberta", **{**ALL["bert"], "pad_token_id": 1})
    assert longest_row(AutoModelForSequenceClassification.from_config(roberta)) == 62
