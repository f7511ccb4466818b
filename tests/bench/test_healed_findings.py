"""The findings of a grid with healers, against arithmetic by hand: each healed model is compared with its rivals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.grids import BLOCKS, DOCUMENTS, HEALED, Arithmetic, computed, drive, harm_of
from support.published import checked

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Result
from layerimp.bench.results import grid_results
from layerimp.bench.store import Store
from layerimp.report.document import Results
from layerimp.report.results.contenders import Contender
from layerimp.report.results.rows import Row
from layerimp.report.tables import as_latex, as_markdown, quality, summaries


def findings(directory: Path, what: Callable[[Cell], Result] = computed, **changes: Any) -> tuple[Results, Layout]:
    made_layout, _ = drive(directory, Arithmetic(what=what), **HEALED | changes)
    with Store(directory, write=False) as store:
        return grid_results(made_layout, store.records()), made_layout


def row(results: Results, task: str = "mood") -> Row:
    (task_row,) = [each for each in results.models["one"].rows if each.task == task]
    return task_row


def test_a_task_that_fails_leaves_the_others_of_its_model(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        if cell.healer and cell.content["task"] == "prose" and cell.seed == 1:
            raise MemoryError
        return computed(cell)

    results, _ = findings(tmp_path, broken, repeats=2)
    assert {failure.what.partition(" on ")[0] for failure in results.failures} == {"evaluate prose"}
    assert row(results).entries.keys() > row(results, "prose").entries.keys()


@pytest.mark.parametrize(("rows", "few"), [(32, ""), (5, "5 rows"), (0, "rows of the calibration text")])
def test_too_few_rows_to_judge_by_are_told_once_for_each_model(rows: int, few: str, tmp_path: Path) -> None:
    def judged_by(cell: Cell) -> Result:
        result = computed(cell)
        return result | {"healing": result["healing"] | {"judging_rows": rows}} if "healing" in result else result

    results, _ = findings(tmp_path, judged_by)
    told = [note for note in results.notes if "what healing keeps" in note]
    line = f"one: what healing keeps is decided by {few}, not by 32 of other documents: prose has too few"
    assert told == ([line] if few else [])


def test_healed_rows_by_hand(tmp_path: Path) -> None:
    results, made_layout = findings(tmp_path, repeats=3)
    removed, entries = results.models["one"].removed, row(results).entries
    assert list(entries) == [
        label
        for scorer in ("avss", "gbis", "random", "depth", "block-influence")
        for label in (scorer, f"{scorer}+linear")
    ]
    values: dict[str, list[float]] = {}
    for label, contender in made_layout.contenders.items():
        sets = [model.blocks for model in removed["lowest", 2, contender.scorer].models]
        for draw, text in made_layout.repeats(contender):
            healing = {"calibration": {"seed": text}} if contender.healer else None
            values.setdefault(label, []).append(0.9 - harm_of(sets[draw], healing) / 100)
        assert list(entries[label].values) == pytest.approx(values[label])
    assert len(values["depth"]) == 1
    assert len(values["depth+linear"]) == 3
    assert entries["depth+linear"].value.low is not None
    pruned, healed = (removed["lowest", 2, label].models for label in ("avss", "avss+linear"))
    assert [model.blocks for model in healed] == [model.blocks for model in pruned]
    assert [model.healing and model.healing.recovered for model in healed] == [0.5] * 3
    assert all(model.healing is None for model in pruned)
    retained = removed["lowest", 2, "avss+linear"].retained
    assert retained
    kept = retained.tasks["mood"]
    assert kept
    assert kept.mean == pytest.approx(np.mean([(value - 0.5) / 0.4 for value in values["avss+linear"]]))


def test_a_healer_that_could_not_do_what_was_asked_is_told(tmp_path: Path) -> None:
    def vain(cell: Cell) -> Result:
        result = computed(cell)
        for gap in result["healing"]["gaps"] if cell.healer and cell.seed == 1 else ():
            gap |= {"done": "nothing", "why": "nothing is before it"}
        return result

    assert not findings(tmp_path / "well", repeats=2)[0].all_notes
    results, _ = findings(tmp_path / "vain", vain, repeats=2)
    removals = [each for each in results.models["one"].removals if each.healer]
    healed = {(model.draw, frozenset(model.blocks)) for each in removals for model in each.models}
    first = next(model for model in results.models["one"].removed["lowest", 2, "avss+linear"].models if model.draw == 1)
    assert results.all_notes == [
        "linear did something other than requested, or nothing, at every gap of "
        f"{sum(draw == 1 for draw, _ in healed)} of {len(healed)} models, such as without "
        f"blocks {min(first.blocks)}, {max(first.blocks)}: nothing is before it"
    ]


def test_what_is_healed_is_compared_with_what_is_healed(tmp_path: Path) -> None:
    results, _ = findings(tmp_path, repeats=5)
    mood = row(results)
    for healer in ("", "linear"):
        baselines = [Contender(scorer, healer).label for scorer in ("random", "depth", "block-influence")]
        assert mood.baselines[healer] == max(baselines, key=lambda label: mood.entries[label].value.mean)
    ours, theirs = mood.entries["avss+linear"], mood.entries["random+linear"]
    assert ours.to_random
    assert ours.to_random.mean == pytest.approx(ours.value.mean - theirs.value.mean)
    assert theirs.to_random is None
    assert mood.entries["random"].to_random is None
    assert mood.entries["avss"].to_random
    assert mood.entries["avss"].to_random.mean == pytest.approx(
        mood.entries["avss"].value.mean - mood.entries["random"].value.mean
    )
    best = mood.entries[mood.baselines["linear"]]
    assert best.to_baseline is None
    assert ours.to_baseline
    assert ours.to_baseline.mean == pytest.approx(ours.value.mean - best.value.mean)


def test_healed_blind_scorers_are_compared_repeat_by_repeat(tmp_path: Path) -> None:
    """Both were healed on the same text, so its common effect is no error of their difference."""
    results, _ = findings(tmp_path, repeats=5, baselines=["depth"], tasks=["mood"])
    mood = row(results)
    ours, theirs = (np.array(mood.entries[label].values) for label in ("avss+linear", "depth+linear"))
    right = [
        np.array([np.arange(DOCUMENTS) < round(100 * v) for v in values]).mean(axis=0) for values in (ours, theirs)
    ]
    paired = (right[0] - right[1]).std(ddof=1) / math.sqrt(DOCUMENTS) * stats.t.ppf(0.975, DOCUMENTS - 1)
    text = stats.sem(ours - theirs) * stats.t.ppf(0.975, 4)
    assert mood.entries["avss+linear"].to_baseline
    low, high = mood.entries["avss+linear"].to_baseline.low, mood.entries["avss+linear"].to_baseline.high
    assert low is not None
    assert high is not None
    assert (high - low) / 2 == pytest.approx(math.hypot(paired, text), rel=0.03)


def test_what_healing_brings_is_compared_with_the_same_models_unhealed(tmp_path: Path) -> None:
    results, _ = findings(tmp_path, repeats=5, tasks=["mood"])
    entries = row(results).entries
    for scorer in ("avss", "random"):  # both remove the same blocks, healed or not, repeat by repeat
        ours, theirs = (np.array(entries[label].values) for label in (f"{scorer}+linear", scorer))
        right = [
            np.array([np.arange(DOCUMENTS) < round(100 * v) for v in each]).mean(axis=0) for each in (ours, theirs)
        ]
        documents = (right[0] - right[1]).std(ddof=1) / math.sqrt(DOCUMENTS) * stats.t.ppf(0.975, DOCUMENTS - 1)
        gain = entries[f"{scorer}+linear"].to_unhealed
        assert gain
        assert gain.mean == pytest.approx((ours - theirs).mean())
        assert gain.high is not None
        half = math.hypot(documents, stats.sem(ours - theirs) * stats.t.ppf(0.975, 4))
        assert gain.high - gain.mean == pytest.approx(half, rel=0.03)
        assert entries[scorer].to_unhealed is None
    gain = entries["depth+linear"].to_unhealed  # one model against five
    assert gain
    assert gain.mean == pytest.approx(np.mean(entries["depth+linear"].values) - entries["depth"].values[0])


def test_one_set_healed_on_several_texts_is_several_models(tmp_path: Path) -> None:
    """By no scorer's choice do two of these differ, and yet their repeats do."""

    def constant(cell: Cell) -> Result:
        result = dict(computed(cell))
        if cell.kind == "scoring":
            result["scores"] = [float(BLOCKS - block) for block in range(BLOCKS)]
        return result

    results, _ = findings(tmp_path, constant, repeats=3, baselines=["random"])
    entries = row(results).entries
    assert entries["avss"].to_random == entries["gbis"].to_random
    assert entries["avss"].to_random
    assert entries["avss"].to_random.p == 1.0
    assert len(set(entries["avss+linear"].values)) == 3
    assert entries["avss+linear"].to_random
    # Five texts against three: not the same, and not told apart.
    assert entries["avss+linear"].to_random.low != entries["avss+linear"].to_random.high


