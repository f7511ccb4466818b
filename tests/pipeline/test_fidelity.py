"""Fidelity in a run: on by default, measured on text that chose nothing, and never a reason to refuse or to rank."""

from __future__ import annotations

import html
import json
import random
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from support.comparers import Agreement
from support.heard import Heard
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig

import layerimp
from layerimp.calibration.sampling import document_hash, load_calibration
from layerimp.cli.display import Screen
from layerimp.cli.set_options import with_settings
from layerimp.component import Options
from layerimp.errors import ModelError, OptionError
from layerimp.fidelity import Comparer, Intact
from layerimp.pipeline.heal_checkpoint import PreparedHealing, heal_checkpoint, prepare_healing
from layerimp.progress import SILENT
from layerimp.recipe import ComponentSpec, Permissions
from layerimp.registry.catalog import registry
from layerimp.report.document import Results
from layerimp.report.tables import FORMATS
from layerimp.report.tables.fidelity_figures import continued
from layerimp.report.words import number

FEW = {"fidelity": {"options": {"prompts": 3, "new_tokens": 8, "rows": 4}}}


@pytest.fixture
def recipe(model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """A run on text of 60 documents."""
    text = tmp_path / "text.jsonl"
    tokenizer, draw = AutoTokenizer.from_pretrained(model_dir), random.Random(0)
    words = sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))
    lines = [" ".join(draw.choices(words, k=44)) for _ in range(60)]
    text.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    return {
        "model": str(model_dir),
        "scorers": ["avss"],
        "baselines": [],
        "ratio": 0.25,
        "tasks": [],
        "calibration": {"source": str(text), "samples": 4, "max_length": 40},
    }


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """The rows on which the predictions of an intact model are kept, each time that they are."""
    times: list[list[torch.Tensor]] = []
    original = Intact.__init__

    def noting(self: Any, stack: Any, batches: Any, **options: Any) -> None:
        pairs = [pair for each in batches for pair in zip(each["input_ids"], each["attention_mask"], strict=True)]
        times.append([ids[mask.bool()] for ids, mask in pairs])
        original(self, stack, batches, **options)

    monkeypatch.setattr(Intact, "__init__", noting)
    return times


def run(values: dict[str, Any], heard: Any = None) -> Results:
    return layerimp.run(layerimp.Recipe.model_validate(values), **({"progress": heard} if heard else {}))


def prepared(values: dict[str, Any], heard: Any = SILENT) -> PreparedHealing:
    """The healing of the model of a recipe."""
    healer = ComponentSpec(name="linear", options={"ridges": [0.1]})
    return prepare_healing(layerimp.Recipe.model_validate(values), healer, Permissions(), heard)


def fidelities(results: Results) -> dict[str, Any]:
    (model,) = results.models.values()
    return {removal.label: removal.models[0].fidelity for removal in model.removals}


@torch.no_grad()
def naive(intact: Any, other: Any, rows: list[torch.Tensor]) -> float:
    """The mean divergence, row by row in float64."""
    total, count = 0.0, 0
    for row in rows:
        p, q = (each(input_ids=row[None]).logits[0, :-1].double().log_softmax(dim=-1) for each in (intact, other))
        total, count = total + float((p.exp() * (p - q)).sum()), count + len(row) - 1
    return total / count


def test_a_run_measures_fidelity_by_default(recipe: dict[str, Any]) -> None:
    results = run(recipe | {"healers": ["linear"]})
    by_label = fidelities(results)
    assert by_label.keys() == {"avss", "avss+linear"}
    for fidelity in by_label.values():
        assert fidelity.predictions > 0
        assert fidelity.divergence.mean > 0
        assert fidelity.copying is None
    (model,) = results.models.values()
    assert not model.metrics
    assert all(removal.retained is None for removal in model.removals)


