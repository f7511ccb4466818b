"""The figure and the table of what training brings back show the numbers that are kept."""

from __future__ import annotations

import pages
import shrunk
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
    """Less than half a point of likelihood is missing, and one of copying."""
    compared = [(line, fixed) for line, fixed in trained.trainings() if fixed]
    assert compared
    for line, fixed in compared:
        for share, points in ((trained.likelihood, 0.5), (trained.copying, 1)):
            reached = [share(each, "trained") for each in (line, *fixed.values())]
            missing = 100 * (max(reached) - reached[0])
            assert missing < points, (line["model"], line["minutes"], share.__name__)


def test_gemma_learns_nothing_in_five_minutes() -> None:
    fewer, more = (both for both in trained.trainings() if (both[0]["model"], both[0]["minutes"]) == ("gemma", 5))
    assert set(more[1]) == set(trained.RATES)
    for training in (fewer[0], more[0], *more[1].values()):
        start, *_, end = training["curve"]
        assert max(end[part] - start[part] for part in ("divergence_now", "repeated_now")) > 0
        assert training["trained"] == training["healed"]
    (by_shrink,) = (line for line in shrunk.rows() if (line["model"], line["by"]) == ("gemma-3-270m", "5 minutes"))
    assert [stage["kept"] for stage in by_shrink["report"]["stages"]] == [True, False]


def test_no_text_is_clearly_better_than_the_default() -> None:
    few, many = (trained.texts()[number] for number in (100, 300))
    for default, plain in zip(few["mixed"], few["plain"], strict=True):
        assert abs(plain["divergence"] - default["divergence"]) < 0.005
        assert default["copying"] > plain["copying"]
    for known in (few, many):
        for default, longer in zip(known["mixed"], known["longer"], strict=True):
            assert longer["divergence"] > default["divergence"]
            assert longer["copying"] < default["copying"]
    pairs = zip(many["longer"], many["mixed"], strict=True)
    assert [round(100 * (longer["retained"] - default["retained"])) for longer, default in pairs] == [4, 4, -4]
    default = few["mixed"][0]
    for (written,) in (few["own"], few["chat"]):
        assert written["tokens"] < default["tokens"]
        assert written["divergence"] > default["divergence"]
        assert max(written[name] - default[name] for name in ("agreement", "copying", "retained")) < 0
    _, rows = trained.text_table()
    assert rows[1][3] == "; ".join(f"{line['divergence']:.3f}" for line in few["mixed"])
    assert len(rows) == len(few) + len(many)