def test_a_healer_that_fails_takes_nothing_else_down(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        if cell.healer == "linear":
            raise ValueError("healer 'linear' fell ill")
        return computed(cell)

    results, _ = findings(tmp_path, broken, repeats=2, healers=["linear", "rescale"])
    well, _ = findings(tmp_path / "well", repeats=2, healers=["rescale"])
    assert as_markdown(results).replace("+rescale", "") == as_markdown(well).replace("+rescale", "")
    assert {failure.error for failure in results.failures} == {"healer 'linear' fell ill"}
    assert all("healed by linear" in failure.what for failure in results.failures)
    (removal,) = [each for each in results.models["one"].removals if each.healer == "linear" and each.scorer == "avss"]
    assert [model.healing for model in removal.models] == [None, None]


def test_every_format_has_both(tmp_path: Path) -> None:
    results, _ = findings(tmp_path, repeats=2, healers=["linear", "rescale"])
    (table,) = quality(results)
    assert table.heads[3:7] == ["avss", "avss+linear", "avss+rescale", "gbis"]
    (summary,) = summaries(results)
    assert {line[0].value for line in summary.rows} == set(results.design.contenders)
    frame = results.to_pandas().query(
        "kind == 'quality' and scorer == 'avss' and healer == 'linear' and task == 'mood'"
    )
    assert frame["mean"].tolist() == [row(results).entries["avss+linear"].value.mean]
    assert "SCORER+HEALER: " in as_markdown(results)
    assert as_latex(results).count("avss+rescale") == 2, "quality, and flips"
    assert "HEALER" not in as_markdown(findings(tmp_path / "none", healers=[])[0])
    document = results.model_dump(mode="json")
    model = checked(json.dumps(document))["models"]["one"]
    assert set(model["rows"][0]["entries"]) == set(results.design.contenders)
    assert all(removal["retained"] for removal in model["removals"])
    assert set(model["scored"]) == {removal["scorer"] for removal in model["removals"]} == set(results.design.scorers)
    assert model["rows"][0]["baselines"].keys() == {"", "linear", "rescale"}
    assert document["request"]["healers"]["linear"] == {"name": "linear", "options": {}}
    (rescaled,) = [
        removal for removal in model["removals"] if (removal["scorer"], removal["healer"]) == ("depth", "rescale")
    ]
    assert [each["healing"]["recovered"] for each in rescaled["models"]] == [0.5, 0.5]
