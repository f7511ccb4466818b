"""What the pages show of `layerimp shrink` is what runs printed, and their tables hold the numbers of the documents."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pages
import pytest
import shrunk
from shrunk_figures import of_fidelity, of_report

from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.shrunk import LINES, lines_of


def page_of(name: str) -> str:
    """The text of a page on shrinking, in one line."""
    return " ".join((pages.ROOT / "docs" / "shrink" / f"{name}.md").read_text("utf-8").split())


@pytest.mark.parametrize("page", shrunk.SHOWN_ON, ids=lambda page: page.name)
def test_the_pages_show_the_record(page: Path) -> None:
    assert shrunk.with_record(page.read_text("utf-8")) == page.read_text("utf-8")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of results that is empty."""
    monkeypatch.setattr(shrunk, "STORE", tmp_path / "shrink.jsonl")
    return tmp_path / "shrink.jsonl"


REPORT = shrunk.record()
FIGURES: shrunk.Line = {
    "blocks": 0.25,
    "parameters": 0.181,
    "prefill": [1.301, 0.011],
    "decoding": [1.25, 0.02],
    "retained": [0.812, 0.0149],
    "agreement": [0.7, 0.0061],
    "copying": [0.9, None],
    "divergence": [0.4321, 0.012],
}


def line(model: str, by: str, ours: bool = True, seed: int = 0, **figures: Any) -> shrunk.Line:
    document = REPORT.model_dump(mode="json")
    return {
        "setting": "",
        "model": model,
        "by": by,
        "seed": seed,
        **FIGURES,
        **figures,
        **({"report": document} if ours else {}),
    }


def named(table: shrunk.Table) -> list[dict[str, str]]:
    head, rows = table
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_record_is_of_the_default() -> None:
    assert REPORT.model == "starter"
    assert REPORT.small.blocks == REPORT.intact.blocks * 3 // 4
    assert len(lines_of(REPORT)) <= LINES


def test_every_kept_row_is_shown_and_says_what_its_document_says() -> None:
    kept = list(map(json.loads, shrunk.STORE.read_text("utf-8").splitlines()))
    assert len({(row["model"], row["by"]) for row in kept}) == len(shrunk.rows()) == len(shrunk.table()[1])
    assert not re.findall(r'"/[^" ]*"', shrunk.STORE.read_text("utf-8")), "paths of one machine"
    for row in filter(shrunk.ours, kept):
        report = ShrinkReport.model_validate(row["report"])
        assert row["parameters"] == pytest.approx(1 - report.small.parameters / report.intact.parameters)
        for name, speed in report.speeds.items():
            assert row[name] == [speed.factor, speed.factor_stderr]
        assert report.retained is None or row["retained"][0] == min(
            kind.mean for kind in (report.retained.likelihood, report.retained.accuracy) if kind
        )
        assert report.fidelity is None or row["agreement"] == [
            report.fidelity.agreement,
            report.fidelity.agreement_stderr,
        ]


def test_the_starters_row_is_that_of_its_document() -> None:
    kept = list(map(json.loads, shrunk.STORE.read_text("utf-8").splitlines()))
    draws = [row for row in kept if (row["model"], row["by"]) == ("starter", shrunk.DEFAULT)]
    assert [row["seed"] for row in draws] == list(range(shrunk.DRAWS))
    figures = of_report(REPORT)
    assert draws[0] | figures == draws[0]
    assert REPORT.fidelity is not None
    assert REPORT.fidelity.copying is not None
    assert figures["copying"] == [REPORT.fidelity.copying.accuracy / REPORT.fidelity.copying.intact, None]
    shown = named(shrunk.short())[0]
    assert shown["blocks"] == "-25.0%"
    assert shown["prefill"] == f"×{statistics.mean(row['prefill'][0] for row in draws):.2f}"
    assert shown["minutes"] == f"{REPORT.minutes['distill']:.2g}"
    texts = [row["report"]["fidelity"]["generation"] for row in draws]
    before, after = (100 * statistics.mean(text[name] for text in texts) for name in ("intact_loops", "loops"))
    assert shown["looping texts"] == f"{before:.0f}% → {after:.0f}%"
    retained = [row["retained"][0] for row in draws]
    assert retained[0] == max(retained), "the pages say that the record is of the best draw"
    for page, best in ((shrunk.README, "It retains"), (shrunk.SHOWN_ON[1], "five draws of text retains")):
        assert f"{best} {retained[0]:.0%}, the worst {min(retained):.0%}".replace("%", " %") in page.read_text("utf-8")


