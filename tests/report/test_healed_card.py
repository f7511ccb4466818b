"""The card of a checkpoint: metadata that the Hub's own classes read, and text that tells no folder of this machine."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from support.mood import Run
from support.recipes import make_recipe
from support.reports import MadeUpRun, repaired
from transformers import AutoModelForCausalLM

from layerimp.calibration.sampling import Calibration
from layerimp.evaluator import Likelihood, Metric
from layerimp.models.origin import Origin
from layerimp.pruner import PrunePlan
from layerimp.registry.attribution import create
from layerimp.report.card import HealedCheckpoint, escaped, healed_card, model_card
from layerimp.report.results.healing import HealingReport
from layerimp.report.results.models import Size
from layerimp.report.words import recovery
from layerimp.scorer import Importance

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EVIL = "x|<b>[y](http://evil.example) ![z](q) $$a$$ `c`\n```\n---\n# boo\n<script>alert(1)</script> & 'quoted' \"both\""


def report(loader: str = "AutoModelForCausalLM", **recipe: Any) -> MadeUpRun:
    """A run that removed 2 of 4 blocks, measured on four documents each of two tasks."""
    made = MadeUpRun(make_recipe({"model": "org/whole", **recipe}), num_blocks=4, loader=loader)
    made.sizes = {
        "original": Size(blocks=4, parameters=1000, bytes=4000),
        "avss": Size(blocks=2, parameters=600, bytes=2400),
    }
    made.importance = {"avss": Importance([0.1, 0.4, 0.2, 0.3])}
    made.plans = {"avss": PrunePlan(num_blocks=4, blocks=[2, 0], scorer="avss", pruner="lowest", nested=True)}
    accuracies = {"original": (1.0, 1.0, 1.0, 0.0), "avss": (1.0, 1.0, 0.0, 0.0)}
    losses = {"original": (-8.0, -6.0, -9.0, -7.0), "avss": (-10.0, -9.0, -9.0, -8.0)}
    for label, documents in accuracies.items():
        value = sum(documents) / 4
        known = Likelihood(losses[label], (4.0,) * 4, (-16.0,) * 4)
        perplexity = known.metric(known.loss)
        made.metrics[label] = [
            Metric("mood", "acc", value, 0.25, documents=documents, floor=0.0),
            Metric("wiki", "word_perplexity", perplexity, 0.5, higher_is_better=False, likelihood=known),
        ]
    return made


def loaded(card: str, tmp_path: Path) -> Any:
    """The metadata, as huggingface_hub reads them from the file; no network is needed for that."""
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    return ModelCard.load(tmp_path / "README.md").data


def body(card: str) -> str:
    """The text below the metadata."""
    return ModelCard(card).text


# The metadata


def test_the_hub_reads_what_the_checkpoint_is(tmp_path: Path) -> None:
    origin = Origin("org/whole", ("org/whole",), "apache-2.0")
    data = loaded(model_card(report().results(), "avss", origin), tmp_path)
    assert data.base_model == "org/whole"
    assert data["base_model_relation"] == "finetune"
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "apache-2.0")
    assert data.tags == ["layerimp", "pruned", "depth-pruning", "avss"]
    assert {"license_name", "license_link", "model_name"}.isdisjoint(data.to_dict())


def test_the_hub_reads_what_was_measured(tmp_path: Path) -> None:
    made = report(limit=4, num_fewshot=2)
    data = loaded(model_card(made.results(), "avss", Origin("org/whole", ("org/whole",))), tmp_path)
    accuracy, perplexity = data.eval_results
    assert data.model_name == "whole-avss"
    assert (accuracy.task_type, accuracy.dataset_type, accuracy.dataset_name) == ("text-generation", "mood", "mood")
    assert (accuracy.metric_type, accuracy.metric_name, accuracy.metric_value) == ("accuracy", "acc", 0.5)
    given = dict(accuracy.metric_args)
    assert given.pop("retained") == pytest.approx(2 / 3)
    assert 0 < given.pop("retained_stderr") < 1
    assert given == {
        "documents": 4, "stderr": 0.25, "higher_is_better": True, "intact": 0.75, "intact_stderr": 0.25,
        "num_fewshot": 2, "limit": 4,
    }  # fmt: skip
    assert (perplexity.metric_type, perplexity.metric_name) == ("perplexity", "word_perplexity")
    assert perplexity.metric_value == pytest.approx(math.exp(36 / 16))
    assert perplexity.metric_args["retained"] == pytest.approx((64 - 36) / (64 - 30))


def test_the_metadata_survive_a_round_trip(tmp_path: Path) -> None:
    card = model_card(
        report().results(), "avss", Origin("org/whole", ("org/whole", "org/other"), "other", "mine", "LICENSE")
    )
    assert loaded(card, tmp_path).base_model == ["org/whole", "org/other"]
    assert str(ModelCard(card)) == card
    ModelCard(card).save(tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text() == card


@pytest.mark.parametrize(
    ("loader", "pipeline"),
    [
        ("AutoModelForCausalLM", "text-generation"),
        ("AutoModelForSequenceClassification", "text-classification"),
        ("AutoModelForMaskedLM", "fill-mask"),
        ("AutoModel", "feature-extraction"),
    ],
)
def test_the_pipeline_follows_from_the_class(loader: str, pipeline: str, tmp_path: Path) -> None:
    card = model_card(report(loader).results(), "avss")
    data = loaded(card, tmp_path)
    assert {data.pipeline_tag, *(result.task_type for result in data.eval_results)} == {pipeline}
    assert f"model = {loader}.from_pretrained(path)" in card


def test_without_measurements_there_are_no_results(tmp_path: Path) -> None:
    made = report()
    made.metrics = {}
    data = loaded(model_card(made.results(), "avss"), tmp_path)
    assert data.eval_results is None
    assert {"model-index", "model_name", "base_model", "base_model_relation"}.isdisjoint(data.to_dict())


def test_numbers_that_json_does_not_have_are_left_out(tmp_path: Path) -> None:
    """The Hub turns metadata into JSON; the table in the text has them."""
    made = report()
    made.metrics["avss"] = [
        Metric("mood", "acc", 0.5, math.inf),
        Metric("wiki", "word_perplexity", math.inf, higher_is_better=False),
    ]
    made.metrics["original"][0] = replace(made.metrics["original"][0], stderr=math.nan)
    card = model_card(made.results(), "avss")
    data = loaded(card, tmp_path)
    assert [result.dataset_name for result in data.eval_results] == ["mood"]
    json.dumps(data.to_dict(), allow_nan=False)
    assert "| ∞ |" in card


# The text


def test_the_text_says_what_is_retained_with_its_error() -> None:
    text = body(model_card(report().results(), "avss", Origin("org/whole")))
    assert re.search(r"\| mood \| acc \| 4 \| 0.7500 ± 0.25 \| 0.5000 ± 0.25 \| 66.7% ± \d+\.\d% \|", text)
    assert "# org/whole, 2 of 4 blocks removed" in text


def test_the_text_holds_the_plan_the_recipe_and_the_commands() -> None:
    made = report(ratio=0.5, scorers=["avss"], tasks=["mood"], output="/home/me/out", device="cpu", seed=3)
    plan, prune, recipe, run = [code for language, code in FENCE.findall(model_card(made.results(), "avss"))[1:]]
    assert PrunePlan(**json.loads(plan)) == made.plans["avss"].model_copy(update={"model": "org/whole"})
    assert prune == "layerimp prune --model org/whole --plan plan.json --output out\n"
    assert run == "layerimp run --recipe recipe.json --output out\n"
    again = make_recipe(json.loads(recipe))
    assert again == made.recipe.model_copy(update={"output": None, "device": None})


def test_a_plan_that_was_given_has_no_recipe() -> None:
    made = report()
    made.importance = {}
    text = body(model_card(made.results(), "avss", command="prune"))
    assert "recipe" not in text
    assert [language for language, _ in FENCE.findall(text)] == ["python", "json", "bash"]


def test_no_folder_of_this_machine_is_told() -> None:
    places = {"model": "/home/my name/m", "task_path": "/srv/tasks", "data_dir": "/srv/d"}
    made = report(**places, calibration={"source": "/home/my name/text.jsonl"}, tasks=["/home/me/mood.yaml"])
    made.calibration = Calibration(source="/home/my name/text.jsonl", rows=1, tokens=2, fingerprint="a")
    plan = made.plans["avss"]
    made.plans["avss"] = plan.model_copy(update={"model": "/home/my name/m", "reason": "as /home/me/notes.txt says"})
    card = model_card(made.results(), "avss")
    assert not re.search("home|/srv|my name", card)
    assert "- **Source:** m\n" in card
    assert "tokens of text.jsonl" in card
    assert '"reason": "as notes.txt says"' in card


def tokens(text: str) -> list[Any]:
    """What Markdown makes of a text, with all that stands within lines."""
    blocks = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [token for block in blocks for token in (block, *(block.children or ()))]


@pytest.mark.parametrize("evil", [EVIL, "```\n<img src=x>", "---\nlicense: mit\n---", "a'b\"c; rm -rf /"])
def test_nothing_from_outside_is_more_than_text(evil: str, tmp_path: Path) -> None:
    made, usual = report(), report()
    made.calibration = Calibration(source=evil, rows=1, tokens=2, fingerprint="a")
    given = {"scorer": evil, "pruner": evil, "reason": evil, "model": evil}
    made.plans = {"avss": made.plans["avss"].model_copy(update=given)}
    made.metrics = {
        label: [replace(metric, task=evil, name=evil) if metric.task == "mood" else metric for metric in metrics]
        for label, metrics in made.metrics.items()
    }
    card = model_card(made.results(), "avss", Origin(evil, (), evil, evil, evil))
    data = loaded(card, tmp_path)
    assert data.tags == ["layerimp", "pruned", "depth-pruning"]
    assert (data.license, data.eval_results[0].dataset_name, data.eval_results[0].metric_name) == (evil,) * 3
    hostile, expected = tokens(body(card)), tokens(body(model_card(usual.results(), "avss")))
    plain = {"text", "text_special", "softbreak"}
    kinds = [
        token.type
        for token in hostile
        if token.type not in plain and "item" not in token.type and "para" not in token.type
    ]
    assert set(kinds) <= {token.type for token in expected} | {"bullet_list_open", "bullet_list_close"}
    assert [token.content for token in hostile if token.type == "fence"][0::4] == [
        token.content for token in expected if token.type == "fence"
    ][0::4]
    assert kinds.count("heading_open") == 4
    plan, prune = FENCE.findall(card)[1:3]
    assert json.loads(plan[1])["scorer"] == json.loads(plan[1])["pruner"] == evil
    assert shlex.split(prune[1])[3] == " ".join(evil.split())
    assert not re.search(r"(?<!\\)<(?!https)\w", FENCE.sub("", body(card)))


def test_a_healed_model_of_a_run_says_so(tmp_path: Path) -> None:
    made = report(healers={"fit": {"name": "linear"}})
    losses = {"intact": 1.0, "pruned": 2.0, "healed": 1.5}
    made.healed = {"avss+fit": repaired(losses, 0.5)}
    made.sizes["avss+fit"] = made.sizes["avss"]
    made.metrics["avss+fit"] = made.metrics["avss"]
    card = model_card(made.results(), "avss+fit")
    assert loaded(card, tmp_path).tags == ["layerimp", "pruned", "depth-pruning", "avss", "healed", "linear"]
    assert f"- **Healed:** by fit (); {escaped(recovery(losses, {}, 0.5))}\n" in card
    assert "| source | healed | retained |" in card


# Healed checkpoints


def healed(before: str, origin: Origin, **recipe: Any) -> str:
    """The card of a checkpoint that was healed with a changed option."""
    healer: Any = create("healer", "linear", {"ridges": [0.5]})
    done = repaired({"intact": 1.0, "pruned": 2.0, "healed": 1.5}, 0.5)
    report = HealingReport(
        **dict(done),
        model="/home/me/out/avss",
        teacher="whole",
        removed=[0, 2],
        healer="linear",
        options={},
        calibration=Calibration(source="/home/me/t.jsonl", rows=10, tokens=1234, fingerprint="abc"),
        changed=[],
        output="/home/me/healed",
    )
    asked = make_recipe({"model": "/home/me/out/avss", "calibration": {"source": "/home/me/t.jsonl"}, **recipe})
    return healed_card(before, HealedCheckpoint(origin, "AutoModelForCausalLM", asked, healer, report))


def test_the_card_of_a_healed_checkpoint_goes_on_from_the_pruned_one(tmp_path: Path) -> None:
    origin = Origin("org/whole", ("org/whole",), "mit")
    before = model_card(report().results(), "avss", origin)
    card = healed(before, origin, seed=7)
    data = loaded(card, tmp_path)
    assert data.tags == ["layerimp", "pruned", "depth-pruning", "avss", "healed", "linear"]
    assert (data.base_model, data["base_model_relation"], data.license) == ("org/whole", "finetune", "mit")
    assert data.eval_results is None, "the results are those of the pruned model"
    summary, _, rest = body(before).partition("## Results\n")
    assert body(card).startswith(summary)
    assert body(card).endswith(f"## Results before healing by linear\n{rest}"), "and nothing else has changed"
    came_back = recovery({"intact": 1.0, "pruned": 2.0, "healed": 1.5}, None, 0.5)
    assert f"- **Recovered:** {escaped(came_back)}\n" in card
    (_, command) = FENCE.findall(card)[0]
    assert shlex.split(command) == [
        *"layerimp heal --model avss --healer linear --calibration t.jsonl --seed 7".split(),
        *("--set", "linear.ridges=[0.5]", "--output", "out"),
    ]
    assert "/home" not in card


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("", "# A pruned model\n"),
        ("no metadata\n", "no metadata\n"),
        ("---\n: [\n---\ntext\n", "text\n"),
        ("---\n- a list\n---\n", "# A pruned model\n"),
        ("---\ntags: layerimp\n---\n# Mine\n", "# Mine\n"),
    ],
)
def test_any_card_can_be_gone_on_from(before: str, kept: str, tmp_path: Path) -> None:
    card = healed(before, Origin("whole"))
    assert loaded(card, tmp_path).tags == ["layerimp", "pruned", "depth-pruning", "healed", "linear"]
    assert body(card).lstrip().startswith(kept)
    assert card.count("## Healed by linear\n") == 1


def test_healing_twice_is_told_twice_the_last_first() -> None:
    """Each section is above the card that it is about, so that its words stay true."""
    card = healed(healed(model_card(report().results(), "avss"), Origin("whole")), Origin("whole"))
    first, second = (heading.start() for heading in re.finditer("^## Healed by linear$", card, re.MULTILINE))
    assert first < second < card.index("## Results before healing by linear\n")
    assert "## Results\n" not in card


# On disk


def test_what_the_card_of_a_run_says_makes_the_checkpoint_again(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both commands of a card, in a folder where the model and the text have the names that the card gives them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / calibration_file.name).symlink_to(calibration_file)
    whole = shutil.copytree(model_dir, tmp_path / "whole")
    (whole / "LICENSE.txt").write_text("Do as you like.")
    said = {"license": "other", "license_name": "mine", "license_link": "LICENSE.txt", "base_model": "org/base"}
    (whole / "README.md").write_text(f"---\n{yaml.safe_dump(said)}---\n# Whole\n")
    asked = ["--calibration", calibration_file, "--samples", 4, "--max-length", 16, "--count", 1, "--tasks", "none"]
    code, _, err = layerimp_command("run", "--model", whole, "--scorer", "avss", *asked, "--output", tmp_path / "first")
    assert code == 0, err
    first = tmp_path / "first" / "checkpoints" / "avss"
    card = (first / "README.md").read_text()
    data = ModelCard.load(first / "README.md").data
    assert (data.base_model, data.license, data.license_link) == ("org/base", "other", "LICENSE.txt")
    assert (first / "LICENSE.txt").read_text() == "Do as you like."
    assert str(tmp_path) not in card
    assert str(calibration_file) not in card
    _, (_, plan), (_, prune), (_, recipe), (_, run) = FENCE.findall(card)
    (tmp_path / "plan.json").write_text(plan)
    (tmp_path / "recipe.json").write_text(recipe)
    weights = AutoModelForCausalLM.from_pretrained(first).state_dict()
    for command in (prune, run):
        words = shlex.split(command)
        out = tmp_path / words[1]
        code, _, err = layerimp_command(*words[1:-1], out)
        assert code == 0, err
        again = AutoModelForCausalLM.from_pretrained(out / "checkpoints" / "avss").state_dict()
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[name], weights[name]) for name in weights)
