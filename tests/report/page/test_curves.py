"""The curves of the page: what is compared stands out from chance, and nothing is joined that may be no trend."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from layerimp.report.page.curves import Lines, curves, drawn, looks, sample
from layerimp.report.statistics import Interval


def span(mean: float, low: float | None, high: float | None) -> Interval:
    return Interval(mean=mean, low=low, high=high, count=3)


def lines(chance: Interval) -> Lines:
    good = {2: span(0.9, 0.88, 0.92), 4: span(0.8, 0.77, 0.83)}
    return {
        "avss": good,
        "gbis": {at: span(each.mean - 0.05, each.mean - 0.1, each.mean) for at, each in good.items()},
    } | {"random": {2: span(0.7, 0.6, 0.8), 4: chance}}


def figure_of(chance: Interval) -> Figure:
    values = lines(chance)
    return curves(values, looks(list(values), ["random"]))


def test_how_far_chance_reaches_does_not_flatten_the_others() -> None:
    known, wild = (figure_of(span(0.6, ends[0], ends[1])).axes[0].get_ylim() for ends in ((0.59, 0.61), (-9.0, 9.0)))
    assert known == wild
    assert known[0] < 0.6 < 1.0 < known[1] < 1.2


def test_chance_is_pale_and_behind_all_others() -> None:
    axes = figure_of(span(0.6, 0.2, 1.4)).axes[0]
    bars = [each for each in axes.collections if isinstance(each, LineCollection)]
    (band,) = (each for each in axes.collections if each not in bars)
    assert len(bars) == 2
    alpha = band.get_alpha()
    assert isinstance(alpha, float)
    assert alpha <= 0.1
    curved = [each for each in axes.lines if len(each.get_xdata()) == 3 and each.get_clip_on()]  # type: ignore[arg-type]
    *others, random = curved
    assert len(others) == 2
    assert band.get_zorder() < random.get_zorder() < min(each.get_zorder() for each in [*others, *bars])
    assert random.get_linewidth() < min(each.get_linewidth() for each in others)


def test_intervals_stand_side_by_side() -> None:
    collections = figure_of(span(0.6, 0.5, 0.7)).axes[0].collections
    bars = [each for each in collections if isinstance(each, LineCollection)]
    places = [each.get_segments()[0][0][0] for each in bars]
    assert len(set(places)) == len(places) == 2


def test_points_without_errors_are_not_joined() -> None:
    line = {
        1: span(0.9, 0.8, 1.0),
        2: span(0.8, None, None),
        3: span(0.7, 0.6, 0.8),
    }
    axes = curves({"avss": line}, looks(["avss"], ())).axes[0]
    joined, points = [each for each in axes.lines if each.get_color() == looks(["avss"], ())["avss"].colour]
    assert [math.isnan(y) for y in np.asarray(joined.get_ydata(), dtype=float)] == [False, False, True, False]
    assert list(np.asarray(points.get_ydata(), dtype=float)) == [0.9, 0.8, 0.7]


def test_numbers_on_a_scale_have_room() -> None:
    line = {count: span(1 - count / 100, 0.0, 1.0) for count in range(1, 61)}
    figure = curves({"avss": line}, looks(["avss"], ()))
    ticks = figure.axes[0].get_xticks()
    assert len(ticks) <= 13
    assert min(np.diff(ticks)) >= 5


def test_a_sample_looks_like_its_line() -> None:
    styles = looks(["avss", "gbis"], ())
    line = {1: span(0.9, 0.8, 1.0), 2: span(0.8, 0.7, 0.9)}
    picture = str(drawn(curves({"gbis": line}, styles), "name", "alt"))
    piece = str(sample(styles["gbis"], "key"))
    assert 'aria-hidden="true"' in piece
    assert styles["gbis"].hue in piece
    assert styles["gbis"].hue in picture
