"""Loads a model and its tokenizer, with clear errors if that fails."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory
from transformers import AutoTokenizer

from layerimp.blocks.memory import free_bytes
from layerimp.blocks.modes import quiet
from layerimp.defaults import STARTER
from layerimp.errors import LayerimpError, ModelError, OptionError, listing
from layerimp.models.configuration import (
    auto_class,
    configuration,
    count_parameters,
    source_of,
    stored_in,
    without_weights,
)
from layerimp.models.devices import device_named
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import (
    SAFETENSORS,
    dtype_named,
    emulation_note,
    holds,
    is_native,
    name_of,
    remember_stored,
    stored_dtype,
)
from layerimp.models.failures import check_weights, unloadable
from layerimp.models.safetensors_files import Headers, read_headers
from layerimp.models.unsupported import refuse_config
from layerimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


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
            parts = spread_over_gpus(model, config, wanted, trust_remote_code) if spread else None
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
    if dtype is None and stored not in (None, loaded.dtype, stored_dtype(loaded)):
        progress.note(
            f"{model}: checkpoints are written in {name_of(loaded.dtype)}, since {name_of(stored)} does not hold all "
            "of its weights"
        )
    _tell_rounded(model, loaded, headers, progress)
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    return (loaded if spread else _placed(loaded, place, model)).eval(), tokenizer


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
        raise unloadable(model, error, what="load the tokenizer of") from error
    # Without the files of a tokenizer Transformers makes one for many models that knows no words, or only a space.
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:
        raise ModelError(
            f"{str(model)!r} holds no tokenizer: save the one that the model was trained with beside it "
            "(tokenizer.save_pretrained)"
        )
    return tokenizer


def emulated(model: str | Path, config: PretrainedConfig, device: torch.device) -> torch.dtype | None:
    """Return the stored dtype of a model if it will be on a CPU that only emulates this dtype."""
    stored = stored_in(source_of(model), config)
    return None if device.type != "cpu" or stored is None or is_native(stored) else stored


def float32_stands_in(
    model: str | Path,
    config: PretrainedConfig,
    device: torch.device,
    progress: Progress = SILENT,
    *,
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
        trust_remote_code: Whether Python code that comes with the model may run.
    """
    if str(model) == STARTER:
        return True
    stored = emulated(model, config, device)
    if stored is None:
        return False
    if (parameters := count_parameters(config, trust_remote_code=trust_remote_code)) is None:
        return False
    kind, free = name_of(stored), free_bytes(device)
    needs = round(2.2 * parameters * torch.float32.itemsize)  # a checkpoint is verified beside the model
    if needs > free:
        sizes = f"{needs / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        progress.note(f"{model} computes slowly, in {kind}, which this CPU only emulates: float32 needs {sizes}")
        return False
    progress.note(emulation_note(model, stored))
    return True


def _tell_rounded(model: str | Path, loaded: PreTrainedModel, headers: Headers | None, progress: Progress) -> None:
    """Tell if the files hold numbers that the dtype computed in does not hold, such as norms in float32.

    Args:
        model: The model.
        loaded: The loaded model.
        headers: The headers of its files; None if they are not known.
        progress: Where to report it.
    """
    numbers = {SAFETENSORS[kind]: n for kind, n in headers.numbers.items() if kind in SAFETENSORS} if headers else {}
    wider = {dtype: count for dtype, count in numbers.items() if not holds(loaded.dtype, dtype)}
    kept = sum(part.numel() for part in loaded.state_dict().values() if part.dtype in wider)
    if (rounded := sum(wider.values()) - kept) > 0:
        progress.note(
            f"{model}: {rounded:,} of its numbers are stored in {' or '.join(map(name_of, wider))}, and are rounded to "
            f"{name_of(loaded.dtype)}; --dtype {name_of(reduce(torch.promote_types, wider, loaded.dtype))} keeps them"
        )


def _placed(loaded: PreTrainedModel, place: torch.device, name: str | Path) -> PreTrainedModel:
    """Put a model on a device.

    Raises:
        ModelError: the model does not fit there.
    """
    try:
        moved: PreTrainedModel = loaded.to(place)  # type: ignore[arg-type]  # a decorator hides its signature
        return moved
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{str(name)!r} does not fit on {place}; a smaller dtype helps (--dtype), or several GPUs (--device-map "
            "auto), or the CPU (--device cpu)"
        ) from error


def spread_over_gpus(
    name: str | Path, config: PretrainedConfig, dtype: Any, trust_remote_code: bool
) -> dict[str, int | str]:
    """Assign each part of a model to a GPU, before its weights are read. No block is split.

    Raises:
        ModelError: the model does not fit on the GPUs.
    """
    chosen = None if dtype == "auto" else dtype
    meta_model = without_weights(config, trust_remote_code=trust_remote_code, dtype=chosen)
    whole = sorted(
        {*(meta_model._no_split_modules or ()), *(type(block).__name__ for block in find_blocks(meta_model))}
    )
    memory = get_balanced_memory(meta_model, no_split_module_classes=whole)
    parts: dict[str, int | str] = infer_auto_device_map(meta_model, max_memory=memory, no_split_module_classes=whole)
    if left := [part or "all of it" for part, place in parts.items() if place in ("cpu", "disk", "meta")]:
        raise ModelError(
            f"{str(name)!r} does not fit on the GPUs: there is no room for {listing(left, limit=5)}; more GPUs help, a "
            "smaller dtype (--dtype), or the CPU (--device cpu)"
        )
    return parts
