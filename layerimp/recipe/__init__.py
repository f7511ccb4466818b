"""The recipe, which describes a run, and the functions that read one."""

from layerimp.recipe.calibration import CalibrationSpec
from layerimp.recipe.components import Baselines, Components, ComponentSpec, Healers, Scorers
from layerimp.recipe.experiment import Experiment
from layerimp.recipe.labels import check_label
from layerimp.recipe.part import Part, check_kind
from layerimp.recipe.permissions import PERMISSIONS, Permissions, refuse_permissions
from layerimp.recipe.reading import Described, make_recipe, read_recipe, read_yaml, validated
from layerimp.recipe.recipe import Recipe, checked_keep
from layerimp.recipe.shard_size import checked_size, size_in_bytes

__all__ = [
    "PERMISSIONS",
    "Baselines",
    "CalibrationSpec",
    "ComponentSpec",
    "Components",
    "Described",
    "Experiment",
    "Healers",
    "Part",
    "Permissions",
    "Recipe",
    "Scorers",
    "check_kind",
    "check_label",
    "checked_keep",
    "checked_size",
    "make_recipe",
    "read_recipe",
    "read_yaml",
    "refuse_permissions",
    "size_in_bytes",
    "validated",
]
