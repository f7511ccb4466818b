"""Refuses models that layerimp cannot use as they are, before any long work, and names a way that works."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from layerimp.blocks.input_forms import vision_part
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_BESIDE_TEXT = re.compile(r"(audio|video|speech|tower)(_\w+)?")
"""The parts of a configuration that describe inputs other than text and images. Beside images, these are tried too."""


def refuse_unfit(model: PreTrainedModel | Any, *, quantised: bool = False) -> None:
    """Refuse a model from which no blocks can be removed exactly.

    Args:
        model: The model.
        quantised: Whether to accept quantised weights, of a model that is only run.

    Raises:
        ModelError: this is not a model of Transformers, it has unmerged adapters or quantised weights, or reads
            something beside text, but no images; the error names a way that works.
    """
    kind = type(model).__name__
    if not hasattr(model, "config"):
        raise ModelError(f"a loaded model of Transformers is needed, such as layerimp.load gives, got a {kind}")
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{kind} has adapters that are not merged into its weights; merge them first: model.merge_and_unload()"
        )
    refuse_config(model.config, kind, quantised=quantised)


def refuse_config(config: PretrainedConfig, kind: str, *, quantised: bool = False) -> None:
    """Refuse the configuration of an unsupported model, before its weights are read; see `refuse_unfit`."""
    if not quantised and (how := getattr(config, "quantization_config", None)):
        method = how.get("quant_method") if isinstance(how, dict) else how.quant_method
        method = getattr(method, "value", method)
        if method == "gguf":
            raise ModelError(
                f"{kind} comes from GGUF; make a plain model first: build one from its configuration without "
                "quantization_config, and load its state_dict()"
            )
        raise ModelError(
            f"the weights of {kind} are quantised ({method}); prune the unquantised model, or the one that "
            "model.dequantize() gives (bitsandbytes), and quantise the result"
        )
    parts = (name for name, value in vars(config).items() if hasattr(value, "to_diff_dict"))
    beside = sorted(filter(_BESIDE_TEXT.fullmatch, parts))
    if beside and vision_part(config) is None:
        raise ModelError(
            f"{kind} reads {', '.join(beside)} beside text, but no images; layerimp can prune models of text, "
            "or of text and images"
        )
