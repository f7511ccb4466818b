"""The source of a checkpoint as a model card may name it, with its licence, and the metadata that the Hub reads."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerimp._paths import expanded, last_name
from layerimp.registry.assets import assets, located

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from huggingface_hub import EvalResult, ModelCardData

CARD = "README.md"
"""The file name of a model card."""
_LICENCE = re.compile(r"(licen[cs]e|copying|notice)[\w.-]*", re.IGNORECASE)
"""The file names of licences. Other files are not copied, whatever a card names."""

TAGS = ("layerimp", "pruned", "depth-pruning")
"""The tags of every pruned checkpoint."""

PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForImageTextToText": "image-text-to-text",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModel": "feature-extraction",
}
"""The Hub's names of the tasks of models, by the stock class that loads the model."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Origin:
    """The source of a checkpoint.

    Attributes:
        name: The id on the hub, the name under which a plugin ships the model, or the name of its directory.
        base_model: The id on the hub; for a local model, the ids that its card names as its base. Empty if not known.
        license: The licence that the card states.
        license_name: The name of a licence for which the hub has no identifier.
        license_link: An address, or the name of a file beside the weights.
        license_file: The path of this file. It must be copied into the checkpoint.
    """

    name: str
    base_model: tuple[str, ...] = ()
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    license_file: Path | None = None

    def copy_license(self, directory: Path) -> None:
        """Copy the file of the licence, if there is one, into a checkpoint."""
        if self.license_file is not None:
            shutil.copyfile(self.license_file, directory / self.license_file.name)


def origin_of(model: str | Path) -> Origin:
    """Return what the name of a model and its card say about it.

    The configuration is not read: the name in it may be an id on the hub, or a directory of another machine.

    Args:
        model: A directory, the id of a model on the hub, or the name of a model that a plugin ships.
    """
    place = expanded(located("models", model))
    if not place.is_dir():
        hub = next(iter(_ids(str(model))), None)
        return _described(str(model), hub, None if hub is None else _card_on_the_hub(hub), None)
    return _described(model_name(model), _cached_id(place), place / CARD, place)


def model_name(model: str | Path) -> str:
    """Return the id of a model on the hub, the name under which a plugin ships it, or the name of its directory."""
    place = expanded(located("models", model))
    if str(model) in assets().models or not place.is_dir():
        return str(model)
    return _cached_id(place) or last_name(place)


def _described(name: str, hub: str | None, card: Path | None, directory: Path | None) -> Origin:
    """Return the origin with this name, completed from its card; `directory` may hold the file of the licence."""
    metadata = {} if card is None else _metadata(card)
    base = (hub,) if hub else _ids(metadata.get("base_model"))
    link, file = _text(metadata.get("license_link")), None
    if link is not None and not link.startswith(("https://", "http://")):
        link, file = _beside(link, hub, directory)
    return Origin(name, base, _text(metadata.get("license")), _text(metadata.get("license_name")), link, file)


def _beside(link: str, hub: str | None, directory: Path | None) -> tuple[str | None, Path | None]:
    """Return the link to a licence that is a file of the model, and the path of the file if it is local."""
    if not _LICENCE.fullmatch(link):
        return None, None
    if directory is not None and (directory / link).is_file():
        return link, directory / link
    return (f"https://huggingface.co/{hub}/blob/main/{link}" if hub else None), None


def _cached_id(directory: Path) -> str | None:
    """Return the id of a model in the cache of the hub, `models--ORG--NAME/snapshots/REVISION`; None elsewhere."""
    folder = directory.absolute().parent
    kind, *parts = folder.parent.name.split("--")
    return "/".join(parts) if folder.name == "snapshots" and kind == "models" and parts else None


@cache
def _card_on_the_hub(model: str) -> Path | None:
    """Fetch the card of a model on the hub, once per process; None if that fails, as it does offline."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, CARD))
    except Exception:  # the hub and the network fail in many ways, and a checkpoint can do without
        return None


def _metadata(card: Path) -> Mapping[str, Any]:
    """Return the metadata of a card; empty if there are none, or if they cannot be read."""
    from huggingface_hub import metadata_load

    try:
        return metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _ids(value: Any) -> tuple[str, ...]:
    """Return the values that are valid ids of models on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is not listed

    ids = []
    for candidate in [] if value is None else value if isinstance(value, list) else [value]:
        try:
            validate_repo_id(candidate)
        except HFValidationError:
            continue
        ids.append(candidate)
    return tuple(ids)


def _text(value: Any) -> str | None:
    """Return a value if it is a text of one line; else None."""
    return value.strip() if isinstance(value, str) and value.strip() and len(value.splitlines()) == 1 else None


def metadata(
    origin: Origin, loader: str, tags: Iterable[str | None] = (), results: Sequence[EvalResult] = (), name: str = ""
) -> ModelCardData:
    """Return the metadata of a checkpoint's card.

    The relation to the base is `finetune`: the Hub has no word for pruning, and uses this one for derived models that
    are not quantised, not adapters, and not merged from several.

    Args:
        origin: The source of the checkpoint.
        loader: The stock `Auto` class that loads the checkpoint.
        tags: Further tags, such as the scorer; texts that cannot be tags are left out.
        results: The results of the evaluation.
        name: The name of the checkpoint beside these results.
    """
    from huggingface_hub import ModelCardData

    base: Any = list(origin.base_model) if len(origin.base_model) > 1 else next(iter(origin.base_model), None)
    return ModelCardData(
        base_model=base,
        base_model_relation="finetune" if base else None,
        library_name="transformers",
        pipeline_tag=PIPELINES.get(loader),
        license=origin.license,
        license_name=origin.license_name,
        license_link=origin.license_link,
        tags=[*TAGS, *(tag for tag in tags if tag and _TAG.fullmatch(tag))],
        model_name=name if results else None,
        eval_results=list(results) or None,
    )


def front_matter(data: ModelCardData) -> str:
    """Return the metadata as text for the head of a card."""
    return f"---\n{data.to_yaml()}\n---\n"
