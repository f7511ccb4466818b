"""The figure of the README: it shows the numbers that are kept, which are those of the recipe that is kept."""

from __future__ import annotations

import copy
import re

import healed
import pages
import pytest
import reference
import yaml
from support.pictures import alike

SHOWN = (pages.ROOT / "docs" / "figures" / "healed.svg").read_text(encoding="utf-8")


def test_the_figure_shows_the_numbers_that_are_kept() -> None:
    found = healed.known()
    assert alike(SHOWN, healed.picture(found)), "python docs/tools/regenerate.py docs/figures/healed.svg"
    stale = copy.deepcopy(found)
    stale["retained"]["avss+linear"]["6"] = [value - 0.03 for value in stale["retained"]["avss+linear"]["6"]]
    assert not alike(SHOWN, healed.picture(stale))


def test_the_numbers_are_those_of_the_recipe() -> None:
    found, recipe = healed.known(), yaml.safe_load(healed.RECIPE.read_text(encoding="utf-8"))
    assert found["recipe"] == healed.recipe_hash(), "python docs/tools/regenerate.py docs/figures/healed.svg"
    assert list(found["retained"]) == [label + end for label in recipe["scorers"] for end in ("", "+linear")]
    for line in found["retained"].values():
        assert list(line) == [str(count) for count in recipe["counts"]]
        assert all(len(values) == recipe["repeats"] for values in line.values())
    assert found["documents"] == recipe["limit"]


def test_the_pages_say_what_the_figure_shows() -> None:
    for page in ("README.md", "docs/index.md"):
        assert healed.caption(healed.known()) in " ".join((pages.ROOT / page).read_text(encoding="utf-8").split())


def test_the_figure_has_colours_of_its_own_and_on_the_site_those_of_the_site() -> None:
    (style,) = re.findall(r"<style>.*?</style>", SHOWN)
    used = set(re.findall(r"var\((--[\w-]+)\)", SHOWN))
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert used == set(re.findall(r"(--[\w-]+):", light))
    assert used - {"--sans"} == set(re.findall(r"(--[\w-]+):", dark))
    on_the_site = reference.expanded("<!-- generated: figure healed -->")
    assert "<style" not in on_the_site
    assert used == set(re.findall(r"var\((--[\w-]+)\)", on_the_site))


@pytest.mark.slow
def test_the_numbers_are_measured_again() -> None:
    """One draw, which is the first of five in the figure."""
    again = healed.measured("--repeats 1 --count 4 --scorer block-influence")["retained"]
    known = healed.known()["retained"]
    assert again.keys() == {"block-influence", "block-influence+linear"}
    for label, line in again.items():
        assert line["4"] == pytest.approx(known[label]["4"][:1], abs=2e-3)
