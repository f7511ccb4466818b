"""Meta models: what they are built from."""

from __future__ import annotations

from typing import Any

from support.tiny import tiny

from layerimp.surgery.meta_model import reread


def test_a_configuration_is_read_back_as_from_its_file(tmp_path: Any) -> None:
    config = tiny().config
    config.unusual, config.never = float("inf"), float("-inf")
    config.to_json_file(tmp_path / "config.json")
    expected = type(config).from_json_file(tmp_path / "config.json")
    assert (reread(config).unusual, reread(config).never) == (float("inf"), float("-inf"))
    assert reread(config).to_dict() == expected.to_dict()
