"""The recipe, which describes a run, and the functions that read one."""

from layerimp.recipe.description import Recipe, checked_keep
from layerimp.recipe.parts import (
    PERMISSIONS,
    Baselines,
    CalibrationSpec,
    Components,
    ComponentSpec,
    Healers,
    Part,
    Permissions,
    Scorers,
    check_kind,
    check_label,
    checked_size,
    size_in_bytes,
)
from layerimp.recipe.reading import Described, made, make_recipe, read_recipe, read_yaml, refuse_permissions

__all__ = [
    "PERMISSIONS",
    "Baselines",
    "CalibrationSpec",
    "ComponentSpec",
    "Components",
    "Described",
    "Healers",
    "Part",
    "Permissions",
    "Recipe",
    "Scorers",
    "check_kind",
    "check_label",
    "checked_keep",
    "checked_size",
    "made",
    "make_recipe",
    "read_recipe",
    "read_yaml",
    "refuse_permissions",
    "size_in_bytes",
]
