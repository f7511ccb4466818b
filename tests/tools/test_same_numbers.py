"""The comparison of all numbers with those of a fixed commit."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from same_numbers import Key, Records, checkpoint_records, compare, differences, records_of
from support.tiny import saved, tiny

from layerimp.cli import app

TABLE = Path(__file__).parents[2] / "tools" / "same_numbers.toml"
COMMANDS = {name: case for part in ("cases", "real") for name, case in tomllib.loads(TABLE.read_text())[part].items()}
DOCUMENT: dict[str, Any] = {
    "seconds": 3.0,
    "models": {
        "starter": {
            "calibration": {"fingerprint": "f00d", "tokens": 12},
            "metrics": {"qa": {"f1": {"value": 0.5}}},
            "removals": [
                {
                    "scorer": "avss",
                    "healer": "",
                    "pruner": "lowest",
                    "amount": 2,
                    "models": [{"draw": 0, "plan": {"blocks": [4, 2]}, "metrics": {"qa": {"f1": {"value": 0.25}}}}],
                }
            ],
        }
    },
}


def test_a_number_becomes_a_record_of_a_model_a_plan_a_text_a_task_and_a_metric() -> None:
    records = records_of("run", DOCUMENT)
    original = Key("run", "starter", "", "f00d", "qa", "metrics.f1.value")
    pruned = Key("run", "starter", "4,2", "f00d", "qa", "removals.avss++lowest+2.models.0.metrics.f1.value")
    assert records[original] == 0.5
    assert records[pruned] == 0.25
    assert records[Key("run", "starter", "", "f00d", "", "calibration.tokens")] == 12


def test_times_are_no_records() -> None:
    assert not [key for key in records_of("run", DOCUMENT) if "seconds" in key.metric]


A, B = Key("a"), Key("b")


@pytest.mark.parametrize(
    ("base", "again", "here", "differing"),
    [
        ({A: 1.0}, {A: 1.0}, {A: 1.0, B: 2.0}, []),
        ({A: 1.0}, {A: 1.0}, {A: 1.0 + 1e-15}, [A]),
        ({A: 1.0, B: 2.0}, {A: 1.0, B: 2.0}, {B: 2.0}, [A]),
        ({A: 1.0}, {A: 1.5}, {A: 0.6}, []),
        ({A: 1.0}, {A: 1.5}, {A: 0.4}, [A]),
        ({A: math.nan}, {A: math.nan}, {A: math.nan}, []),
        ({A: "fox"}, {A: "fox"}, {A: "hen"}, [A]),
        ({A: None}, {A: None}, {A: 0.0}, [A]),
        ({A: True}, {A: False}, {A: False}, [A]),
    ],
)
def test_a_record_differs_if_it_is_missing_or_further_away_than_the_second_run(
    base: Records, again: Records, here: Records, differing: list[Key]
) -> None:
    assert [key for key, _ in differences(base, again, here)] == differing


def test_every_tensor_of_a_checkpoint_is_a_record(tmp_path: Path) -> None:
    model = tiny("llama")
    saved(model, tmp_path / "small")
    first = checkpoint_records(tmp_path)
    assert {key.metric for key in first} == set(model.state_dict()) - set(model.all_tied_weights_keys)
    name = "model.layers.1.mlp.down_proj.weight"
    model.get_parameter(name).data[0, 0] += 1
    saved(model, tmp_path / "small")
    assert [key.metric for key, _ in differences(first, first, checkpoint_records(tmp_path))] == [name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_options_that_it_is_given(name: str) -> None:
    command, *arguments = COMMANDS[name]
    known = {option for parameter in typer.main.get_command(app).commands[command].params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_a_difference_is_an_error_unless_the_list_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = iter([{A: 1.0}, {A: 1.0}, {A: 2.0}, {A: 2.0}])
    monkeypatch.setattr("same_numbers.Side.install", lambda side: None)
    monkeypatch.setattr("same_numbers.Side.run", lambda *_: next(runs))
    (tmp_path / "inputs").mkdir()
    cases = {"score": ["score"]}
    assert compare(cases, [], tmp_path) == 1
    assert "is 2.0, was 1.0" in capsys.readouterr().out
    # The fixed commit has been run: only the working tree runs again.
    assert compare(cases, [{"records": "a*", "reason": "a better estimate"}], tmp_path) == 0
    assert "a better estimate" in capsys.readouterr().out
