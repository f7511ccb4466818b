"""The recipe of `layerimp shrink`: the recommended method, and training after its repair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerimp._paths import last_name
from layerimp.defaults import (
    RECOMMENDED,
    SHIPPED_TRAINING_TOKENS,
    TRAINER,
    TRAINING_MINUTES,
    TRAINING_MINUTES_ELSEWHERE,
    TRAINING_TOKENS,
)
from layerimp.errors import OptionError
from layerimp.models.devices import device_named
from layerimp.pipeline.resolve import resolve
from layerimp.recipe import ComponentSpec
from layerimp.registry.assets import assets
from layerimp.registry.catalog import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from layerimp.recipe import Recipe

LIMITS = ("steps", "tokens", "minutes")
"""The options of a healer that limit its training."""


def trains(spec: ComponentSpec) -> bool:
    """Whether a healer trains, so that its time can be limited: it has an option `minutes`.

    Raises:
        UnknownNameError: there is no such healer.
    """
    return "minutes" in registry().get("healer", spec.name).Config.model_fields


def repairing(recipe: Recipe) -> list[str]:
    """Return the label of the first healer that does not train, if any: it heals in the search for a quality."""
    return [label for label, spec in recipe.healers.items() if not trains(spec)][:1]


def with_training(recipe: Recipe, minutes: float | None = None, *, named: bool = False) -> Recipe:
    """Return a recipe whose repair is followed by training, if it repairs as recommended and no more.

    Args:
        recipe: The recipe in the user's words.
        minutes: How long the user wants to train, if that is said.
        named: Whether the user names the healers, as the record of a run does: then minutes alone add training.
    """
    healers = {label: spec.model_dump() for label, spec in recipe.healers.items()}
    if healers != RECOMMENDED["healers"] or (named and not minutes):
        return recipe
    training = ComponentSpec(name=TRAINER, options={"first": None})
    return recipe.model_copy(update={"healers": {**recipe.healers, TRAINER: training}})


def with_minutes(healers: Mapping[str, ComponentSpec], minutes: float) -> dict[str, ComponentSpec]:
    """Return healers of which those that train do so for at most so many minutes; for 0 they are left out.

    Raises:
        OptionError: the number is negative, or no healer trains.
    """
    if not 0 <= minutes < float("inf"):
        raise OptionError(f"--minutes {minutes:g} is no length of a training: give 0 or more")
    if not any(map(trains, healers.values())):
        named = ", ".join(spec.name for spec in healers.values()) or "none"
        raise OptionError(f"--minutes limits training, and no healer trains ({named}): name the healer {TRAINER}")
    limited = {label: {**spec.options, "minutes": minutes} for label, spec in healers.items() if trains(spec)}
    changed = {
        label: spec.model_copy(update={"options": limited.get(label, spec.options)}) for label, spec in healers.items()
    }
    return {label: spec for label, spec in changed.items() if minutes or label not in limited}


def without_limits(recipe: Recipe) -> Recipe:
    """Return a recipe whose training has no limits."""

    def unlimited(spec: ComponentSpec) -> ComponentSpec:
        options = {name: value for name, value in spec.options.items() if name not in LIMITS}
        return spec.model_copy(update={"options": options}) if trains(spec) else spec

    healers = {label: unlimited(spec) for label, spec in recipe.healers.items()}
    return recipe.model_copy(update={"healers": healers})


def completed(recipe: Recipe, minutes: float | None, device: torch.device | None = None) -> Recipe:
    """Return the recipe of a command `shrink` with everything that the user left open and that needs no model.

    Args:
        recipe: The recipe in the user's words, with training; see `with_training`.
        minutes: How long to train; by default as many tokens as `layerimp.defaults` says, within its limits of time.
        device: Where the model is, if it is loaded already.

    Raises:
        InputError: the minutes are no length of time, a healer does not exist, or nothing reads the further text.
    """
    healers = dict(recipe.healers)
    if minutes is not None and (minutes or any(map(trains, healers.values()))):
        healers = with_minutes(healers, minutes)
    read = any(getattr(registry().get("healer", spec.name), "reads_further", False) for spec in healers.values())
    if minutes == 0 and recipe.heal_text is not None and not read:
        raise OptionError("--heal-text is for training, and --minutes 0 trains nothing: leave out one of them")
    own = {
        "tokens": SHIPPED_TRAINING_TOKENS if recipe.heal_text is None else TRAINING_TOKENS,
        "minutes": TRAINING_MINUTES.get((device or device_named(recipe.device)).type, TRAINING_MINUTES_ELSEWHERE),
    }
    for label, spec in healers.items():
        if trains(spec) and not any(spec.options.get(limit) is not None for limit in LIMITS):
            healers[label] = spec.model_copy(update={"options": {**spec.options, **own}})
    return recipe.model_copy(update={"healers": healers})


def with_output(recipe: Recipe) -> Recipe:
    """Return a recipe with an output: by default a directory here, named after the model."""
    return recipe if recipe.output else recipe.model_copy(update={"output": Path(f"{last_name(recipe.model)}-small")})


def shipped_text(recipe: Recipe) -> str | None:
    """Return the name of the text that a recipe's model reads if it ships; None for other texts."""
    source = resolve(recipe).calibration.source
    return source if source in assets().texts else None
