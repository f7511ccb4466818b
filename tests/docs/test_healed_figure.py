"""The figure of the README shows the numbers that are kept for the page "Which metric"."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import healed
import pages
import pytest
import reference
import which_metric
from support.pictures import alike

import layerimp

SHOWN = (pages.ROOT / "docs" / "figures" / "healed.svg").read_text(encoding="utf-8")


def test_the_figure_shows_the_numbers_that_are_kept() -> None:
    found = healed.known()
    assert alike(SHOWN, healed.picture(found)), "python docs/tools/regenerate.py docs/figures/healed.svg"
    stale = copy.deepcopy(found)
    stale["retained"]["avss+linear"]["6"] = [value - 0.03 for value in stale["retained"]["avss+linear"]["6"]]
    assert not alike(SHOWN, healed.picture(stale))


def test_the_figure_shows_every_amount_and_draw_of_the_grid() -> None:
    found = healed.known()["retained"]
    assert list(found) == [label + end for end in ("", "+linear") for label in healed.SCORERS]
    for line in found.values():
        assert list(line) == ["1", "2", "3", "4", "6"]
        assert all(len(values) == 5 for values in line.values())


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
def test_the_numbers_are_measured_again(tmp_path: Path) -> None:
    """One draw, which is the first of five in the figure."""
    one = {"scorers": ["block-influence"], "baselines": {}, "repeats": 1, "counts": [4], "ratios": []}
    grid = layerimp.Grid.model_validate(which_metric.parts("starter", {})["healed"] | one)
    (row,) = which_metric.told(layerimp.run_grid(grid, tmp_path, workers=0))["rows"]
    for label in ("block-influence", "block-influence+linear"):
        known = healed.known()["retained"][label]["4"]
        assert row["entries"][label]["likelihood"] == pytest.approx(known[:1], abs=2e-3)
