"""The figures of the report: what is compared stands out from chance, whatever chance does."""

from __future__ import annotations

import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from layerimp.report.html.canvas import NARROW, WIDE, Sheet
from layerimp.report.html.cells import Square, matrix
from layerimp.report.html.plots import Lines, curves
from layerimp.report.html.svg import looks
from layerimp.report.statistics import Interval


def lines(chance: Interval) -> Lines:
    good = {2.0: Interval(0.9, 0.88, 0.92, 3), 4.0: Interval(0.8, 0.77, 0.83, 3)}
    return {
        "avss": good,
        "gbis": {at: Interval(one.mean - 0.05, one.mean - 0.1, one.mean, 3) for at, one in good.items()},
    } | {"random": {2.0: Interval(0.7, 0.6, 0.8, 5), 4.0: chance}}


def drawn(chance: Interval, sheet: Sheet = WIDE) -> Figure:
    made = lines(chance)
    return curves(made, 8, looks(list(made), ["random"]), sheet)


@pytest.mark.parametrize("sheet", [WIDE, NARROW], ids=["wide", "narrow"])
def test_how_far_chance_reaches_does_not_flatten_the_others(sheet: Sheet) -> None:
    known, wild = (drawn(Interval(0.6, *ends, 5), sheet).axes[0].get_ylim() for ends in ((0.59, 0.61), (-9.0, 9.0)))
    assert known == wild
    assert known[0] < 0.6 < 1.0 < known[1] < 1.2


def test_chance_is_pale_and_behind_all_others() -> None:
    axes = drawn(Interval(0.6, 0.2, 1.4, 5)).axes[0]
    bars = [one for one in axes.collections if isinstance(one, LineCollection)]
    (band,) = (one for one in axes.collections if one not in bars)
    assert len(bars) == 2
    alpha = band.get_alpha()
    assert isinstance(alpha, float)
    assert alpha <= 0.1
    curved = [one for one in axes.lines if len(one.get_xdata()) == 3 and one.get_clip_on()]  # type: ignore[arg-type]
    *others, random = curved
    assert len(others) == 2
    assert band.get_zorder() < random.get_zorder() < min(one.get_zorder() for one in [*others, *bars])
    assert random.get_linewidth() < min(one.get_linewidth() for one in others)


def test_intervals_stand_side_by_side() -> None:
    bars = [one for one in drawn(Interval(0.6, 0.5, 0.7, 5)).axes[0].collections if isinstance(one, LineCollection)]
    places = [one.get_segments()[0][0][0] for one in bars]
    assert len(set(places)) == len(places) == 2


def test_every_column_of_a_wide_matrix_fits_a_phone() -> None:
    names = [str(n) for n in range(120)]
    figure = matrix({"avss": [Square(n / 120) for n in range(120)]}, names, size=(52, 28), strength=1, sheet=NARROW)
    assert figure.get_size_inches()[0] * 72 <= NARROW.width
    written = [text.get_text() for text in figure.axes[0].texts]
    assert "0" in written
    assert len(written) < 20
