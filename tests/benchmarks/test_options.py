"""The options that benchmarks share."""

from __future__ import annotations

import pytest
from options import limits

from layerimp.errors import OptionError
from layerimp.recipe import Recipe


def test_limits_are_read_as_by_a_command() -> None:
    assert limits(None) == {}
    assert limits(["300", "blimp=1340"]) == {"limit": 300, "limits": {"blimp": 1340}}
    assert Recipe.model_validate({"model": "m", **limits(["blimp=5"])}).limits == {"blimp": 5}
    for wrong in (["blimp="], ["0"], ["blimp=1", "blimp=2"]):
        with pytest.raises(OptionError, match="--limit"):
            limits(wrong)