STEPS = (("5 minutes", "0 minutes"), ("30 minutes", "5 minutes"))


def test_gemma_takes_few_steps_and_is_poor() -> None:
    (line,) = (line for line in shrunk.rows() if (line["model"], line["by"]) == ("gemma-3-270m", "30 minutes"))
    reports = [draw["report"] for draw in line["draws"]]
    assert {report["verdict"] for report in reports} == {"poor"}
    healings = (report["stages"][-1]["healing"] for report in reports)
    steps = statistics.fmean(healing["gaps"][0]["numbers"]["steps"] for healing in healings)
    texts = [report["fidelity"]["generation"] for report in reports]
    intact, loops = (statistics.fmean(text[name] for text in texts) for name in ("intact_loops", "loops"))
    agreement, error = line["agreement"]
    page = page_of("smaller-or-quantised")
    assert f": {100 * agreement:.1f} ± {100 * error:.1f} % of tokens agree, and {100 * loops:.0f} % of its" in page
    assert f"loop ({100 * intact:.0f} % of the intact model's)" in page
    assert f"a step takes long: there were {steps:.0f}," in page


def test_the_guide_says_what_a_classifier_retains() -> None:
    guide = page_of("index")
    (trained,) = (line for line in shrunk.rows() if (line["model"], line["by"]) == ("minilm-sst2", "30 minutes"))
    link = "(smaller-or-quantised.md#measured)"
    assert f"[{100 * trained['retained'][0]:.1f} %]{link} after 30 minutes of training." in guide


def test_the_page_sets_what_is_retained_beside_other_tools_with_both_errors() -> None:
    page = page_of("smaller-or-quantised")
    lines = {line["by"]: line for line in shrunk.rows() if line["model"] == "smollm2-135m"}
    others = {by: line for by, line in lines.items() if not shrunk.ours(line) and by != "int8 weights"}
    rival = max(line["retained"] for line in others.values())
    assert rival == others["optipfair"]["retained"]
    for by in ("30 minutes", "0 minutes"):
        own = lines[by]["retained"]
        for mean, error in (own, rival):
            assert f"{100 * mean:.1f} ± {100 * error:.1f} %" in page
        assert lines[by]["copying"][0] > 1.25 * max(line["copying"][0] for line in others.values())
    shared = next(
        draw["retained"] for draw in lines["30 minutes"]["draws"] if draw["seed"] == others["optipfair"]["seed"]
    )
    apart = (shared[0] - rival[0]) / math.hypot(shared[1], rival[1])
    assert f"`shrink` retains {100 * shared[0]:.1f} %, which is {apart:.1f} standard errors more" in page
    assert apart < 1.96, "the page says that this is not significant"
    verdicts = {by: line["report"]["verdict"] for by, line in lines.items() if shrunk.ours(line)}
    assert verdicts == {"0 minutes": "poor", "5 minutes": "good", "30 minutes": "good"}
    first, last = (lines[by]["retained"][0] - lines[since]["retained"][0] for by, since in STEPS)
    assert first > last > 0, "the page on shrinking says that the first minutes gain most"
    gaps = lines["5 minutes"]["report"]["stages"][-1]["healing"]["gaps"]
    guide = page_of("index")
    assert f"in its first {round(gaps[0]['numbers']['tokens'], -3):,.0f} tokens." in guide
    assert f"(on a CPU, ×{lines['int8 weights']['decoding'][0]:.2f} was measured)" in page
    agreement, error = lines["5 minutes"]["agreement"]
    assert f"After 5 minutes {100 * agreement:.1f} ± {100 * error:.1f} % do." in page
    agreement, error = lines["30 minutes"]["agreement"]
    assert all(
        agreement - line["agreement"][0] > 2 * math.hypot(error, line["agreement"][1]) for line in others.values()
    )


