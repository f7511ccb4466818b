"""What a grid shows, against arithmetic by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.grids import BLOCKS, DOCUMENTS, RATIO, computed, findings, harming, row

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Result
from layerimp.bench.results import grid_results
from layerimp.bench.store import Store
from layerimp.evaluation.packing import packed, unpacked
from layerimp.report.document import Results
from layerimp.report.statistics import interval
from layerimp.report.tables import as_markdown, quality
from layerimp.report.tables.data_frame import frame

REMOVED = BLOCKS // 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a grid, for all tests that only read it."""
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def results(place: Path) -> Results:
    return findings(place, repeats=3)


@pytest.fixture(scope="module")
def layout(results: Results, place: Path) -> Layout:
    """The grid that `results` is of."""
    with Store(place, write=False) as store:
        return Layout.model_validate(store.layout())


def test_every_number_of_a_row_by_hand(results: Results, layout: Layout) -> None:
    mood = row(results, "mood")
    values: dict[str, list[float]] = {}
    for scorer in layout.scorers:
        for draw in layout.draws(scorer):
            scores = computed(layout.scoring("one", scorer, draw))["scores"]
            weakest = sorted(range(BLOCKS), key=lambda block: (scores[block], -block))[:REMOVED]
            values.setdefault(scorer, []).append(0.9 - sum(block + 1 for block in weakest) / 100)
    assert mood.entries.keys() == values.keys()
    for scorer, entry in mood.entries.items():
        assert list(entry.values) == pytest.approx(values[scorer])
    avss = mood.entries["avss"]
    assert avss.value.mean == pytest.approx(sum(values["avss"]) / 3)
    assert avss.retained
    assert avss.retained.mean == pytest.approx(sum((value - 0.5) / 0.4 for value in values["avss"]) / 3)
    # A document is correct in all, some or none of a scorer's repeats: the spread of this, and of the difference.
    right = {s: np.array([np.arange(DOCUMENTS) < round(100 * v) for v in values[s]]).mean(axis=0) for s in values}
    assert avss.ends
    spread = right["avss"].std(ddof=1) / math.sqrt(DOCUMENTS)
    assert (avss.ends[1] - avss.ends[0]) / 2 == pytest.approx(spread, rel=0.05)
    welch = stats.ttest_ind(values["avss"], values["random"], equal_var=False).confidence_interval(0.95)
    paired = (right["avss"] - right["random"]).std(ddof=1) / math.sqrt(DOCUMENTS)
    half = math.hypot((welch.high - welch.low) / 2, stats.t.ppf(0.975, DOCUMENTS - 1) * paired)
    assert avss.to_random
    assert avss.to_random.high is not None
    assert avss.to_random.high - avss.to_random.mean == pytest.approx(half, rel=0.02)
    assert mood.baselines[""] == max(
        ("random", "depth", "block-influence"), key=lambda name: sum(values[name]) / len(values[name])
    )
    assert mood.removed_blocks == REMOVED / BLOCKS
    assert mood.removed_parameters == pytest.approx((10 * REMOVED / 180,) * 2)


def test_what_is_retained_has_no_unit_and_no_chance(results: Results) -> None:
    worst, likelihood, accuracy = [line for line in results.models["one"].rows if line.task == "retained"]
    assert [line.metric for line in (worst, likelihood, accuracy)] == ["worst", "likelihood", "accuracy"]
    assert results.models["one"].headlines == [worst]
    mood, prose = row(results, "mood"), row(results, "prose")
    for scorer in worst.entries:
        informed = [(math.log(100) - math.log(value)) / math.log(10) for value in prose.entries[scorer].values]
        right = [max(0.0, (value - 0.5) / 0.4) for value in mood.entries[scorer].values]
        assert list(likelihood.entries[scorer].values) == pytest.approx(informed)
        assert list(accuracy.entries[scorer].values) == pytest.approx(right)
        lower = min(informed, right, key=sum)
        assert list(worst.entries[scorer].values) == pytest.approx(lower)
    retained = {each.label: each.retained for each in results.models["one"].removals if each.retained}
    for scorer, shares in retained.items():
        assert shares.worst
        assert shares.likelihood
        assert shares.worst.mean == worst.entries[scorer].value.mean
        assert shares.likelihood.mean == likelihood.entries[scorer].value.mean
        assert worst.entries[scorer].ends == pytest.approx(
            (shares.worst.mean - (shares.worst.stderr or 0), shares.worst.mean + (shares.worst.stderr or 0))
        )
    kept = mood.entries["avss"].retained
    assert kept
    share = retained["avss"].tasks["mood"]
    assert share
    assert share.mean == pytest.approx(kept.mean)


