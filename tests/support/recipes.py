"""Recipes from plain values, as a recipe file has them."""

from __future__ import annotations

from typing import Any

from layerimp.recipe import Recipe, validated


def make_recipe(values: dict[str, Any]) -> Recipe:
    """A recipe of these values."""
    return validated(Recipe, values)
