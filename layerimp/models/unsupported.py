"""Refuses models that layerimp cannot use as they are, before any long work, and names a way that works."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from layerimp.errors import ModelError
from layerimp.models.finite import refuse_non_finite_fields, refuse_non_finite_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_OTHER_SENSES = re.compile(r"(vision|image|audio|video|speech|vq|tower)(_\w+)?")
"""The parts of a configuration that describe inputs other than text."""


def refuse_unfit(model: PreTrainedModel | Any, *, quantised: bool = False) -> None:
    """Refuse a model from which no blocks can be removed exactly.

    Args:
        model: The model.
        quantised: Whether to accept quantised weights, of a model that is only run.

    Raises:
        ModelError: this is not a model of Transformers, it has unmerged adapters or quantised weights, or reads more
            than text; the error names a way that works.
        NonFiniteError: a weight, or a number in the configuration, is a NaN or an infinity; the error names it.
    """
    kind = type(model).__name__
    if not hasattr(model, "config"):
        raise ModelError(f"a loaded model of Transformers is needed, such as layerimp.load gives, got a {kind}")
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{kind} has adapters that are not merged into its weights; merge them first: model.merge_and_unload()"
        )
    refuse_config(model.config, kind, quantised=quantised)
    refuse_non_finite_weights(model)


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
            f"the weights of {kind} are quantised ({method}); prune the unquantised model and quantise the result, or, "
            "where the method can be undone (bitsandbytes), first save what model.dequantize() gives"
        )
    others = sorted(name for name, value in vars(config).items() if _OTHER_SENSES.fullmatch(name) and _is_part(value))
    if others:
        raise ModelError(
            f"{kind} reads more than text ({', '.join(others)}), and its language blocks are not removed within it; "
            "extract its language model first: build one from config.get_text_config(), and load its weights"
        )
    refuse_non_finite_fields(config, kind)


def _is_part(value: object) -> bool:
    return hasattr(value, "to_diff_dict")