def test_perplexities_are_averaged_and_compared_as_losses(results: Results) -> None:
    prose = row(results, "prose")
    entry, random = prose.entries["avss"], prose.entries["random"]
    losses = [math.log(value) for value in entry.values]
    assert entry.value.mean == pytest.approx(math.exp(sum(losses) / len(losses)))
    assert entry.value.high
    assert entry.value.low
    assert entry.value.high / entry.value.mean == pytest.approx(entry.value.mean / entry.value.low)
    assert entry.to_random
    assert prose.factors
    assert math.exp(entry.to_random.mean) == pytest.approx(entry.value.mean / random.value.mean)


def test_metrics_without_documents_are_compared_as_if_on_different_ones(tmp_path: Path) -> None:
    def without_documents(cell: Cell) -> Result:
        result = computed(cell)
        if cell.kind != "evaluation":
            return result
        metrics = [replace(metric, documents=None, likelihood=None, floor=None) for metric in unpacked(result)]
        return {**result, **packed(metrics)}

    results = findings(tmp_path, without_documents, repeats=3)
    assert [line.metric for line in results.models["one"].rows] == ["acc", "perplexity", "accuracy"]
    assert any("so compared as if on different ones" in note for note in results.all_notes)
    assert as_markdown(results).count("| prose ") == 1
    retained = results.models["one"].removed["lowest", RATIO, "avss"].retained
    assert retained
    assert retained.tasks["prose"] is None


def best(results: Results) -> list[str]:
    return row(results, "mood", 1).best


