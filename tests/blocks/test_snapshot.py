"""What code leaves behind on a model is taken away, and what Transformers itself needs there stays."""

from __future__ import annotations

from typing import Any

import torch
import zoo
from support.heard import Heard

from layerimp.blocks.modalities import IMAGE, made_up
from layerimp.blocks.snapshot import leaving_no_trace
from layerimp.models.discovery import find_blocks


def test_the_hooks_by_which_transformers_captures_outputs_stay() -> None:
    """LLaVA reads hidden states of its vision tower through hooks that are registered at the first image, and once."""
    model: Any = zoo.build("llava", "image")
    inputs = made_up(find_blocks(zoo.build("llava", "image")), IMAGE)
    assert inputs is not None
    heard, layer = Heard(), model.model.vision_tower.encoder.layers[0]
    hook = torch.nn.Module.register_forward_hook
    with leaving_no_trace(model, heard, "the code"):
        first = model(**inputs).logits
    assert not heard.lines
    with leaving_no_trace(model, heard, "the code"):
        hook(layer, lambda *_: None)
    assert heard.lines == ["the code left a hook on model.vision_tower.encoder.layers.0 behind; taken away"]
    assert torch.equal(model(**inputs).logits, first)
