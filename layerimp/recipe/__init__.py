"""The recipe, which describes a run, and the functions that read one."""

from layerimp.recipe.calibration import CalibrationSpec
from layerimp.recipe.components import ComponentSpec
from layerimp.recipe.experiment import Experiment
from layerimp.recipe.labels import check_label
from layerimp.recipe.permissions import PERMISSIONS, Permissions
from layerimp.recipe.reading import check_kind, read_recipe, validated
from layerimp.recipe.recipe import Recipe

__all__ = [
    "PERMISSIONS",
    "CalibrationSpec",
    "ComponentSpec",
    "Experiment",
    "Permissions",
    "Recipe",
    "check_kind",
    "check_label",
    "read_recipe",
    "validated",
]
