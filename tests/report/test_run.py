"""The report of a run: JSON of a fixed shape, and a model card that is safe from injection."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.table import Table

import layerimp
from layerimp import Recipe, __version__
from layerimp.cli import score_tables, tables
from layerimp.evaluator import Metric, retention
from layerimp.pruner import PrunePlan
from layerimp.recipe import make_recipe
from layerimp.report import Report, Size
from layerimp.report.data import why_not_ours, write_json
from layerimp.report.model_card import escaped, model_card
from layerimp.scorer import Importance
from layerimp.testing import tiny_model

INF, NAN = math.inf, math.nan


def acc(value: float, stderr: float | None = None, task: str = "sst2") -> Metric:
    return Metric(task, "acc", value, stderr)


def ppl(value: float, task: str = "wikitext") -> Metric:
    return Metric(task, "word_perplexity", value, higher_is_better=False)


def report(**recipe: Any) -> Report:
    """A complete run, which removed 2 of 4 blocks."""
    made = Report(make_recipe({"model": "dir/tiny", **recipe}), num_blocks=4, loader="AutoModelForCausalLM")
    made.calibration = {"source": "text.jsonl", "rows": 3, "tokens": 24, "fingerprint": "abc"}
    made.sizes = {"original": Size(4, 1000, 4000), "paper": Size(2, 600, 2400)}
    made.importance = {"paper": Importance([0.1, 0.4, 0.2, 0.3], columns={"std": [1.0, 2.0, 3.0, 4.0]}, notes=["n"])}
    made.plans = {"paper": PrunePlan(num_blocks=4, blocks=[2, 0], scorer="avss", pruner="lowest", reason="why")}
    made.metrics = {"original": [acc(0.8, 0.01), ppl(20.0)], "paper": [acc(0.6, 0.02), ppl(40.0)]}
    made.footprint = {
        "original": [Metric("model", "bytes", 4000, higher_is_better=False)],
        "paper": [Metric("model", "bytes", 2400, higher_is_better=False)],
    }
    made.checkpoints = {"paper": Path("out/checkpoints/paper")}
    made.output = Path("out")
    return made


def strict(document: Any) -> Any:
    """Round trip through JSON that allows no NaN and no infinity."""
    return json.loads(json.dumps(document, allow_nan=False))


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


HOSTILE = [
    "[click](http://evil.example)",
    "<script>alert(1)</script>",
    "![x](y)",
    "**bold** _it_ `code` ~~gone~~ $x$",
    "a | b \\| c \\",
    "# title\n\n---\n- item\n1. one",
    "&lt;b&gt; <!-- x -->",
]


def rendered(name: str) -> list[Any]:
    """What Markdown makes of a name in a heading, in a list item and in a table."""
    text = escaped(name)
    source = f"# {text}\n\n- **Source:** {text}\n\n| a | b |\n|---|---|\n| {text} | end |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(source)
    return [token for token in tokens if token.type == "inline"]


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(
    st.one_of(
        st.sampled_from(HOSTILE), st.text("ab1 \n\t\r\u2028\\`*_{}[]()#+-.!|<>&;~$^=:/\"'@é", min_size=1, max_size=25)
    )
)
def test_a_name_is_text_wherever_it_stands(name: str) -> None:
    plain = " ".join(name.split())
    heading, item, *cells = rendered(name)
    assert {child.type for child in heading.children} <= {"text", "text_special"}
    assert "".join(child.content for child in heading.children) == plain
    assert "".join(child.content for child in item.children) == f"Source: {plain}".rstrip()
    assert [cell.content for cell in cells[:2]] == ["a", "b"]
    assert len(cells) == 4
    assert "".join(child.content for child in cells[2].children) == plain
    assert cells[3].content == "end"


@pytest.mark.parametrize("name", ["https://evil.example/x", "http://evil.example", "www.evil.example"])
def test_a_bare_address_is_no_link(name: str) -> None:
    """GitHub's Markdown makes links of these; a backslash before `:` or `.` stops it."""
    assert not re.search(r"https?://|www\.", escaped(name))


def test_the_card_states_source_method_and_cost() -> None:
    card = model_card(report(limit=20), "paper")
    assert "# dir/tiny, 2 of 4 blocks removed" in card
    assert "- **Source:** dir/tiny\n" in card
    assert f"scorer avss (label paper), pruner lowest, layerimp {__version__}" in card
    assert "- **Blocks removed:** 0, 2 (0-based" in card
    assert "2 blocks (50.00%), 400 parameters (40.00%), 1,600 bytes (40.00%)" in card
    assert "3 rows, 24 tokens of text.jsonl (fingerprint abc)" in card
    assert "| sst2 | acc |  | 0.8 ± 0.01 | 0.6 ± 0.02 | 75.0% |" in card
    assert "| wikitext | word\\_perplexity |  | 20 | 40 |  |" in card
    assert "- sst2: the evaluator gives no floor of acc" in card
    assert "first 20 documents" in card


def with_a_seam() -> Report:
    """A run with 6 blocks, which removed a block and a seam."""
    made = report(limit=20)
    made.num_blocks = 6
    made.sizes = {"original": Size(6, 1200, 4800), "paper": Size(4, 800, 3200)}
    made.importance = {"paper": Importance([0.6, 0.1, 0.2, 0.3, 0.4, 0.5])}
    made.plans = {"paper": PrunePlan(num_blocks=6, blocks=["1/2", 5], scorer="avss", pruner="lowest")}
    return made


