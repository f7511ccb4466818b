"""What a run tells: JSON of a fixed shape, in one document and in files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.reports import acc, ppl, report, strict

import layerimp
from layerimp import Recipe
from layerimp.evaluator import Metric, retention
from layerimp.pruner import PrunePlan
from layerimp.recipe import make_recipe
from layerimp.report import Report, Size
from layerimp.report.data import why_not_ours, write_json
from layerimp.scorer import Importance
from layerimp.testing import tiny_model

INF, NAN = math.inf, math.nan


def written(value: float, stderr: float | None, higher: bool) -> dict[str, Any]:
    """A metric without the values of documents."""
    low, high = (None, None) if stderr is None else (pytest.approx(value + z * stderr, abs=1e-4) for z in (-1.96, 1.96))
    return {
        "value": value, "stderr": stderr, "low": low, "high": high, "documents": None, "higher_is_better": higher,
    }  # fmt: skip


def test_the_document_has_the_promised_shape() -> None:
    assert strict(report().to_dict()) == {
        "schema_version": "layerimp.report/2",
        "model": "dir/tiny",
        "num_blocks": 4,
        "calibration": {"source": "text.jsonl", "rows": 3, "tokens": 24, "fingerprint": "abc"},
        "parameters": {"original": 1000, "pruned": {"paper": 600}},
        "bytes": {"original": 4000, "pruned": {"paper": 2400}},
        "scorers": {
            "paper": {
                "scores": [0.1, 0.4, 0.2, 0.3],
                "columns": {"std": [1.0, 2.0, 3.0, 4.0]},
                "notes": ["n"],
                "removed": [2, 0],
                "checkpoint": "out/checkpoints/paper",
            }
        },
        "metrics": {
            "original": {
                "sst2": {"acc": written(0.8, 0.01, True)},
                "wikitext": {"word_perplexity": written(20.0, None, False)},
            },
            "paper": {
                "sst2": {"acc": written(0.6, 0.02, True)},
                "wikitext": {"word_perplexity": written(40.0, None, False)},
            },
        },
        "retention": {"paper": {"sst2": {"acc": pytest.approx(0.75)}, "wikitext": {"word_perplexity": 0.5}}},
        "retained": {"paper": {"sst2": pytest.approx(0.75), "wikitext": None}},
        "retained_likelihood": {"paper": None},
        "retained_accuracy": {"paper": pytest.approx(0.75)},
        "retained_worst": {"paper": pytest.approx(0.75)},
        "comparison": {
            "order": ["paper"],
            "best": {"sst2": {"acc": []}, "wikitext": {"word_perplexity": []}},
            "best_retained": [],
        },
        "notes": [
            "sst2: the evaluator gives no floor of acc, so that what chance gives counts as retained",
            "wikitext: nothing can be retained of word_perplexity, for lower is better, and the evaluator gives no "
            "likelihood",
            "no error is known, so that no winner can be determined: word_perplexity of wikitext",
            "not known document by document, and so compared as if on different ones: acc of sst2",
        ],
        "footprint": {"original": {"bytes": 4000}, "paper": {"bytes": 2400}},
        "output": "out",
    }


def test_baselines_stand_apart_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    made = report()
    made.baselines, made.left_out = ["depth"], {"picky": "no such model"}
    made.importance["depth"] = Importance([3.0, 2.0, 1.0, 4.0])
    made.plans["depth"] = PrunePlan(num_blocks=4, blocks=[2, 1], scorer="depth")
    made.sizes["depth"], made.metrics["depth"] = made.sizes["paper"], [acc(0.7, 0.01), ppl(30.0)]
    document = strict(made.to_dict())
    assert set(document["scorers"]) == {"paper"}
    assert document["baselines"]["depth"]["removed"] == [2, 1]
    assert document["baselines"]["depth"]["checkpoint"] is None
    assert document["left_out"] == {"picky": "no such model"}
    assert set(document["metrics"]) == {"original", "paper", "depth"}
    assert document["comparison"]["order"] == ["depth", "paper"]
    made.write(tmp_path)
    files = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    for name, key in (("scores", "scorers"), ("plan", "plans")):
        assert (set(files[name][key]), set(files[name]["baselines"])) == ({"paper"}, {"depth"})
    assert set(files["scores"]["baselines"]["depth"]) == {"scores", "columns", "notes"}
    assert files["metrics"]["comparison"] == document["comparison"]


def test_parts_that_were_not_made_are_absent() -> None:
    bare = Report(make_recipe({"model": "m"}), num_blocks=4, loader="AutoModel")
    assert set(bare.to_dict()) == {"schema_version", "model", "num_blocks", "output"}
    bare.importance = {"avss": Importance([1.0, 2.0], spans={2: [0.5]})}
    assert strict(bare.to_dict()["scorers"]) == {
        "avss": {"scores": [1.0, 2.0], "columns": {}, "notes": [], "spans": {"2": [0.5]}}
    }
    bare.plans = {"avss": PrunePlan(num_blocks=4, blocks=[1])}
    assert bare.to_dict()["scorers"]["avss"]["checkpoint"] is None


@pytest.mark.parametrize(
    ("make", "before", "after", "expected"),
    [
        (acc, 0.8, 0.6, 0.75),
        (acc, 0.5, 1.0, 2.0),
        (acc, 0.5, 0.0, 0.0),
        (acc, 0.0, 0.5, None),
        (acc, 0.0, 0.0, None),
        (ppl, 20.0, 40.0, 0.5),
        (ppl, 20.0, 10.0, 2.0),
        (ppl, 0.0, 5.0, 0.0),
        (ppl, 5.0, 0.0, None),
        (ppl, 20.0, INF, 0.0),
        (ppl, INF, 20.0, None),
        (acc, 0.5, INF, None),
    ],
)
def test_retention(make: Any, before: float, after: float, expected: float | None) -> None:
    assert retention(make(before), make(after)) == (None if expected is None else pytest.approx(expected))
    made = report()
    made.metrics = {"original": [make(before)], "paper": [make(after)]}
    (found,) = [share for task in strict(made.to_dict())["retention"]["paper"].values() for share in task.values()]
    assert found == (None if expected is None else pytest.approx(expected))


def test_only_what_both_measured_has_retention() -> None:
    made = report()
    made.metrics = {"original": [acc(0.5), acc(0.5, task="a")], "paper": [acc(0.5), acc(0.5, task="b")]}
    assert made.to_dict()["retention"] == {"paper": {"sst2": {"acc": 1.0}}}


@pytest.mark.parametrize(("before", "after"), [(INF, 5.0), (INF, INF), (NAN, 5.0), (5.0, NAN), (5.0, INF)])
@pytest.mark.parametrize("make", [acc, ppl])
def test_json_has_no_infinity(tmp_path: Path, make: Any, before: float, after: float) -> None:
    made = report()
    made.metrics = {"original": [make(before)], "paper": [make(after)]}
    made.footprint = {"original": [Metric("model", "seconds", INF)]}
    document = strict(made.to_dict())
    (value,) = [metric["value"] for task in document["metrics"]["paper"].values() for metric in task.values()]
    assert value == (after if math.isfinite(after) else None)
    assert document["footprint"]["original"]["seconds"] is None
    made.write(tmp_path)


def test_an_infinite_error_is_null() -> None:
    made = report()
    made.metrics["paper"] = [acc(0.5, NAN)]
    assert strict(made.to_dict())["metrics"]["paper"]["sst2"]["acc"]["stderr"] is None


def test_each_file_has_its_schema_version(tmp_path: Path) -> None:
    made = report()
    made.write(tmp_path)
    files = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert {name: content["schema_version"] for name, content in files.items()} == {
        "recipe.json": "layerimp.recipe/1",
        "scores.json": "layerimp.scores/1",
        "plan.json": "layerimp.plans/2",
        "metrics.json": "layerimp.metrics/2",
    }
    assert make_recipe(files["recipe.json"]) == made.recipe
    assert PrunePlan(**files["plan.json"]["plans"]["paper"]) == made.plans["paper"]
    assert set(files["scores.json"]["scorers"]["paper"]) == {"scores", "columns", "notes"}
    assert files["metrics.json"]["retention"]["paper"]["wikitext"] == {"word_perplexity": 0.5}


def test_only_parts_that_there_are_become_files(tmp_path: Path) -> None:
    Report(make_recipe({"model": "m"}), num_blocks=4, loader="AutoModel").write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]
    report().write(tmp_path)
    assert why_not_ours(tmp_path) is None
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "'thesis.tex'" in str(why_not_ours(tmp_path))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "null", '{"schema_version": 1}', '{"schema_version": "other/1"}', None]
)
def test_other_directories_are_not_ours(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "recipe.json").write_text(content)
    assert why_not_ours(tmp_path)


def test_a_recipe_of_the_user_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"schema_version": "layerimp.recipe/1", "model": "mine"}')
    assert why_not_ours(tmp_path)


def test_written_json_refuses_what_json_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": NAN})


def test_sizes() -> None:
    gone = report().removed("paper")
    assert gone == Size(2, 400, 1600)
    assert gone.share_of(Size(4, 1000, 4000)) == {"blocks": 0.5, "parameters": 0.4, "bytes": 0.4}


def test_what_a_person_sees_of_a_result_is_short(model_dir: Path, calibration_file: Path) -> None:
    """In a notebook a line says what an object is; all of it is in its attributes."""
    text = {"source": str(calibration_file), "samples": 4, "max_length": 16}
    recipe = Recipe.model_validate({"model": str(model_dir), "calibration": text, "tasks": [], "baselines": {}})
    report = layerimp.run(recipe)
    (gone,) = report.plans["avss"].blocks
    assert repr(report) == f"Report({model_dir}, 4 blocks; avss without {gone})"
    importance = report.importance["avss"]
    assert repr(importance).startswith(f"Importance(4 scores, the least of {gone}, ")
    assert len(repr(importance)) < 200
    assert repr(layerimp.find_blocks(tiny_model())) == "BlockStack(4 blocks of LlamaForCausalLM at model.layers)"
