"""The figure and the table of what training brings back show the numbers that are kept."""

from __future__ import annotations

import statistics

import pages
import shrunk
import trained
from support.pictures import alike

SHOWN = (pages.ROOT / "docs" / "figures" / "training.svg").read_text(encoding="utf-8")

PAGE = " ".join((pages.ROOT / "docs" / "repair" / "healing.md").read_text(encoding="utf-8").split())


def test_the_figure_shows_the_numbers_that_are_kept() -> None:
    assert alike(SHOWN, trained.picture()), "python docs/tools/regenerate.py docs/figures/training.svg"
    shown = {line["model"] for line, _ in trained.trainings()}
    assert [name for name, _, _ in trained.curves()] == [
        title for name, title in trained.TITLES.items() if name in map(trained.name_of, shown)
    ]


def test_the_table_sets_the_default_beside_fixed_rates() -> None:
    _, rows = trained.table()
    for row, draws in zip(rows, trained.draws(), strict=True):
        line, fixed = draws[0]
        assert row[0].endswith(f", {len(draws)} draws") == (len(draws) > 1)
        assert row[1] == f"{line['minutes']:g}"
        shares = [_retained(each) for each, _ in draws]
        assert row[3].endswith(f"→ {statistics.mean(shares):.1%}")
        shown = [f"{_retained(fixed[rate]):.1%}" if rate in fixed else "" for rate in (3e-5, 3e-4)]
        assert row[4:6] == shown


def test_classifier_without_half_of_its_blocks_has_three_draws() -> None:
    (draws,) = (same for same in trained.draws() if same[0][0]["blocks"] == "0,1,5")
    assert len({line["setting"] for line, _ in draws}) == len(draws) == 3


def _retained(line: trained.Line) -> float:
    """Return the share of the likelihood after the training."""
    intact, trained_loss, nothing = line["intact"]["loss"], line["trained"]["loss"], line["chance"]["loss"]
    return float((nothing - trained_loss) / (nothing - intact))


def test_the_default_is_as_good_as_the_best_fixed_rate() -> None:
    """Less than half a point of likelihood is missing, and one of copying."""
    compared = [(line, fixed) for line, fixed in trained.trainings() if fixed]
    assert compared
    for line, fixed in compared:
        for share, points in ((trained.likelihood, 0.5), (trained.copying, 1)):
            reached = [share(each, "trained") for each in (line, *fixed.values())]
            missing = 100 * (max(reached) - reached[0])
            assert missing < points, (line["model"], line["minutes"], share.__name__)


def test_the_page_says_how_unequal_rates_compare() -> None:
    known = {(line["model"], line["minutes"], len(fixed)): (line, fixed) for line, fixed in trained.trainings()}
    _, fixed = known["gemma", 30, 3]
    assert f"for 30 minutes retains {100 * trained.likelihood(fixed[1e-4], 'trained'):.1f} % of the likelihood" in PAGE
    default, fixed = known["smollm2", 30, 2]
    *_, last = fixed[3e-4]["curve"]
    *_, end = default["curve"]
    assert f"had time for {last['steps']} steps where the default had {end['steps']}" in PAGE
    near = max(
        (check for check in default["curve"] if check["steps"] <= last["steps"]), key=lambda check: check["steps"]
    )
    assert f"after {near['steps']} the default was nearer" in PAGE
    assert all(near[part] < last[part] for part in ("divergence_now", "repeated_now"))
    default, fixed = known["starter", 30, 2]
    steps, own = (line["curve"][-1]["steps"] for line in (fixed[3e-5], default))
    assert f"3e-5 on the starter had {steps:,} steps for {own:,}" in PAGE


def test_gemma_learns_little_in_five_minutes() -> None:
    fewer, more = (both for both in trained.trainings() if (both[0]["model"], both[0]["minutes"]) == ("gemma", 5))
    assert set(more[1]) == set(trained.RATES)
    assert fewer[0]["numbers"]["steps"] == 8
    assert "Without 2, eight steps were kept." in PAGE
    for training in (more[0], *more[1].values()):
        start, *_, end = training["curve"]
        assert max(end[part] - start[part] for part in ("divergence_now", "repeated_now")) > 0
        assert training["trained"] == training["healed"]
    (by_shrink,) = (line for line in shrunk.rows() if (line["model"], line["by"]) == ("gemma-3-270m", "5 minutes"))
    assert [stage["kept"] for stage in by_shrink["report"]["stages"]] == [True, False]


def test_the_page_says_what_training_costs_beside_plain_steps() -> None:
    speeds: dict[bool, list[float]] = {False: [], True: []}
    for line, fixed in trained.trainings():
        speeds[line["model"] == "gemma"] += [each["speed"] for each in (line, *fixed.values())]
    usual = [speed for speed in speeds[False] if 0.94 <= round(speed, 2) <= 1.05]
    assert len(usual) > len(speeds[False]) / 2
    assert "most rows reach 0.94 to 1.05 of the tokens" in PAGE
    assert f"noise ({min(speeds[True]):.2f} to {max(speeds[True]):.2f} on Gemma" in PAGE


def test_the_page_says_how_many_answers_are_empty() -> None:
    for known in (trained.texts()[number] for number in (100, 300)):
        for variant, lines in known.items():
            for empty in (round(24 * line["empty"]) for line in lines):
                assert (4 <= empty <= 6) if variant == "linear" else empty <= 2
    assert "a fifth of the answers are empty" in PAGE
    assert "none, one or two" in PAGE


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
