"""The figure and the table of what is left unhealed and healed show what is stored."""

from __future__ import annotations

import re
from pathlib import Path

import healed
import pages
import pytest
import reference
from support.choice_lines import keep, line, state
from support.pictures import alike

SHOWN = (pages.ROOT / "docs" / "figures" / "healed.svg").read_text(encoding="utf-8")


def test_the_figure_is_current() -> None:
    assert alike(SHOWN, healed.picture()), "python docs/tools/regenerate.py docs/figures/healed.svg"


def test_the_figure_shows_each_state_of_each_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line("avss", unhealed=state(2.0), healed=state(0.5)), line("depth", healed=state(0.25))]
    keep(lines, tmp_path, monkeypatch)
    first = healed.picture()
    assert "trained" not in first
    assert all(f">{word}<" in first for word in ("avss", "depth", "unhealed", "healed", "The starter, 3 of 12"))
    keep([lines[0] | {"healed": state(0.6)}, lines[1]], tmp_path, monkeypatch)
    assert not alike(first, healed.picture())
    keep([lines[0] | {"trained": state(0.3)}, lines[1]], tmp_path, monkeypatch)
    assert ">trained<" in healed.picture()


def test_the_table_shows_the_middle_and_the_best_of_all_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {"divergence, greedy": (0.5, 0.9), "avss": (0.6, 0.7), "lrp": (0.8, 0.6), "random": (1.0, 1.0)}
    lines = [line(name, unhealed=state(1.0, a), healed=state(1.0, b)) for name, (a, b) in ends.items()]
    lines += [line(name, model="gemma", count=4, unhealed=state(3.0), healed=state(b)) for name, (_, b) in ends.items()]
    keep(lines, tmp_path, monkeypatch)
    assert healed.table()[1] == [
        ["The starter, 3 of 12", "retained", "3", "60.0 → 70.0", "80.0 → 90.0"],
        ["Gemma 3 270M, 4 of 18", "divergence", "3", "3.00 → 0.70", "3.00 → 0.60"],
    ]


def test_the_figure_has_colours_of_its_own_and_on_the_site_those_of_the_site() -> None:
    (style,) = re.findall(r"<style>.*?</style>", SHOWN)
    used = set(re.findall(r"var\((--[\w-]+)\)", SHOWN))
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert used <= set(re.findall(r"(--[\w-]+):", light))
    assert used - {"--sans"} <= set(re.findall(r"(--[\w-]+):", dark))
    on_the_site = reference.expanded("<!-- generated: figure healed -->")
    assert "<style" not in on_the_site
    assert used == set(re.findall(r"var\((--[\w-]+)\)", on_the_site))
