"""Errors that say why a model cannot be loaded: which weight, or which field of its configuration, is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

from layerimp._paths import expanded
from layerimp.errors import ModelError, cause
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def unloadable(model: str | Path, error: Exception, *, what: str = "load") -> ModelError:
    """Make the error for a model that cannot be loaded, with the reason and the configuration's field, if one is named.

    Args:
        model: The model.
        error: The original error.
        what: What was tried, as a verb.
    """
    source, reason, known = expanded(located("models", model)), cause(error), ""
    fields: object = None
    if source.exists():
        with suppress(Exception):  # the configuration itself may be unreadable
            fields, _ = PretrainedConfig.get_config_dict(source)
    else:
        known = "no directory here has that name, and from the hub: "
    named = (f" (its configuration says {field} {text!r})" for field, text in _texts(fields) if f"'{text}'" in reason)
    where = next(named, "")
    return ModelError(f"cannot {what} the model {str(model)!r}: {known}{reason}{where}")


def _texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in a configuration, or in a part of one, each with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{path}.{name}" if path else str(name))


def check_weights(name: str | Path, model: PreTrainedModel, info: Mapping[str, Any]) -> None:
    """Refuse a model with weights that the files do not have, or files with blocks that the model does not have.

    Args:
        name: The name of the model.
        model: The model.
        info: The loading information of `from_pretrained`.

    Raises:
        ModelError: the weights do not fit the configuration; the error names a weight, with both shapes if they differ.
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
    """Describe the weights that a checkpoint lacks or has in another shape; empty if all weights fit.

    Args:
        info: The loading information of `from_pretrained`.
    """
    if keys := sorted(info.get("missing_keys") or ()):
        return f"{len(keys)} missing keys, the first is {keys[0]}"
    if shapes := sorted(info.get("mismatched_keys") or ()):
        key, stored, described = shapes[0]
        first = f"{key}, which is {list(stored)} in the files and {list(described)} by the configuration"
        return f"{len(shapes)} mismatched keys, the first is {first}"
    return ""
