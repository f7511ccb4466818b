"""The figure and the table of what training brings back show the numbers that are kept."""

from __future__ import annotations

import pages
import trained
from support.pictures import alike

SHOWN = (pages.ROOT / "docs" / "figures" / "training.svg").read_text(encoding="utf-8")


def test_the_figure_shows_the_numbers_that_are_kept() -> None:
    assert alike(SHOWN, trained.picture()), "python docs/tools/regenerate.py docs/figures/training.svg"
    shown = {line["model"] for line, _ in trained.trainings()}
    assert [name for name, _, _ in trained.curves()] == [
        title for name, title in trained.TITLES.items() if name in map(trained.name_of, shown)
    ]


def test_the_table_sets_the_default_beside_fixed_rates() -> None:
    _, rows = trained.table()
    for row, (line, fixed) in zip(rows, trained.trainings(), strict=True):
        intact, trained_loss, nothing = line["intact"]["loss"], line["trained"]["loss"], line["chance"]["loss"]
        assert row[1] == f"{line['minutes']:g}"
        assert row[3].endswith(f"→ {(nothing - trained_loss) / (nothing - intact):.1%}")
        shown = [f"{trained.likelihood(fixed[rate], 'trained'):.1%}" if rate in fixed else "" for rate in (3e-5, 3e-4)]
        assert row[4:6] == shown


def test_the_default_is_as_good_as_the_best_fixed_rate() -> None:
    """Within one point of likelihood, and five of copying."""
    compared = [(line, fixed) for line, fixed in trained.trainings() if fixed]
    assert compared
    for line, fixed in compared:
        for share, points in ((trained.likelihood, 1), (trained.copying, 5)):
            reached = [share(each, "trained") for each in (line, *fixed.values())]
            assert 100 * (max(reached) - reached[0]) <= points, (line["model"], line["minutes"], share.__name__)
