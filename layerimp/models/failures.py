"""Says why a model cannot be loaded: which weight, or which field of its configuration, is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

from layerimp.errors import ModelError, cause
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def unloadable(model: str | Path, error: Exception, *, what: str = "load") -> ModelError:
    """The error that a model cannot be loaded, or `what` else was tried: why, and where its configuration says so."""
    source, said, known = Path(located("models", model)).expanduser(), cause(error), ""
    fields: object = None
    if source.exists():
        with suppress(Exception):  # it may be what is wrong
            fields, _ = PretrainedConfig.get_config_dict(source)
    else:
        known = "no directory here has that name, and from the hub: "
    named = (f" (its configuration says {field} {value!r})" for field, value in _texts(fields) if f"'{value}'" in said)
    where = next(named, "")
    return ModelError(f"cannot {what} the model {str(model)!r}: {known}{said}{where}")


def _texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a configuration, or in a part of one, each after its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{path}.{name}" if path else str(name))


def check_weights(name: str | Path, model: PreTrainedModel, info: Mapping[str, Any]) -> None:
    """Refuse a model part of which would be random, or blocks of which would be left out.

    Args:
        name: What the model is called.
        model: The model.
        info: What `from_pretrained` says of its weights.

    Raises:
        ModelError: the weights do not fit the configuration; names one, with both shapes where these differ.
    """
    if wrong := unfit_keys(info):
        raise ModelError(f"the weights of {str(name)!r} do not fit its configuration: {wrong}")
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for key in sorted(info.get("unexpected_keys") or ()):
        numbers = [int(part) for part in key.split(".") if part.isdigit()]
        if count is not None and numbers and numbers[0] >= count:
            raise ModelError(
                f"{str(name)!r} has weights of a block {numbers[0]} ({key}), but its configuration counts {count}"
            )


def unfit_keys(info: Mapping[str, Any]) -> str:
    """The weights that a checkpoint has not, or in another shape, as its loading tells; empty where all are there."""
    if keys := sorted(info.get("missing_keys") or ()):
        return f"{len(keys)} missing keys, the first is {keys[0]}"
    if shapes := sorted(info.get("mismatched_keys") or ()):
        key, stored, described = shapes[0]
        first = f"{key}, which is {list(stored)} in the files and {list(described)} by the configuration"
        return f"{len(shapes)} mismatched keys, the first is {first}"
    return ""
