"""A way to quantise weights that Transformers loads: 8 bits for each weight of a linear map, a scale for each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "int8_rows"


class Int8Linear(nn.Module):
    """A linear map with weights in 8 bits."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(rows, columns, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(rows, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the product with the weights."""
        weight = self.get_buffer("weight").to(hidden.dtype) * self.get_buffer("scale")
        return nn.functional.linear(hidden, weight)


def with_int8(model: nn.Module) -> None:
    """Replace the linear maps of the blocks; the weights are rounded if they are there."""
    for path, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or ".layers." not in path:
            continue
        small = Int8Linear(*module.weight.shape)
        if not module.weight.is_meta:
            scale = module.weight.detach().abs().amax(dim=1, keepdim=True) / 127
            small.get_buffer("weight").copy_((module.weight.detach() / scale).round())
            small.get_buffer("scale").copy_(scale)
        else:
            small = small.to("meta")
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, small)


@register_quantization_config(METHOD)
class Config(QuantizationConfigMixin):
    """The configuration of such models."""

    def __init__(self, **_given: Any) -> None:
        self.quant_method = METHOD

    def to_dict(self) -> dict[str, Any]:
        """Return what is written into the configuration."""
        return {"quant_method": METHOD}


@register_quantizer(METHOD)
class Quantizer(HfQuantizer):
    """Loads such models."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: Any, **_more: Any) -> None:
        with_int8(model)

    def _process_model_after_weight_loading(self, model: Any, **_more: Any) -> Any:
        return model

    def is_serializable(self, *_given: Any, **_more: Any) -> bool:
        """Whether the model can be written."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether the model can be trained."""
        return False


def quantise(model: Path, directory: Path) -> Path:
    """Write a model with 8 bits for each weight."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with_int8(loaded)
    loaded.config.quantization_config = Config().to_dict()
    loaded.save_pretrained(directory)
    AutoTokenizer.from_pretrained(model).save_pretrained(directory)
    return directory
