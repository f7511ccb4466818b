"""Loads a model and its tokenizer, with clear errors if that fails."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto import modeling_auto

from layerimp._paths import expanded
from layerimp.blocks.memory import free_bytes
from layerimp.blocks.modes import quiet
from layerimp.defaults import STARTER
from layerimp.errors import LayerimpError, ModelError, OptionError, cause
from layerimp.models.devices import device_named, placed, spread_over_gpus
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import (
    SAFETENSORS,
    dtype_named,
    emulation_note,
    is_native,
    name_of,
    remember_stored,
    stored_dtype,
)
from layerimp.models.failures import check_weights, unloadable
from layerimp.models.safetensors_files import Headers, read_headers, tensors_in
from layerimp.models.unsupported import refuse_config
from layerimp.progress import SILENT, Progress
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

CLASSIFIER = "AutoModelForSequenceClassification"
"""The stock class of models that predict one of several labels."""

_AUTO_CLASSES: dict[str, dict[str, Any]] = {
    "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    CLASSIFIER: modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "AutoModelForMaskedLM": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "AutoModel": modeling_auto.MODEL_MAPPING_NAMES,
}


def load(
    model: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: Literal["auto"] | None = None,
    trust_remote_code: bool = False,
    quantised: bool = False,
    progress: Progress = SILENT,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, for causal language modelling or sequence classification, and its tokenizer.

    Args:
        model: A directory, the name of a model on the hub, or the name of one that a plugin ships, such as `starter`.
        dtype: The dtype to compute in. By default the stored dtype, but float32 for the starter, and for a dtype that
            the CPU only emulates if there is enough memory. Checkpoints keep the stored dtype.
        device: The device of the model; by default the first GPU, else the CPU.
        device_map: `auto` spreads the model over all GPUs, or puts it on the CPU if there are none. In place of
            `device`.
        trust_remote_code: Whether Python code that comes with the model may run.
        quantised: Whether to load quantised weights too, which can only be measured.
        progress: Where to report that the model computes in another dtype than the stored one, or should.

    Raises:
        ModelError: the model cannot be loaded, or does not fit on the device; the error says why.
        NonFiniteError: a number in the configuration is a NaN or an infinity; the error names the field.
        OptionError: there is no such dtype or device, or both `device` and `device_map` are given.
    """
    if device_map not in (None, "auto"):
        raise OptionError(f"unknown device_map {device_map!r}. Known: auto.")
    if device is not None and device_map is not None:
        raise OptionError("device and device_map contradict each other; give one of them")
    place = device_named(device)
    spread = device_map is not None and place.type == "cuda"
    wanted = dtype_named(dtype)
    source = source_of(model)
    config = configuration(model, trust_remote_code=trust_remote_code)
    try:
        with quiet():
            refuse_config(config, f"the model {str(model)!r}", quantised=quantised)
            auto = getattr(transformers, auto_class(config))
            headers = read_headers(str(model))
            stored = stored_in(source, config)
            if dtype is None and float32_stands_in(model, config, place, progress, trust_remote_code=trust_remote_code):
                wanted = torch.float32
            parts = spread_over_gpus(model, auto, config, wanted, trust_remote_code) if spread else None
            loaded, info = auto.from_pretrained(
                source,
                config=config,
                dtype=wanted,
                device_map=parts,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # so that `info` lists them
                output_loading_info=True,
            )
    except LayerimpError:
        raise
    except Exception as error:  # a broken file can make the libraries raise anything
        raise unloadable(model, error) from error
    check_weights(model, loaded, info)
    remember_stored(loaded, stored, headers.numbers if headers else ())
    if dtype is None and stored is not None:
        _tell_wider(model, loaded, stored, headers, progress)
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    return (loaded if spread else placed(loaded, place, model)).eval(), tokenizer


def load_tokenizer(model: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        ModelError: it cannot be loaded, or knows no words; says why.
    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                source_of(model), trust_remote_code=trust_remote_code
            )
    except Exception as error:
        raise ModelError(f"cannot load the tokenizer of {str(model)!r}: {cause(error)}") from error
    # Without the files of a tokenizer Transformers makes one for many models that knows no words, or only a space.
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:
        raise ModelError(
            f"{str(model)!r} holds no tokenizer: save the one that the model was trained with beside it "
            "(tokenizer.save_pretrained)"
        )
    return tokenizer


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
        with quiet(), torch.device("meta"):
            auto = getattr(transformers, auto_class(config))
            return len(find_blocks(auto.from_config(config, trust_remote_code=trust_remote_code)))
    except Exception:  # any fault will be reported when the model is loaded
        return None