def test_the_page_says_how_far_speeds_of_one_shape_differ() -> None:
    page = page_of("smaller-or-quantised")
    fast = [line["decoding"][0] for line in shrunk.stored() if line["blocks"] and line["model"] == "smollm2-135m"]
    assert f"SmolLM2 without 7 writes ×{min(fast):.2f} to ×{max(fast):.2f} as fast" in page


def test_the_page_says_which_models_8_bit_weights_make_faster() -> None:
    page = page_of("smaller-or-quantised")
    rows = {line["model"]: line for line in shrunk.rows() if line["by"] == "int8 weights"}
    assert set(rows) == {"starter", "minilm-sst2", "smollm2-135m", "gemma-3-270m"}
    assert "on a CPU SmolLM2 and MiniLM were faster too" in page
    for model, speed in (("smollm2-135m", "decoding"), ("minilm-sst2", "prefill")):
        assert rows[model][speed][0] - 2 * rows[model][speed][1] > 1.5
    assert "Gemma, where it is most of the model, writes hardly faster" in page
    assert rows["gemma-3-270m"]["decoding"][0] < 1.1
    assert all(line["retained"][0] > 0.99 for line in rows.values()), "they change far less than removed blocks"


def test_the_page_sets_gemma_beside_other_tools() -> None:
    page = page_of("smaller-or-quantised")
    lines = {line["by"]: line for line in shrunk.rows() if line["model"] == "gemma-3-270m"}
    own, rival = lines["30 minutes"], lines["short-transformers"]
    others = [line for by, line in lines.items() if not shrunk.ours(line) and by != "int8 weights"]
    assert rival["retained"] == max(line["retained"] for line in others)
    assert abs(own["retained"][0] - rival["retained"][0]) < math.hypot(own["retained"][1], rival["retained"][1])
    first, second = (f"{100 * mean:.1f} ± {100 * error:.1f} %" for mean, error in (own["retained"], rival["retained"]))
    assert f"`shrink` ({first} retained) is not ahead of short-transformers ({second}), which agrees on only" in page
    assert f"on only {100 * rival['agreement'][0]:.0f} % of tokens" in page
    assert f"agrees on more than {100 * max(line['agreement'][0] for line in others):.1f} %" in page
    for line in others:
        assert own["agreement"][0] - line["agreement"][0] > 2 * math.hypot(own["agreement"][1], line["agreement"][1])


def test_rows_are_in_order_and_show_their_figures(store: Path) -> None:
    shrunk.keep(
        [
            line("smollm2-135m", "optipfair", ours=False),
            line("smollm2-135m", "30 minutes"),
            line("smollm2-135m", "int8 weights", ours=False, blocks=0.0, parameters=0.0, decoding=None),
            line("smollm2-135m", "5 minutes"),
            line("other", "0 minutes"),
            line("starter", "default"),
        ]
    )
    shown = named(shrunk.table())
    assert [(row["model"], row["made by"]) for row in shown] == [
        ("starter", "`shrink`"),
        ("SmolLM2-135M", "`shrink`, 5 min"),
        ("", "`shrink`, 30 min"),
        ("", "optipfair"),
        ("", "int8 weights"),
        ("other", "`shrink`, 0 min"),
    ]
    assert list(shown[2].values())[2:] == [
        "-25.0%",
        "-18.1%",
        "×1.30 ± 0.011",
        "×1.25 ± 0.020",
        "81.2% ± 1.5%",
        "70.0% ± 0.6%",
        "90.0%",
        "0.432 ± 0.012",
    ]
    assert [shown[4][name] for name in ("blocks", "parameters", "decoding")] == ["", "", ""]
    short = named(shrunk.short())
    assert [(row["model"], row["minutes"]) for row in short] == [
        ("starter", f"{REPORT.minutes['distill']:.2g}"),
        ("SmolLM2-135M", "30"),
        ("other", "0"),
    ]
    assert [short[1][name] for name in ("prefill", "retained")] == ["×1.30", "81.2% ± 1.5%"]


