"""The benchmark of choices: what it does not compute again is what it would have computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import choices
import pytest
import typer
from finished import Finished, lines_in

import layerimp
from layerimp.report.results.measures import AveragedPart, Measured

Line = dict[str, Any]
DEPTH: Line = {"scorers": ["depth"]}
LOWEST = DEPTH | {"pruner": "lowest"}
"""Chooses the same blocks."""
WINDOW = choices.METHODS["angular, window"]


def counted(function: Callable[[Any, Any], Any], calls: list[Any]) -> Callable[[Any, Any], Any]:
    def call(recipe: Any, what: Any) -> Any:
        calls.append(what)
        return function(recipe, what)

    return call


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """The parts of recipes by which blocks were chosen."""
    calls: list[Line] = []
    monkeypatch.setattr(choices, "chosen", counted(choices.chosen, calls))
    return calls


@pytest.fixture
def asked(model_dir: Path, calibration_file: Path, tmp_path: Path) -> Line:
    settings = {"calibration": str(calibration_file), "draws": 1, "samples": 8, "max_length": 16, "rows": 4}
    return {"model": str(model_dir), "results": tmp_path / "results.jsonl", **settings}


def test_shortcuts_change_no_result(
    asked: Line, chosen: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[list[int]] = []
    monkeypatch.setattr(choices, "measured", counted(choices.measured, measured))
    monkeypatch.setattr(choices, "METHODS", {"depth": DEPTH, "lowest": LOWEST})
    choices.main(count=[1, 2], **asked)
    assert chosen == [DEPTH, LOWEST], "for two blocks; for one it is the start"
    assert list(map(len, measured)) == [2, 1], "once for both methods"
    lines = {(line["method"], line["count"]): line for line in lines_in(asked["results"])}
    assert len(lines) == 4
    for method, count in (("depth", 1), ("lowest", 2)):
        fresh = asked | {"results": tmp_path / f"{method}.jsonl"}
        choices.main(count=[count], method=[method], **fresh)
        assert list(lines_in(fresh["results"])) == [lines[method, count]]
    assert (len(chosen), len(measured)) == (4, 4)


def test_choices_are_known_while_the_method_is_the_same(
    asked: Line, chosen: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"divergence": {"mean": 1.0}, "agreement": 0.5, "copying": None, "retained": None}
    measured: list[list[int]] = []
    monkeypatch.setattr(
        choices, "measured", counted(lambda _recipe, _blocks: {"unhealed": state, "healed": state}, measured)
    )
    monkeypatch.setattr(choices, "METHODS", {"depth": DEPTH, "angular, window": WINDOW})
    choices.main(count=[1, 2], **asked)
    windows = [choices.parts_of("angular, window", 0, count) for count in (2, 1)]
    assert chosen == [DEPTH, *windows], "a smaller window is not the start of a larger one"
    first = list(lines_in(asked["results"]))

    with asked["results"].open("a") as file:
        file.write(json.dumps(first[-1])[:50])
    chosen.clear()
    measured.clear()
    choices.main(count=[1, 2], **asked)
    assert not measured, "everything is finished"

    choices.main(count=[1, 2], **asked | {"rows": 3})
    assert measured
    assert not chosen
    again = list(lines_in(asked["results"]))[len(first) :]
    apart = {"setting": again[0]["setting"]}
    assert again == [line | apart for line in first]

    monkeypatch.setitem(choices.METHODS, "depth", {"scorers": ["random"]})
    choices.main(count=[1], **asked | {"rows": 3})
    assert chosen == [{"scorers": ["random"]}]


def test_training_is_a_third_state_in_a_setting_of_its_own(asked: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[list[int]] = []
    recipes: list[Line] = []

    def measure(recipe: Line, _blocks: list[int]) -> Line:
        recipes.append(recipe)
        states = list(choices.STATES.values())[: 1 + len(recipe["healers"])]
        return {
            state: {"divergence": {"mean": 1.0 + n}, "agreement": 0.5, "copying": None, "retained": None}
            for n, state in enumerate(states)
        }

    monkeypatch.setattr(choices, "measured", counted(measure, measured))
    monkeypatch.setattr(choices, "METHODS", {"depth": DEPTH, "lowest": LOWEST})
    choices.main(count=[1], **asked)
    choices.main(count=[1], **asked, minutes=2.0, heal_text="more.jsonl")
    assert len(measured) == 2, "each once for both methods"
    assert [recipe.get("heal_text") for recipe in recipes] == [None, "more.jsonl"]
    spec = layerimp.Recipe.model_validate(recipes[1]).healers["distill"]
    assert (spec.name, spec.options) == ("distill", {"minutes": 2.0})
    first, second = [
        [line for line in lines_in(asked["results"]) if ("trained" in line) == trained] for trained in (False, True)
    ]
    assert [line["method"] for line in first] == [line["method"] for line in second] == ["depth", "lowest"]
    assert all(line["trained"]["divergence"]["mean"] == 3.0 for line in second)
    texts = [asked["model"], asked["calibration"]]
    model, calibration = (Path(text).name for text in texts)
    without = [model, "float32", 8, 16, calibration, None, 4, False, "", None]
    assert {line["setting"] for line in first} == {Finished(None, without).setting}
    assert {line["setting"] for line in second} == {Finished(None, [*without, 2.0, "more.jsonl"]).setting}


def test_each_state_is_that_of_its_healer(model_dir: Path, calibration_file: Path) -> None:
    recipe = {
        "model": str(model_dir),
        "calibration": {"source": str(calibration_file), "samples": 8, "max_length": 16},
        "tasks": [],
        "evaluators": {"fidelity": {"name": "fidelity", "options": {"rows": 4, "prompts": 0}}},
        "healers": {"linear": {}, "distill": {"options": {"steps": 3, "rate": 1e-2}}},
    }
    line = choices.measured(recipe, [1, 2])
    whole = recipe | {"scorers": ["depth"], "baselines": [], "blocks": [1, 2], "count": 2}
    by_healer = {
        removal.healer: removal.models[0].fidelity
        for removal in layerimp.run(layerimp.Recipe.model_validate(whole)).model.removals
    }
    for healer, state in {"": "unhealed", "linear": "healed", "distill": "trained"}.items():
        fidelity = by_healer[healer]
        assert fidelity is not None
        assert fidelity.divergence is not None
        assert line[state]["divergence"]["mean"] == pytest.approx(fidelity.divergence.mean)


def test_the_parts_of_a_group_are_told_if_the_intact_model_knows_them() -> None:
    def average(**parts: tuple[float, float, bool]) -> choices.Metrics:
        known = {
            task: AveragedPart(value=value, stderr=None, floor=floor, at_floor=at_floor)
            for task, (value, floor, at_floor) in parts.items()
        }
        plain = Measured(value=0.5, stderr=None, ends=None, low=None, high=None, documents=4, higher_is_better=True)
        return {"group": {"accuracy": plain.model_copy(update={"parts": known})}, "alone": {"acc": plain}}

    intact = average(yes_or_no=(0.75, 0.5, False), words=(0.4, 0.0, False), hard=(0.26, 0.25, True))
    pruned = average(yes_or_no=(0.55, 0.5, False), words=(0.1, 0.0, True), hard=(0.5, 0.25, False))
    assert choices.by_part(intact, pruned) == pytest.approx({"yes_or_no": 0.2, "words": 0.25})


def test_a_text_to_train_on_needs_a_training(asked: Line) -> None:
    with pytest.raises(typer.BadParameter, match="needs --minutes"):
        choices.main(count=[1], **asked, heal_text="more.jsonl")


def test_random_choices_differ_by_draw() -> None:
    assert choices.parts_of("random", 1, 2) != choices.parts_of("random", 2, 2)
    assert choices.parts_of("depth", 1, 2) == choices.parts_of("depth", 2, 2) == DEPTH
