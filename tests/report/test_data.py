"""What a run tells: JSON of a fixed shape, in one document and in files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.published import checked
from support.recipes import make_recipe
from support.reports import MadeUpRun, acc, model_of, ppl, repaired, report, strict

import layerimp
from layerimp import Recipe
from layerimp._version import versions as versions_of_libraries
from layerimp.errors import InputError, OutputError
from layerimp.metric import Metric
from layerimp.pipeline.output import why_not_ours
from layerimp.pipeline.resolve import anywhere
from layerimp.pruner import PrunePlan
from layerimp.report.build import ONE_DRAW
from layerimp.report.document import Results, movable, read_results, write_json
from layerimp.report.results.models import Size
from layerimp.scorer import Importance
from layerimp.testing import tiny_model

INF, NAN = math.inf, math.nan
OUT = Path("out").absolute()


def written(value: float, stderr: float | None, higher: bool) -> dict[str, Any]:
    """A metric without the values of documents."""
    low, high = (None, None) if stderr is None else (pytest.approx(value + z * stderr, abs=1e-4) for z in (-1.96, 1.96))
    ends = None if stderr is None else [pytest.approx(value - stderr), pytest.approx(value + stderr)]
    return {
        "value": value, "stderr": stderr, "ends": ends, "low": low, "high": high, "documents": None,
        "higher_is_better": higher, "floor": None, "at_floor": False, "parts": {}, "members": [], "flips": None,
    }  # fmt: skip


def test_the_document_has_the_promised_shape() -> None:
    document = checked(json.dumps(report(ratio=0.5).results().model_dump(mode="json"), allow_nan=False))
    (model,) = document.pop("models").values()
    (removal,) = model.pop("removals")
    (pruned,) = removal.pop("models")
    rows = {(row["task"], row["metric"]): row for row in model.pop("rows")}
    design, versions = document.pop("design"), document.pop("versions")
    assert document == {
        "schema_version": "layerimp.results/2",
        "request": report(ratio=0.5).recipe.model_dump(mode="json"),
        "cells": {},
        "failures": [],
        "left_out": {},
        "seconds": 0.0,
        "notes": [ONE_DRAW],
        "data_files": [],
        "output": str(OUT),
    }
    assert versions == [versions_of_libraries()]
    assert (design["amounts"], design["repeats"], list(design["scorers"])) == ([0.5], 1, ["paper"])
    assert model == {
        "label": "tiny",
        "num_blocks": 4,
        "loader": "AutoModelForCausalLM",
        "size": {"blocks": 4, "parameters": 1000, "bytes": 4000},
        "calibration": {"source": "text.jsonl", "rows": 3, "tokens": 24, "fingerprint": "abc"},
        "metrics": {
            "sst2": {"acc": written(0.8, 0.01, True)},
            "wikitext": {"word_perplexity": written(20.0, None, False)},
        },
        "footprint": {"bytes": {"value": 4000, "stderr": None}},
        "targets": {},
        "scored": {
            "paper": {
                "blocks": [0, 1, 2, 3],
                "scores": [[0.1, 0.4, 0.2, 0.3]],
                "means": [{"mean": s, "low": None, "high": None, "count": 1} for s in (0.1, 0.4, 0.2, 0.3)],
                "tau": None,
                "cost": None,
                "columns": {"std": [1.0, 2.0, 3.0, 4.0]},
                "notes": ["n"],
                "spans": {},
            }
        },
        "agreements": [],
        "removables": [],
        "search": None,
        "notes": [
            "sst2: the evaluator gives no floor of acc, so that what chance gives counts as retained",
            "wikitext: nothing can be retained of word_perplexity, for lower is better, and the evaluator gives no "
            "likelihood",
            "no error is known, so that no winner can be determined: word_perplexity of wikitext",
            "not known document by document, and so compared as if on different ones: acc of sst2",
        ],
    }
    share = {"mean": pytest.approx(0.75), "stderr": pytest.approx(math.hypot(0.02, 0.75 * 0.01) / 0.8)}
    assert removal == {
        "pruner": "lowest",
        "amount": 0.5,
        "scorer": "paper",
        "healer": "",
        "stability": None,
        "retained": {
            "tasks": {"sst2": share, "wikitext": None},
            "likelihood": None,
            "accuracy": share,
            "worst": share,
        },
        "flips": {},
        "notes": [],
    }
    assert pruned == {
        "draw": 0,
        "plan": {
            "schema_version": "layerimp.plan/2",
            "num_blocks": 4,
            "blocks": [2, 0],
            "reason": "why",
            "scorer": "avss",
            "pruner": "lowest",
            "model": None,
            "nested": None,
        },
        "size": {"blocks": 2, "parameters": 600, "bytes": 2400},
        "metrics": {
            "sst2": {"acc": written(0.6, 0.02, True)},
            "wikitext": {"word_perplexity": written(40.0, None, False)},
        },
        "footprint": {"bytes": {"value": 2400, "stderr": None}},
        "fidelity": None,
        "healing": None,
        "targets": {},
        "checkpoint": str(OUT / "checkpoints" / "paper"),
    }
    assert list(rows) == [("sst2", "acc"), ("wikitext", "word_perplexity"), ("retained", "accuracy")]
    entry = rows["wikitext", "word_perplexity"]["entries"]["paper"]
    assert (entry["retained"], entry["best"]) == (None, False)
    assert rows["sst2", "acc"]["counts"] == [2]


def test_baselines_stand_apart_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    made = report()
    made.baselines, made.left_out = ["depth"], {"picky": "no such model"}
    made.importance["depth"] = Importance([3.0, 2.0, 1.0, 4.0])
    made.plans["depth"] = PrunePlan(num_blocks=4, blocks=[2, 1], scorer="depth")
    made.sizes["depth"], made.metrics["depth"] = made.sizes["paper"], [acc(0.7, 0.01), ppl(30.0)]
    results = made.results()
    assert (results.design.added, results.left_out) == (["depth"], {"picky": "no such model"})
    model = model_of(made)
    assert list(model.scored) == ["paper", "depth"]
    assert {removal.label: removal.models[0].checkpoint for removal in model.removals} == {
        "paper": str(OUT / "checkpoints" / "paper"),
        "depth": None,
    }
    assert model.order == ["depth", "paper"]
    made.write(tmp_path)
    files = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert (set(files["plan"]["plans"]), set(files["plan"]["baselines"])) == ({"paper"}, {"depth"})
    assert files["results"] == strict(movable(made.results()).model_dump(mode="json"))


def test_parts_that_were_not_made_are_empty() -> None:
    bare = MadeUpRun(make_recipe({"model": "m"}), num_blocks=4, loader="AutoModel")
    model = model_of(bare)
    assert model.size is None
    assert not any((model.metrics, model.footprint, model.scored, model.removals, model.rows, model.notes))
    bare.importance = {"avss": Importance([1.0, 2.0], spans={2: [0.5]})}
    scored = model_of(bare).scored["avss"]
    assert (scored.blocks, scored.scores, scored.columns, scored.notes) == ([0, 1], [[1.0, 2.0]], {}, [])
    assert scored.spans == {2: [0.5]}
    bare.plans = {"avss": PrunePlan(num_blocks=4, blocks=[1])}
    bare.sizes = {"avss": Size(blocks=3, parameters=3, bytes=3)}
    (removal,) = model_of(bare).removals
    assert (removal.amount, removal.retained, removal.models[0].checkpoint) == ("plan", None, None)


@pytest.mark.parametrize(
    ("asked", "amount"),
    [
        ({"count": 2}, 2),
        ({"ratio": 0.25}, 0.25),
        ({"targets": {"bytes": "6GB", "parameters": 0.7}}, "bytes=6GB, parameters=0.7"),
        ({"keep": 0.95}, "keep=0.95"),
        ({"blocks": [3, 0]}, "blocks=3,0"),
        ({"count": 3, "blocks": [3]}, 3),
        ({}, "plan"),
    ],
    ids=str,
)
def test_an_amount_is_what_was_asked(asked: dict[str, Any], amount: Any) -> None:
    (removal,) = model_of(report(**asked)).removals
    assert removal.amount == amount
    assert type(removal.amount) is type(amount)


def test_a_folder_is_read_where_it_lies(tmp_path: Path) -> None:
    made = report(count=2)
    made.write(tmp_path)
    (model,) = json.loads((tmp_path / "results.json").read_text())["models"].values()
    assert model["removals"][0]["models"][0]["checkpoint"] == "checkpoints/paper"
    again = read_results(tmp_path)
    assert again.output == str(tmp_path)
    (model,) = again.models.values()
    assert model.removals[0].models[0].checkpoint == str(tmp_path / "checkpoints" / "paper")
    assert model.rows == model_of(made).rows
    for broken in ("", "{}", '{"schema_version": "layerimp.results/0"}'):
        (tmp_path / "results.json").write_text(broken)
        with pytest.raises(OutputError, match="results of this version"):
            read_results(tmp_path)
    (tmp_path / "results.json").unlink()
    with pytest.raises(OutputError, match="cannot read"):
        read_results(tmp_path)


def test_only_what_both_measured_has_a_row() -> None:
    made = report()
    made.metrics = {"original": [acc(0.5), acc(0.5, task="a")], "paper": [acc(0.5), acc(0.5, task="b")]}
    (row,) = [row for row in model_of(made).rows if row.original]
    assert (row.task, row.entries["paper"].value.mean) == ("sst2", 0.5)


@pytest.mark.parametrize(("before", "after"), [(INF, 5.0), (INF, INF), (NAN, 5.0), (5.0, NAN), (5.0, INF)])
@pytest.mark.parametrize("make", [acc, ppl])
def test_json_holds_infinity_as_a_text(tmp_path: Path, make: Any, before: float, after: float) -> None:
    made = report()
    made.metrics = {"original": [make(before)], "paper": [make(after)]}
    made.footprint = {"original": [Metric("model", "seconds", INF)]}
    (model,) = strict(made.results().model_dump(mode="json"))["models"].values()
    metrics = model["removals"][0]["models"][0]["metrics"]
    (value,) = [metric["value"] for task in metrics.values() for metric in task.values()]
    assert value == {INF: "Infinity"}.get(after, None if math.isnan(after) else after)
    assert model["footprint"]["seconds"]["value"] == "Infinity"
    made.write(tmp_path)
    (again,) = read_results(tmp_path).models.values()
    assert again.footprint["seconds"].value == INF
    assert [
        measure.value for measures in again.removals[0].models[0].metrics.values() for measure in measures.values()
    ] == [pytest.approx(after, nan_ok=True)]


def test_an_infinite_error_is_null() -> None:
    made = report()
    made.metrics["paper"] = [acc(0.5, NAN)]
    (model,) = strict(made.results().model_dump(mode="json"))["models"].values()
    assert model["removals"][0]["models"][0]["metrics"]["sst2"]["acc"]["stderr"] is None


def test_each_file_has_its_schema_version(tmp_path: Path) -> None:
    made = report()
    made.write(tmp_path)
    files = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert {name: content["schema_version"] for name, content in files.items()} == {
        "recipe.json": "layerimp.recipe/1",
        "results.json": "layerimp.results/2",
        "plan.json": "layerimp.plans/2",
    }
    assert make_recipe(files["recipe.json"]) == anywhere(made.recipe)
    assert PrunePlan(**files["plan.json"]["plans"]["paper"]) == made.plans["paper"]
    assert checked(json.dumps(files["results.json"])) == strict(movable(made.results()).model_dump(mode="json"))


def test_only_parts_that_there_are_become_files(tmp_path: Path) -> None:
    MadeUpRun(make_recipe({"model": "m"}), num_blocks=4, loader="AutoModel").write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.json", "results.json"}
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
    sizes = report().sizes
    gone = sizes["original"] - sizes["paper"]
    assert gone == Size(blocks=2, parameters=400, bytes=1600)
    assert gone.share_of(Size(blocks=4, parameters=1000, bytes=4000)) == {
        "blocks": 0.5,
        "parameters": 0.4,
        "bytes": 0.4,
    }


def test_what_a_person_sees_of_a_result_is_short(model_dir: Path, calibration_file: Path) -> None:
    """In a notebook a line says what an object is; all of it is in its attributes."""
    text = {"source": str(calibration_file), "samples": 4, "max_length": 16}
    given = {"model": str(model_dir), "scorers": ["avss"], "calibration": text, "tasks": [], "baselines": {}}
    recipe = Recipe.model_validate(given)
    results = layerimp.run(recipe)
    (gone,) = results.model.plans["avss"].blocks
    assert repr(results) == f"Results({model_dir.name}; avss)"
    importance = results.model.importance["avss"]
    assert repr(importance).startswith(f"Importance(4 scores, the least of {gone}, ")
    assert len(repr(importance)) < 200
    assert repr(layerimp.find_blocks(tiny_model())) == "BlockStack(4 blocks of LlamaForCausalLM at model.layers)"


def test_a_run_has_its_parts_by_label() -> None:
    made = report(healers=["linear"])
    made.healed, made.sizes["paper+linear"] = {"paper+linear": repaired({"intact": 1.0})}, made.sizes["paper"]
    results = made.results()
    model = results.model
    assert model.importance == made.importance
    assert model.plans == made.plans
    assert {label: each.size for label, each in model.pruned.items()} == {
        label: made.sizes[label] for label in ("paper", "paper+linear")
    }
    twice = model.model_copy(update={"removals": [*model.removals, *model.removals]})
    with pytest.raises(InputError, match="`removals`"):
        _ = twice.plans
    with pytest.raises(InputError, match="of 2 models"):
        _ = results.model_copy(update={"models": {"a": model, "b": model}}).model
    assert Results.model_validate_json(results.model_dump_json()).model.plans == made.plans


def test_scores_are_read_back_by_depth() -> None:
    given = Importance([1.0, 2.0, 3.0], blocks=[0, 2, 1], columns={"std": [4.0, 5.0, 6.0]}, spans={2: [0.5]})
    made = report()
    made.importance = {"paper": given}
    importance = model_of(made).importance["paper"]
    assert (importance.blocks, importance.scores) == ([0, 1, 2], [1.0, 3.0, 2.0])
    assert (importance.columns, importance.spans) == ({"std": [4.0, 6.0, 5.0]}, given.spans)
    assert importance.to_pandas().equals(given.to_pandas())
