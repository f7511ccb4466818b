"""Code that changes a model is named, and what Transformers itself adds is no change."""

from __future__ import annotations

from typing import Any

import pytest
import zoo

from layerimp.blocks.modalities import IMAGE, made_up
from layerimp.blocks.snapshot import unchanged
from layerimp.errors import PluginError
from layerimp.models.discovery import find_blocks


def test_the_hooks_by_which_transformers_captures_outputs_are_no_change() -> None:
    """LLaVA reads hidden states of its vision tower through hooks that are registered at the first image, and once."""
    model: Any = zoo.build("llava", "image")
    inputs = made_up(find_blocks(zoo.build("llava", "image")), IMAGE)
    assert inputs is not None
    with unchanged(model, "the code"):
        model(**inputs)
    layer = model.model.vision_tower.encoder.layers[0]
    said = r"the code changed a hook on model\.vision_tower\.encoder\.layers\.0; "
    with pytest.raises(PluginError, match=said), unchanged(model, "the code"):
        layer.register_forward_hook(lambda *_: None)