def test_draws_of_a_row_are_one_with_their_means(store: Path) -> None:
    shares = (0.8, 0.7, 0.9)
    figures = {name: [(share, 0.5) for share in shares] for name in ("retained", "agreement", "divergence", "prefill")}
    shrunk.keep(
        line("other", "30 minutes", seed=seed, **{name: drawn[seed] for name, drawn in figures.items()})
        for seed in range(3)
    )
    (shown,) = named(shrunk.table())
    own = statistics.stdev(shares) / 3**0.5
    error = math.hypot(own, 0.5)  # all draws are measured on the same documents and rows
    assert shown["made by"] == "`shrink`, 30 min, 3 draws"
    assert shown["retained"] == shown["agreement"] == f"80.0% ± {100 * error:.1f}%"
    assert shown["divergence"] == f"0.8 ± {error:.2f}"
    assert shown["prefill"] == f"×0.80 ± {own:.3f}"


def test_what_only_some_draws_have_is_not_shown(store: Path) -> None:
    shrunk.keep([line("other", "30 minutes"), line("other", "30 minutes", seed=1, copying=None, prefill=[None, None])])
    (shown,) = named(shrunk.table())
    assert (shown["copying"], shown["prefill"]) == ("", "")
    assert shown["decoding"] == "×1.25 ± 0.0"


def test_all_draws_of_a_training_are_shown(store: Path) -> None:
    draws = [line("other", "30 minutes", seed=seed) for seed in range(3)]
    loops, tokens, rates, ends = (0.5, 0.25, 0.75), (1000, 2000, 6000), (1e-4, 3e-4, 1e-4), (0.2, 0.3, 0.7)
    for draw, share, *trained in zip(draws, loops, tokens, rates, ends, strict=True):
        numbers = draw["report"]["stages"][1]["healing"]["gaps"][0]["numbers"]
        numbers |= dict(zip(("tokens", "rate", "divergence_after"), trained, strict=True)) | {"divergence_before": 1.0}
        draw["report"]["fidelity"]["generation"] |= {"intact_loops": 0.1, "loops": share}
    del numbers["repeated_before"], numbers["repeated_after"]
    shrunk.keep(draws)
    (shown,) = named(shrunk.trainings())
    assert [shown[name] for name in ("tokens", "rate", "divergence", "repeated")] == [
        "3,000",
        "1e-04 to 3e-04",
        "1 → 0.4",
        "",
    ]
    assert named(shrunk.short())[0]["looping texts"] == "10% → 50%"
    draws[0]["report"]["stages"][1]["kept"] = False
    shrunk.keep(draws)
    (shown,) = named(shrunk.trainings())
    assert [shown[name] for name in ("tokens", "rate", "divergence")] == ["", "", ""]


def test_a_row_is_of_one_setting(store: Path) -> None:
    shrunk.keep([line("other", "30 minutes"), line("other", "5 minutes") | {"setting": "b"}])
    before = store.read_text()
    with pytest.raises(ValueError, match=r"shrink.jsonl .* other, 30 minutes has the settings '', 'b'"):
        shrunk.keep([line("other", "30 minutes", seed=1) | {"setting": "b"}])
    assert store.read_text() == before
    store.write_text(before + json.dumps(line("other", "5 minutes")) + "\n")
    with pytest.raises(ValueError, match="other, 5 minutes has the settings"):
        shrunk.rows()


def test_copying_has_no_share_of_nothing() -> None:
    assert REPORT.fidelity is not None
    assert REPORT.fidelity.copying is not None
    none = REPORT.fidelity.copying.model_copy(update={"intact": 0.0})
    assert of_fidelity(REPORT.fidelity.model_copy(update={"copying": none}))["copying"] is None
    assert of_fidelity(None) == {}