def float32_stands_in(
    model: str | Path,
    config: PretrainedConfig,
    device: torch.device,
    progress: Progress = SILENT,
    *,
    copies: int = 1,
    trust_remote_code: bool = False,
) -> bool:
    """Whether a model computes in float32 if no dtype is asked for, whatever its stored dtype.

    The starter always does, so that it gives the same numbers on every machine. Other models do if the CPU only
    emulates their stored dtype and there is enough memory.

    Args:
        model: The model.
        config: The model's configuration.
        device: The device that the model will be on.
        progress: Where to report the decision.
        copies: The number of copies that have to fit in memory, each with a second copy to verify a checkpoint.
        trust_remote_code: Whether Python code that comes with the model may run.
    """
    if str(model) == STARTER:
        return True
    stored = stored_in(source_of(model), config)
    if device.type != "cpu" or stored is None or is_native(stored):
        return False
    try:
        with torch.device("meta"):
            auto = getattr(transformers, auto_class(config))
            parts = auto.from_config(copy.deepcopy(config), trust_remote_code=trust_remote_code).parameters()
            needs = sum(part.numel() for part in parts) * torch.float32.itemsize
    except Exception:  # the model cannot be built without weights; any fault will be reported when it is loaded
        return False
    kind, free = name_of(stored), free_bytes(device)
    needs = round(2.2 * needs * copies)  # a checkpoint is verified beside the model
    if needs > free:
        sizes = f"{needs / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        progress.note(f"{model} computes in {kind}, which this CPU only emulates: float32 needs {sizes}")
        return False
    progress.note(emulation_note(model, stored))
    return True


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


def _tell_wider(
    model: str | Path, loaded: PreTrainedModel, stored: torch.dtype, headers: Headers | None, progress: Progress
) -> None:
    """Tell if a checkpoint holds numbers that its stored dtype does not hold, such as norms in float32 beside bfloat16.

    Args:
        model: The model.
        loaded: The loaded model.
        stored: Its stored dtype.
        headers: The headers of its files; None if they are not known.
        progress: Where to report it.
    """
    if loaded.dtype != stored:
        if stored_dtype(loaded) != stored:
            progress.note(
                f"{model}: checkpoints are written in {name_of(loaded.dtype)}, since {name_of(stored)} does not hold "
                "all of its weights"
            )
        return
    numbers = {SAFETENSORS[kind]: n for kind, n in headers.numbers.items() if kind in SAFETENSORS} if headers else {}
    wider = sum(count for dtype, count in numbers.items() if dtype.itemsize > stored.itemsize)
    weights = loaded.state_dict().values()
    kept = sum(part.numel() for part in weights if part.dtype in numbers and part.dtype != stored)
    if wider > kept:
        progress.note(
            f"{model}: {wider - kept:,} of its numbers are stored in more bits, and are rounded to {name_of(stored)}; "
            "--dtype float32 keeps them"
        )


def auto_class(config: PretrainedConfig) -> str:
    """Return the name of the stock `Auto` class that loads checkpoints with this configuration.

    Raises:
        ModelError: the checkpoint is of a class of Transformers that layerimp does not load, with another head.
    """
    architectures = config.architectures or []
    for name, stock in _AUTO_CLASSES.items():
        if {stock.get(config.model_type), _added(name, config)}.intersection(architectures):
            return name
    if strange := [name for name in architectures if hasattr(transformers, name)]:
        raise ModelError(
            f"{strange[0]} is of a kind that layerimp does not load; it loads language models (causal and masked), "
            "sequence classifiers, and models without a head"
        )
    causal = "AutoModelForCausalLM"
    return causal if config.model_type in _AUTO_CLASSES[causal] or _added(causal, config) else "AutoModel"


def _added(auto: str, config: PretrainedConfig) -> str | None:
    """Return the model class from outside Transformers that an `Auto` class loads: registered, or code in the model."""
    registered = getattr(transformers, auto)._model_mapping._extra_content.get(type(config))
    classes = getattr(config, "auto_map", None)
    beside = classes.get(auto) if isinstance(classes, dict) else None
    return registered.__name__ if registered else beside and str(beside).rpartition(".")[2]


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
        raise ModelError(f"the model directory {str(model)!r} holds no config.json")
    if not any(name.endswith(".safetensors") for name in names):
        if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
            raise ModelError(
                f"{str(model)!r} holds pickled weights only, which can run code when loaded; convert them to "
                "safetensors (save_pretrained does)"
            )
        raise ModelError(f"the model directory {str(model)!r} holds no weights (*.safetensors)")
    return str(path)
