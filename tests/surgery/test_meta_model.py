"""Meta models: what they are built from, and what is known of a model that was built before."""

from __future__ import annotations

from typing import Any

import pytest
from support.tiny import tiny

import layerimp
from layerimp.surgery import meta_model
from layerimp.surgery.meta_model import Builder, reread
from layerimp.surgery.removal import prepare
from layerimp.testing import BLOCKS


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of blocks of all meta models that are built from here on."""
    numbers: list[int] = []
    real = Builder._build

    def build(self: Builder, config: Any, context: Any) -> Any:
        numbers.append(config.num_hidden_layers)
        return real(self, config, context)

    monkeypatch.setattr(Builder, "_build", build)
    monkeypatch.setattr(meta_model, "_DESCRIBED", {})
    return numbers


def test_the_intact_model_is_built_once_for_many_removals(built: list[int]) -> None:
    for block in range(BLOCKS):
        prepare(layerimp.find_blocks(tiny()), [block])
    assert built.count(BLOCKS) == 1
    assert built.count(BLOCKS - 1) == BLOCKS


def test_another_model_is_described_anew(built: list[int]) -> None:
    model = tiny()
    prepare(layerimp.find_blocks(model), [1])
    model.config.rope_parameters["rope_theta"] = 77.0
    found = Builder(model).describe(model.config, "model.layers")
    assert built.count(BLOCKS) == 2
    assert found.rest != Builder(model).describe(tiny().config, "model.layers").rest
    assert built.count(BLOCKS) == 2


def test_few_descriptions_are_kept(built: list[int]) -> None:
    for size in range(8, 16):
        model = tiny(intermediate_size=size)
        Builder(model).describe(model.config, "model.layers")
    assert len(meta_model._DESCRIBED) == meta_model._KEPT


def test_a_configuration_is_read_back_as_from_its_file(tmp_path: Any) -> None:
    config = tiny().config
    config.unusual, config.never = float("inf"), float("-inf")
    config.to_json_file(tmp_path / "config.json")
    expected = type(config).from_json_file(tmp_path / "config.json")
    assert (reread(config).unusual, reread(config).never) == (float("inf"), float("-inf"))
    assert reread(config).to_dict() == expected.to_dict()