def test_a_training_shows_what_it_did_to_both_distances(store: Path) -> None:
    untrained = line("smollm2-135m", "0 minutes")
    untrained["report"]["stages"] = untrained["report"]["stages"][:1]
    shrunk.keep([line("smollm2-135m", "30 minutes"), untrained, line("smollm2-135m", "optipfair", ours=False)])
    (shown,) = named(shrunk.trainings())
    numbers = REPORT.stages[1].healing.gaps[0].numbers  # type: ignore[union-attr]
    assert (shown["model"], shown["minutes"]) == ("SmolLM2-135M", "30")
    assert shown["divergence"] == f"{numbers['divergence_before']:.3g} → {numbers['divergence_after']:.3g}"
    assert shown["repeated"] == f"{numbers['repeated_before']:.3g} → {numbers['repeated_after']:.3g}"
    assert float(shown["rate"]) == pytest.approx(numbers["rate"], rel=0.05)
    assert shown["tokens"].replace(",", "") == f"{numbers['tokens']:.0f}"


def test_a_newer_row_replaces_the_older_and_has_no_folders(store: Path) -> None:
    shrunk.keep([line("smollm2-135m", "5 minutes"), line("smollm2-135m", "0 minutes")])
    shrunk.keep(
        [line("smollm2-135m", "5 minutes", retained=[0.5, 0.01], text={"source": ["/some/where/c4.jsonl", "/s/a b"]})]
    )
    assert [row["retained"][0] for row in shrunk.rows()] == [0.812, 0.5]
    assert shrunk.rows()[1]["text"] == {"source": ["c4.jsonl", "/s/a b"]}


def test_a_model_that_was_not_measured_has_a_row(store: Path) -> None:
    report = REPORT.model_copy(
        update={"model": "huge", "speeds": {}, "retained": None, "fidelity": None, "minutes": {}}
    )
    own = {"setting": "", "model": "huge", "by": "default", "seed": 0, **of_report(report)}
    shrunk.keep([own | {"report": report.model_dump(mode="json")}])
    assert list(named(shrunk.table())[0].values())[4:] == [""] * 6
    assert named(shrunk.short())[0]["minutes"] == "0"
    assert shrunk.continuations() == (shrunk.TEXTS, [])


def test_texts_are_shown_as_they_are(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = line("other", "default")
    row["report"]["fidelity"]["generation"]["samples"][0] |= {"prompt": "a *b* <c>", "intact": "$1 [d](e)", "text": ""}
    shrunk.keep([row])
    unhealed = {"model": "other", "prompt": "a *b* <c>", "blocks": row["report"]["plan"]["blocks"], "text": "b\nb"}
    monkeypatch.setattr(shrunk, "UNHEALED", tmp_path / "unhealed.jsonl")
    shrunk.UNHEALED.write_text(json.dumps(unhealed) + "\n", encoding="utf-8")
    assert shrunk.continuations()[1][0] == ["other", r"a \*b\* &lt;c&gt;", r"\$1 \[d\](e)", "b b", "(nothing)"]
    shrunk.UNHEALED.write_text(json.dumps(unhealed | {"blocks": [0]}) + "\n", encoding="utf-8")
    assert shrunk.continuations()[1][0][3] == "(nothing)"


def test_the_pages_have_the_texts_of_unhealed_models() -> None:
    texts = [row[shrunk.TEXTS.index("without the blocks")] for row in shrunk.continuations()[1]]
    assert texts
    assert "(nothing)" not in texts, "python docs/tools/unhealed_texts.py"


def test_the_short_table_stands_between_its_marks() -> None:
    page = 'a\n\n<!-- shrunk -->\nold\n<!-- end -->\n\n```text title="Recorded"\nold\n```\n'
    new = shrunk.with_record(page)
    assert "old" not in new
    head, *_ = new.partition("<!-- shrunk -->\n")[2].splitlines()
    assert head == f"|{'|'.join(shrunk.SHORT)}|"
    assert shrunk.with_record(new) == new