@pytest.mark.parametrize(
    ("samples", "length", "expected"), [(64, 256, (8, 64)), (128, 256, (8, 128)), (8, 256, (2, 48)), (999, 40, (8, 40))]
)
def test_a_brief_comparison_reads_a_32nd_of_the_calibration_text_and_no_more_than_8_rows_of_128_tokens(
    samples: int, length: int, expected: tuple[int, int]
) -> None:
    assert Comparer.Config(brief=True).size(samples, length, classifier=False) == expected
    assert Comparer.Config(brief=True, rows=20).size(samples, length, classifier=True)[0] == 20


def test_a_run_shows_two_texts_of_each_scorers_model_and_none_of_baselines() -> None:
    results = run({"scorers": ["avss"], "calibration": {"samples": 8, "max_length": 64}, "limit": 2})
    by_label = fidelities(results)
    assert by_label.keys() == {"avss", "random", "depth"}
    generation = by_label["avss"].generation
    assert (generation.prompts, len(generation.samples), generation.same_tokens) == (2, 2, None)
    assert by_label["random"].generation is None
    assert not by_label["random"].missing


def test_an_option_of_fidelity_asks_for_all_of_its_figures() -> None:
    assert "evaluators" in with_settings(layerimp.Recipe(), ["fidelity.rows=20"]).model_fields_set
    assert "evaluators" not in with_settings(layerimp.Recipe(), ["greedy.rescored=2"]).model_fields_set


def test_what_is_measured_is_the_divergence_on_text_that_nothing_else_reads(
    recipe: dict[str, Any], read: list[list[torch.Tensor]]
) -> None:
    """The rows are taken from the evaluator, and compared by hand with the models as a user would make them."""
    results = run(recipe | {"evaluators": FEW})
    (model,) = results.models.values()
    fidelity, removed = model.removals[0].models[0].fidelity, model.removals[0].models[0].blocks
    rows = list(chain(*read))[:4]
    intact, tokenizer = layerimp.load(recipe["model"])
    other = layerimp.prune(layerimp.load(recipe["model"])[0], removed)
    assert fidelity is not None
    assert fidelity.divergence is not None
    assert fidelity.predictions == sum(len(row) - 1 for row in rows)
    assert fidelity.divergence.mean == pytest.approx(naive(intact, other, rows), rel=1e-4)
    calibration = load_calibration(recipe["calibration"]["source"], tokenizer, samples=4, max_length=40)
    texts = [json.loads(line)["text"] for line in Path(recipe["calibration"]["source"]).read_text().splitlines()]
    for row in rows:
        parts = [tokenizer.decode(row[place : place + 5].tolist()) for place in range(len(row) - 5)]
        sources = {text for text in texts for part in parts if part in text}
        assert sources
        assert not calibration.documents & set(map(document_hash, sources))


def test_equal_models_are_measured_once_and_the_intact_one_once(
    recipe: dict[str, Any], read: list[list[torch.Tensor]]
) -> None:
    results = run(recipe | {"scorers": ["avss", "depth", "block-influence"], "evaluators": FEW})
    assert len(fidelities(results)) == 3
    assert len(read) == 2 + 1  # predictions and copying, and the check of the model before any long work


def test_fidelity_is_no_quality(recipe: dict[str, Any]) -> None:
    """It is no reason to add baselines."""
    results = run({key: value for key, value in recipe.items() if key != "baselines"})
    assert fidelities(results).keys() == {"avss"}


def test_a_text_without_rows_to_spare_leaves_it_out_with_a_line(recipe: dict[str, Any]) -> None:
    heard = Heard()
    short = recipe | {"calibration": {**recipe["calibration"], "samples": 69}}
    results = run(short, heard)
    assert fidelities(results) == {"avss": None}
    (line,) = [line for line in heard.lines if line.startswith("fidelity is left out")]
    assert "no text that the calibration set leaves over" in line
    assert not results.failures
    with pytest.raises(OptionError, match=r"the evaluator fidelity compares .*: .* no text"):
        run(short | {"evaluators": FEW})