def test_the_card_says_what_a_seam_cut() -> None:
    card = model_card(with_a_seam(), "paper")
    assert "# dir/tiny, 4 of 6 blocks left" in card
    assert "blocks removed" not in card.lower()
    assert "- **Removed:** 1/2, 5 (0-based indices in the source)\n" in card
    told = "- Seam 1/2: the MLP of block 1 and the attention of block 2; "
    assert f"{told}the attention of 1 and the MLP of 2 are one block now\n" in card
    assert "- **Smaller by:** 2 blocks (33.33%), 400 parameters (33.33%), 1,600 bytes (33.33%)" in card
    table = card.partition("## Where the blocks come from")[2]
    assert table.split("\n")[2:] == [
        "| block | attention of | MLP of |",
        "|---|---|---|",
        "| 0 | 0 | 0 |",
        "| 1 | 1 | 2 |",
        "| 2-3 | 3-4 | 3-4 |",
        "",
    ]
    assert "come from" not in model_card(report(), "paper")


def test_a_seam_that_leaves_nothing_of_its_blocks_is_no_seam() -> None:
    made = with_a_seam()
    made.plans = {"paper": PrunePlan(num_blocks=6, blocks=["1/2", "1.attn,2.mlp"])}
    card = model_card(made, "paper")
    assert "# dir/tiny, 2 of 6 blocks removed" in card
    assert "- **Blocks removed:** 1-2 (0-based" in card


def shown_in(table: Table, heading: str) -> list[str]:
    """The cells of a column."""
    return [str(cell) for column in table.columns if str(column.header) == heading for cell in column.cells]


def test_tables_show_seams() -> None:
    made = with_a_seam()
    (table,) = score_tables.scores(made, "paper", lambda _: True)
    assert shown_in(table, "removed") == ["", "½ 1st (1/2)", "½ 1st (1/2)", "", "", "✗ 2nd"]
    (table,) = tables.removed(made, ["paper"], lambda _: True)
    assert shown_in(table, "which") == ["1/2, 5"]
    (told,) = tables.seams(made, ["paper", "paper"])
    assert told.startswith("seam 1/2: the MLP of block 1 and")
    (compared,) = tables.comparison(made, lambda _: True)
    assert str(compared.title).startswith("comparison, 4 of 6 blocks left (± standard error")
    assert str(compared.columns[1].header) == "removed"
    assert [str(cell) for cell in compared.columns[1].cells] == ["", "1/2, 5"]
    made.plans = {"paper": PrunePlan(num_blocks=6, blocks=[5, 4])}
    (compared,) = tables.comparison(made, lambda _: True)
    assert str(compared.title).startswith("comparison, 2 of 6 blocks (33.33%) removed (± standard error")
    assert list(tables.seams(made, ["paper"])) == []


def test_scores_of_seams_stand_between_those_of_blocks() -> None:
    made = with_a_seam()
    steps = [*range(6), *(f"{n}/{n + 1}" for n in range(5))]
    made.importance = {"paper": Importance([float(n) for n in range(11)], steps, columns={"std": [0.0] * 11})}
    (table,) = score_tables.scores(made, "paper", lambda _: True)
    assert str(table.title).startswith("paper: importance of 6 blocks and 5 seams (")
    assert [name.strip() for name in shown_in(table, "step")[:4]] == ["0", "0/1", "1", "1/2"]
    assert shown_in(table, "score")[:4] == ["0", "6", "1", "7"]
    assert shown_in(table, "removed")[:5] == ["", "", "½ 1st (1/2)", "✗ 1st", "½ 1st (1/2)"]
    assert strict(made.to_dict())["scorers"]["paper"]["blocks"] == steps
    assert "blocks" not in report().to_dict()["scorers"]["paper"]


def test_attention_and_mlp_stand_side_by_side() -> None:
    made = with_a_seam()
    made.plans = {}
    steps = [f"{n}.{part}" for n in range(6) for part in ("attn", "mlp")]
    scores = [float(n) for n in range(12)]
    made.importance = {"paper": Importance(scores, steps, columns={"std_dev": [0.5] * 12})}
    (table,) = score_tables.scores(made, "paper", lambda _: True)
    assert str(table.title).startswith("paper: importance of attention and MLP in 6 blocks (")
    heads = [str(column.header) for column in table.columns]
    assert heads == ["block", "attention\nscore", "MLP\nscore", "attention\nstd dev", "MLP\nstd dev"]
    assert [str([*column.cells][2]) for column in table.columns] == ["2", "4", "5", "0.5", "0.5"]
    assert strict(made.to_dict())["scorers"]["paper"]["blocks"] == steps


def test_equal_removals_are_one_model() -> None:
    made = with_a_seam()
    made.plans["twin"] = PrunePlan(num_blocks=6, blocks=[5, "2.attn,1.mlp"])
    made.plans["block"] = PrunePlan(num_blocks=6, blocks=[5, 1])
    assert made.same_model("paper", "twin")
    assert not made.same_model("paper", "block")


def test_the_card_of_an_unmeasured_checkpoint_has_no_table() -> None:
    made = report()
    made.metrics, made.calibration = {}, {}
    card = model_card(made, "paper")
    assert "|" not in card
    assert "Calibration" not in card


def test_every_outside_name_on_the_card_is_escaped() -> None:
    evil = "x|<b>[y](z)\n# boo"
    made = report(model=evil)
    made.calibration = {**made.calibration, "source": evil}
    made.plans = {"paper": PrunePlan(num_blocks=4, blocks=[2, 0], scorer=evil, pruner=evil)}
    metric = Metric(evil, evil, 0.0)
    made.metrics = {"original": [metric], "paper": [metric]}
    card = model_card(made, "paper")
    assert card.count(escaped(evil)) == 11
    assert not re.search(r"(?<!\\)<b>|\n# boo|(?<!\\)\[y", card)
    assert "| 0 | 0 |  |" in card


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
