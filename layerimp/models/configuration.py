"""What is known of a model from its configuration: its stock class, its blocks, and the dtype of its weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoConfig
from transformers.models.auto import modeling_auto

from layerimp._paths import expanded
from layerimp.blocks.input_forms import vision_part
from layerimp.blocks.modes import quiet
from layerimp.errors import ModelError
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import SAFETENSORS
from layerimp.models.failures import unloadable
from layerimp.models.safetensors_files import tensors_in
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CLASSIFIER = "AutoModelForSequenceClassification"
"""The stock class of models that predict one of several labels."""

_CAUSAL, _SEEING = "AutoModelForCausalLM", "AutoModelForImageTextToText"

_AUTO_CLASSES: dict[str, dict[str, Any]] = {
    _CAUSAL: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    _SEEING: modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    CLASSIFIER: modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "AutoModelForMaskedLM": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "AutoModel": modeling_auto.MODEL_MAPPING_NAMES,
}


def source_of(model: str | Path) -> str:
    """Where Transformers finds a model: its directory, or its name on the hub.

    Raises:
        ModelError: there is no such directory, or the directory holds no model that can be loaded; says why.
    """
    model = located("models", model)
    path = expanded(model)
    if path.suffix == ".gguf":
        raise ModelError(
            f"{str(model)!r} is a GGUF file; make a plain model first: load it with from_pretrained(gguf_file=...), "
            "build one from its configuration without quantization_config, load its state_dict(), and save that"
        )
    if not path.exists():
        if isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") > 1:
            raise ModelError(f"the model directory {str(model)!r} does not exist")
        return str(model)
    if not path.is_dir():
        raise ModelError(f"{str(model)!r} is a file; a model is a directory with config.json and safetensors")
    names = {entry.name for entry in path.iterdir()}
    if not names:
        raise ModelError(f"the model directory {str(model)!r} is empty")
    if "adapter_config.json" in names and "config.json" not in names:
        raise ModelError(
            f"{str(model)!r} holds an adapter and no model; merge it into its base first: "
            "PeftModel.from_pretrained(base, adapter).merge_and_unload(), and save that"
        )
    if "config.json" not in names:
        inner = ", ".join(sorted(str(entry.parent) for entry in path.glob("checkpoints/*/config.json")))
        hint = f"; that of a model is {inner}" if inner else ""
        raise ModelError(f"the model directory {str(model)!r} holds no config.json{hint}")
    if not any(name.endswith(".safetensors") for name in names):
        if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
            raise ModelError(
                f"{str(model)!r} holds pickled weights only, which can run code when loaded; convert them to "
                "safetensors (save_pretrained does)"
            )
        raise ModelError(f"the model directory {str(model)!r} holds no weights (*.safetensors)")
    return str(path)


def configuration(model: str | Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Read the configuration of a model.

    Raises:
        ModelError: the configuration cannot be read.
    """
    source = source_of(model)
    try:
        with quiet():
            config: PretrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise unloadable(model, error) from error
    return config


def blocks_stated(model: str | Path, *, trust_remote_code: bool = False) -> int | None:
    """Return the number of blocks that a model's configuration states; None if it states no single number.

    Raises:
        ModelError: the configuration cannot be read.
    """
    config = configuration(model, trust_remote_code=trust_remote_code)
    try:
        count = getattr(config.get_text_config(), "num_hidden_layers", None)
    except ValueError:  # several parts, each with blocks
        return None
    return count if isinstance(count, int) and count > 0 else None


def count_blocks(model: str | Path, *, trust_remote_code: bool = False) -> int | None:
    """Return the number of blocks found in a model built without its weights; None if it cannot be built this way.

    Raises:
        ModelError: the configuration cannot be read.
    """
    config = configuration(model, trust_remote_code=trust_remote_code)
    try:
        return len(find_blocks(without_weights(config, trust_remote_code=trust_remote_code)))
    except Exception:  # any fault will be reported when the model is loaded
        return None


def count_parameters(config: PretrainedConfig, *, trust_remote_code: bool = False) -> int | None:
    """Return the number of parameters of a model, by its configuration; None if it cannot be built without weights."""
    try:
        return sum(part.numel() for part in without_weights(config, trust_remote_code=trust_remote_code).parameters())
    except Exception:  # any fault will be reported when the model is loaded
        return None


def without_weights(
    config: PretrainedConfig, *, trust_remote_code: bool = False, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """Build a model on the meta device, which may fail in any way.

    Args:
        config: The configuration.
        trust_remote_code: Whether Python code that comes with the model may run.
        dtype: The dtype of the parameters; by default that of the configuration.
    """
    with quiet(), torch.device("meta"):
        built: PreTrainedModel = getattr(transformers, auto_class(config)).from_config(
            copy.deepcopy(config), dtype=dtype or config.dtype, trust_remote_code=trust_remote_code
        )
    built.eval()
    return built


def stored_in(source: str | Path, config: PretrainedConfig) -> torch.dtype | None:
    """Return the dtype of a checkpoint's weights, from the configuration or else from the first floating-point weight.

    None if neither tells.

    Raises:
        ModelError: a file cannot be read.
    """
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    for file in sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else ():
        kinds = (tensor.kind for tensor in tensors_in(file).values())
        if dtype := next((SAFETENSORS[kind] for kind in kinds if kind in SAFETENSORS), None):
            return dtype
    return None


def auto_class(config: PretrainedConfig) -> str:
    """Return the name of the stock `Auto` class that loads checkpoints with this configuration.

    Raises:
        ModelError: the checkpoint is of a class of Transformers that layerimp does not load, with another head.
    """
    architectures = config.architectures or []
    # Several types stand in the lists of both: their class reads images as well, if the configuration has that part.
    language = [_CAUSAL, _SEEING] if vision_part(config) is None else [_SEEING, _CAUSAL]
    for name in (*language, *_AUTO_CLASSES):
        if {_AUTO_CLASSES[name].get(config.model_type), _added(name, config)}.intersection(architectures):
            return name
    if strange := [name for name in architectures if hasattr(transformers, name)]:
        raise ModelError(
            f"{strange[0]} is of a kind that layerimp does not load; it loads language models (causal, masked, or "
            "with images), sequence classifiers, and models without a head"
        )
    for name in language:
        if config.model_type in _AUTO_CLASSES[name] or _added(name, config):
            return name
    return "AutoModel"


def _added(auto: str, config: PretrainedConfig) -> str | None:
    """Return the model class from outside Transformers that an `Auto` class loads: registered, or code in the model."""
    registered = getattr(transformers, auto)._model_mapping._extra_content.get(type(config))
    classes = getattr(config, "auto_map", None)
    beside = classes.get(auto) if isinstance(classes, dict) else None
    return registered.__name__ if registered else beside and str(beside).rpartition(".")[2]