def test_a_model_that_predicts_nothing_leaves_it_out_with_a_line(recipe: dict[str, Any], tmp_path: Path) -> None:
    directory = tmp_path / "masked"
    tokenizer = AutoTokenizer.from_pretrained(recipe["model"])
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    AutoModelForMaskedLM.from_config(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    heard = Heard()
    results = run(recipe | {"model": str(directory), "scorers": ["block-influence"]}, heard)
    assert fidelities(results) == {"block-influence": None}
    assert [line for line in heard.lines if "left out" in line] == [
        "fidelity is left out: BertForMaskedLM predicts neither the next token nor a label"
    ]
    with pytest.raises(ModelError, match="predicts neither"):
        run(recipe | {"model": str(directory), "scorers": ["block-influence"], "evaluators": FEW})


def test_an_offloaded_run_leaves_it_out_and_naming_it_prevents_offloading(recipe: dict[str, Any]) -> None:
    heard = Heard()
    results = run(recipe | {"offload": True}, heard)
    assert fidelities(results) == {"avss": None}
    assert "fidelity is left out: the model is read block by block" in heard.lines
    with pytest.raises(OptionError, match="the evaluator fidelity needs whole models in memory"):
        run(recipe | {"offload": True, "evaluators": FEW})


def test_a_single_model_is_not_compared(recipe: dict[str, Any]) -> None:
    values = {"model": recipe["model"], "tasks": []}
    assert layerimp.evaluate(layerimp.Recipe.model_validate(values)).models
    with pytest.raises(OptionError, match="fidelity compares models with the intact one: layerimp evaluate measures"):
        layerimp.evaluate(layerimp.Recipe.model_validate(values | {"evaluators": FEW}))


def test_two_comparers_are_refused(recipe: dict[str, Any]) -> None:
    twice = {"fidelity": {}, "again": {"name": "fidelity"}}
    with pytest.raises(OptionError, match="fidelity and again both compare with the intact model"):
        run(recipe | {"evaluators": twice})


def test_a_comparer_that_fails_is_named_and_the_run_goes_on(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, stack: Any) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(Intact, "divergence", fail)
    results = run(recipe)
    assert fidelities(results) == {"avss": None}
    (failure,) = results.failures
    assert failure.what == "fidelity"
    assert "ZeroDivisionError" in failure.error


def test_a_collapse_is_noted(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    looped = iter([False, False, False, True, True, False])
    monkeypatch.setattr("layerimp.fidelity.generation.LOOP_TOKENS", 8)
    monkeypatch.setattr("layerimp.fidelity.generation.loops", lambda continuation: next(looped))
    (model,) = run(recipe | {"evaluators": FEW}).models.values()
    (note,) = [note for note in model.all_notes if "loop" in note]
    assert note.startswith("avss: of the texts it generates, ")
    assert "67% end in a loop (0% of the intact model's)" in note


def test_what_cannot_be_measured_is_noted(recipe: dict[str, Any]) -> None:
    (model,) = run(recipe | {"evaluators": ["harness", "fidelity"]}).models.values()
    assert "not measured: generation (a prompt and 64 tokens more are beyond the model's 64 positions)" in model.notes


def test_every_output_shows_the_same_figures_and_texts(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerimp.fidelity.generation.LOOP_TOKENS", 8)
    out = tmp_path / "out"
    results = run(recipe | {"evaluators": FEW, "healers": ["linear"], "output": str(out)})
    healed = fidelities(results)["avss+linear"]
    sample = healed.generation.samples[0]
    frame = results.to_pandas()
    mine = frame[(frame.kind == "fidelity") & (frame.healer == "linear")].set_index("metric")
    assert mine["mean"].to_dict() == {
        "divergence": healed.divergence.mean,
        "divergence p99": healed.divergence.p99,
        "agreement": healed.agreement,
        "copying": healed.copying.accuracy,
        "same tokens": healed.generation.same_tokens,
        "empty": healed.generation.empty,
        "loops": healed.generation.loops,
    }
    assert mine.original["copying"] == healed.copying.intact
    assert mine.error_high["divergence"] - mine["mean"]["divergence"] == pytest.approx(healed.divergence.stderr)
    shown = number(healed.divergence.mean)
    Screen(json=False).show(results)
    printed = capsys.readouterr().out
    card = (out / "checkpoints" / "avss+linear" / "README.md").read_text()
    page = (out / "report.html").read_text()
    for text in (printed, card, page, results._repr_html_(), FORMATS["markdown"](results)):
        assert shown in text
    for words in (sample.prompt, sample.intact, sample.text):
        for text in (printed, html.unescape(page)):
            assert " ".join(words.split()) in " ".join(text.split())
    assert " ".join(sample.prompt.split()) not in " ".join(card.split()), "the text is the user's own"


def test_texts_of_baselines_that_nobody_named_are_not_shown(recipe: dict[str, Any]) -> None:
    results = run(recipe | {"scorers": ["avss", "depth"], "evaluators": FEW})
    (model,) = results.models.values()
    assert [list(each.texts) for each in continued(model)] == [["original", "avss", "depth"]] * 2
    assert [list(each.texts) for each in continued(model, ["depth"])] == [["original", "avss"]] * 2


def test_healing_a_checkpoint_compares_it_before_and_after(
    recipe: dict[str, Any], tmp_path: Path, read: list[list[torch.Tensor]]
) -> None:
    run(recipe | {"evaluators": FEW, "output": str(tmp_path / "out")})
    pruned, output = tmp_path / "out" / "checkpoints" / "avss", tmp_path / "healed"
    read.clear()
    asked = recipe | {"model": str(pruned), "evaluators": FEW, "output": str(output)}
    del asked["ratio"]
    report = heal_checkpoint(prepared(asked))
    models = {"pruned": layerimp.load(str(pruned))[0], "healed": layerimp.load(str(output))[0]}
    assert report.fidelity.keys() == models.keys()
    intact, _ = layerimp.load(recipe["model"])
    for label, model in models.items():
        measured = report.fidelity[label].divergence
        assert measured is not None
        assert measured.mean == pytest.approx(naive(intact, model, list(chain(*read))[:4]), rel=1e-4)
    card = (output / "README.md").read_text()
    assert card.count("## How far from the source\n") == 1
    assert card.count("## How far from the source before healing by linear\n") == 1


def test_a_checkpoint_of_which_nothing_can_be_measured_is_healed_unless_that_is_requested(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    short = recipe | {"calibration": {**recipe["calibration"], "samples": 69}}
    run(short | {"output": str(tmp_path / "out")})
    del short["ratio"]
    short |= {"model": str(tmp_path / "out" / "checkpoints" / "avss"), "output": str(tmp_path / "healed")}

    with pytest.raises(OptionError, match=r"the evaluator fidelity compares .*: .* no text"):
        heal_checkpoint(prepared(short | {"evaluators": FEW}))
    with pytest.raises(OptionError, match="rows"):
        prepared(short | {"evaluators": {"fidelity": {"options": {"rows": 0}}}})
    heard = Heard()
    assert not heal_checkpoint(prepared(short, heard)).fidelity
    assert any(line.startswith("fidelity is left out") for line in heard.lines)


def test_any_comparer_says_what_text_it_measures_on(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    class Counting(Agreement):
        """Counts the rows."""

        name = "counting"

        def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
            rows.append(sum(len(batch["input_ids"]) for batch in text))
            return super().comparison(intact, tokenizer, text)

    entries = registry()._entries["evaluator"]
    monkeypatch.setitem(entries, "counting", replace(entries["fidelity"], cls=Counting))
    run(recipe | {"evaluators": {"mine": {"name": "counting", "options": {"rows": 3}}}})
    assert rows == [3]


def test_the_options_of_a_comparer_say_what_text_it_measures_on() -> None:
    class Closed(Agreement):
        """Has no options for the text."""

        name = "closed"
        Config = Options  # type: ignore[assignment]

    assert Closed.fault() == "the Config of Closed is not derived from Comparer.Config"
    assert Agreement.fault() is None
