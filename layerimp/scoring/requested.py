"""The scorers that a caller in Python requests: by name, with options, or as instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerimp.errors import OptionError
from layerimp.registry.attribution import create
from layerimp.registry.catalog import registry
from layerimp.scorer import Scorer

Options = Mapping[str, Mapping[str, Any]]
"""Options by label and name."""


def requested(
    scorers: Sequence[str | Scorer] | Mapping[str, str | Scorer], options: Options, num_blocks: int
) -> dict[str, Scorer]:
    """Return the scorers by label, for a model with that number of blocks; see `layerimp.score`."""
    labelled = scorers if isinstance(scorers, Mapping) else _by_name(scorers)
    _check(options, labelled)
    return {label: _configured(label, item, options.get(label), num_blocks) for label, item in labelled.items()}


def _by_name(scorers: Sequence[str | Scorer]) -> dict[str, str | Scorer]:
    if isinstance(scorers, str):
        raise OptionError(f"scorers are given as a list, such as [{scorers!r}], got {scorers!r}")
    names = [item.name if isinstance(item, Scorer) else item for item in scorers]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"the scorer {name!r} comes twice; give each a label: {{'label': scorer, ...}}")
    return dict(zip(names, scorers, strict=True))


def _check(options: Any, scorers: Mapping[str, str | Scorer]) -> None:
    """Refuse options that are not given by label."""
    mapping = isinstance(options, Mapping)
    if mapping and options.keys() <= scorers.keys() and all(isinstance(entry, Mapping) for entry in options.values()):
        return
    meant = options if mapping and options.keys().isdisjoint(scorers) else {"OPTION": "VALUE"}
    examples = ", ".join(f"{label!r}: {dict(meant)}" for label in list(scorers)[:1])
    raise OptionError(f"options are given by the label of a scorer: options={{{examples}}}, got {options!r}")


def _configured(label: str, item: str | Scorer, options: Mapping[str, Any] | None, num_blocks: int) -> Scorer:
    if isinstance(item, Scorer):
        if options is not None:
            raise OptionError(f"the scorer {label!r} is an instance, which has its options; give its name instead")
        return item
    meant = f"For a label of your own, name its scorer: {{{label!r}: 'SCORER'}}, options={{{label!r}: {{...}}}}."
    registry().get("scorer", item, otherwise=meant)
    scorer = create("scorer", item, options or {}, num_blocks, label=label)
    assert isinstance(scorer, Scorer)
    return scorer