def test_only_a_significant_winner_is_marked(tmp_path: Path) -> None:
    clear = harming({"avss": 0.1, "gbis": 0.2, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    assert best(findings(tmp_path / "1", clear, counts=[1], tasks=["mood"])) == ["avss"]
    # The two best are within the errors of the documents: both are marked, and there is no winner.
    close = harming({"avss": 0.1, "gbis": 0.1001, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    assert best(findings(tmp_path / "2", close, counts=[1], tasks=["mood"])) == ["avss", "gbis"]


def test_scorers_that_remove_the_same_share_a_place(tmp_path: Path) -> None:
    clear = harming({"avss": 0.1, "gbis": 0.2, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    scorers = {"avss": None, "twin": {"name": "avss"}, "gbis": None}
    assert best(findings(tmp_path, clear, counts=[1], tasks=["mood"], scorers=scorers)) == ["avss", "twin"]


def test_a_broken_model_has_an_infinite_perplexity_and_no_interval(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        result = computed(cell)
        if cell.kind == "evaluation" and cell.content["task"] == "prose" and len(cell.content["blocks"]) > 2:
            result |= packed([replace(each, value=math.inf, likelihood=None) for each in unpacked(result)])
        return result

    results = findings(tmp_path, broken, repeats=2, counts=[1], ratios=[0.5])
    entry = row(results, "prose", 0.5).entries["avss"]
    assert (entry.value.mean, entry.value.high, entry.best) == (math.inf, None, False)
    assert "∞" in as_markdown(results)
    document = json.dumps(results.model_dump(mode="json"), allow_nan=False)
    again = Results.model_validate_json(document)
    assert as_markdown(again) == as_markdown(results), "infinite when it is read back too"
    assert again.model_dump_json() == results.model_dump_json()


def test_what_is_not_known_yet_is_left_out(tmp_path: Path) -> None:
    def stopped(cell: Cell) -> Result:
        if cell.kind == "evaluation" and cell.content["blocks"]:
            raise KeyboardInterrupt
        return computed(cell)

    with pytest.raises(KeyboardInterrupt):
        findings(tmp_path, stopped)
    with Store(tmp_path, write=False) as store:
        results = grid_results(Layout.model_validate(store.layout()), store.records())
    assert results.models["one"].rows == []
    assert results.cells["open"] > 0
    (table,) = quality(results)
    assert table.heads == ["data set", "metric", "one"]
    assert set(frame(results)["scorer"]) - set(results.design.scorers) == {"original"}
    assert set(frame(results).query("kind == 'quality'")["scorer"]) == {"original"}


def test_stability_and_agreement(results: Results, layout: Layout) -> None:
    model = results.models["one"]
    stability = model.removed["lowest", RATIO, "random"].stability
    assert stability
    assert stability.same < 1
    assert model.removed["lowest", RATIO, "depth"].stability is None
    scores = [computed(layout.scoring("one", "avss", draw))["scores"] for draw in range(3)]
    others = [computed(layout.scoring("one", "gbis", draw))["scores"] for draw in range(3)]
    taus = [stats.kendalltau(avss, gbis).statistic for avss in scores for gbis in others]
    assert model.agreement["avss", "gbis"] == pytest.approx(sum(taus) / len(taus))
    assert model.scored["avss"].cost == 1.5
    assert model.scored["depth"].cost == 0
    assert list(model.scored["avss"].means) == [interval(values) for values in zip(*scores, strict=True)]


def test_a_cell_is_named_by_what_is_gone(layout: Layout) -> None:
    measure = layout.models["one"].measures[0]
    keys = {layout.evaluation("one", blocks, measure).key for blocks in ((3, 1), (1, 3))}
    assert len(keys) == 1
    assert layout.evaluation("one", (3, 1), measure).content["blocks"] == [1, 3]  # as it always was


def test_repeats_that_read_the_same_text_are_said(tmp_path: Path) -> None:
    def little(cell: Cell) -> Result:
        result = dict(computed(cell))
        if cell.kind == "scoring" and cell.content["calibration"]:
            result["calibration"] = {"fingerprint": str(cell.seed % 2)}
        return result

    note = findings(tmp_path / "little", little, repeats=3).notes[0]
    assert "3 draws of calibration text gave 2 different ones" in note
    assert findings(tmp_path / "enough", little, repeats=2).notes == []


def test_flips_of_repeats_have_an_interval_and_an_error_over_the_documents(tmp_path: Path) -> None:
    def answered(cell: Cell) -> Result:
        result = computed(cell)
        if cell.kind != "evaluation" or cell.content["task"] != "mood":
            return result
        metrics = [replace(metric, answers=tuple(map(int, metric.documents or ()))) for metric in unpacked(result)]
        return result | packed(metrics)

    results = findings(tmp_path, answered, repeats=3)
    values = row(results, "mood").entries["avss"].values
    assert len(set(values)) > 1
    known = frame(results).query("kind == 'fidelity' and task == 'mood' and scorer == 'avss'").set_index("metric")
    share, to_wrong, to_right = known.loc["flips"], known.loc["right to wrong"], known.loc["wrong to right"]
    shares = [0.9 - value for value in values]  # of two answers one is right, and no model is right more often
    assert (share["mean"], share["n"], share["documents"]) == (pytest.approx(sum(shares) / 3), 3, DOCUMENTS)
    over_repeats = interval(shares)
    assert (share["low"], share["high"]) == pytest.approx((over_repeats.low, over_repeats.high))
    each = np.array([np.arange(DOCUMENTS) < round(100 * value) for value in (0.9, *values)])
    over_documents = (each[1:] != each[0]).mean(axis=0).std(ddof=1) / math.sqrt(DOCUMENTS)
    assert (share["error_high"] - share["error_low"]) / 2 == pytest.approx(over_documents)
    assert to_wrong["mean"] == pytest.approx(share["mean"] * DOCUMENTS)
    assert to_right["mean"] == 0
