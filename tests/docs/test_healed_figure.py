"""The figure and the table of what is retained unhealed and healed show the numbers that are kept."""

from __future__ import annotations

import copy
import re
import statistics
from pathlib import Path

import healed
import metrics_compared
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


def test_the_table_shows_the_middle_and_the_best_of_all_methods() -> None:
    head, rows = healed.table()
    row = next(dict(zip(head, row, strict=True)) for row in rows if row[0] == "The starter" and row[1] == "3 of 12")
    parts = metrics_compared.results("starter")
    ends: list[list[float]] = [[], []]
    for part in ("unhealed", "window", "greedy", "seams"):
        for scorer in parts[part]["cost"]:
            if scorer not in ("random", "depth"):
                for end, label in zip(ends, (scorer, f"{scorer}+linear"), strict=True):
                    healed_part = "healed" if part == "unhealed" and "+" in label else part
                    (found,) = (one for one in parts[healed_part]["rows"] if one["removed"] == 3)
                    end.append(statistics.fmean(found["entries"][label]["values"]))
    assert row["methods"] == str(len(ends[0]))
    for name, figure in (("median", statistics.median), ("best", max)):
        shown = " → ".join(f"{100 * figure(end):.1f}" for end in ends)
        assert row[f"{name}, unhealed → healed"] == shown


def gains(model: str) -> list[float]:
    """What `linear` brings back at the largest amount, by choosing method of whole blocks."""
    parts = metrics_compared.results(model)
    known = [one for one in metrics_compared.methods(parts) if one.scorer not in ("random", "depth")]
    last = max(metrics_compared.amounts(parts))
    pairs = [(one.retained(last), one.retained(last, "linear")) for one in known]
    return [after - before for before, after in pairs if before is not None and after is not None]


def test_the_gap_decides_more_than_the_size() -> None:
    every = {model: gains(model) for model in metrics_compared.TITLES}
    medians = [statistics.median(each) for each in every.values()]
    for each in every.values():
        assert min(each) < 0.01
        assert max(each) > 0.2
        assert max(each) - min(each) > max(medians) - min(medians)
    named = {row[0] + row[1]: row[3] for row in healed.table()[1]}
    grown = {}
    for name in ("MiniLM on SST-22 of 6", "SmolLM2-135M7 of 30"):
        before, after = map(float, named[name].split(" → "))
        grown[name[0]] = after - before
    assert grown["M"] > grown["S"]


def test_answers_come_back_on_gemma_and_hardly_on_the_starter() -> None:
    def grown(model: str, task: str) -> float:
        head, rows = metrics_compared.tasks(model)
        cells = [row[head.index(f"`{task}`")].split(" → ") for row in rows]
        return statistics.median(float(cell[1]) - float(cell[0]) for cell in cells)

    assert grown("starter", "starter_stories") > 10
    assert max(grown("starter", task) for task in ("starter_sentiment", "starter_qa")) < 3
    assert grown("gemma-3-270m", "knowledge") > 5


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
