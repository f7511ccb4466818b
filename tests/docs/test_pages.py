"""Every code block of the README and the docs runs, shown outputs are current, and nothing is undocumented."""

from __future__ import annotations

import copy
import importlib
import re
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import documents
import layerimp_step
import notebooks
import pages
import pytest
import reference
import regenerate
import torch
import yaml
from peft import LoraConfig, get_peft_model
from support.fake_plugins import Install
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import layerimp
from layerimp import hookspecs
from layerimp.registry import catalog
from layerimp.registry.catalog import Registry, registry
from layerimp.registry.loader import PluginHost

ROOT = pages.ROOT
DOCS = ROOT / "docs"
PAGES = pages.pages()
README = ROOT / "README.md"
LONG = frozenset(
    """
    README.md
    docs/choose/compare-scorers.md
    docs/choose/first-blocks.md
    docs/choose/run-a-grid.md
    docs/choose/scorers.md
    docs/measure/compare-models.md
    docs/measure/lm-eval.md
    docs/measure/read-a-report.md
    docs/reference/python.md
    docs/reference/starter.md
    docs/repair/healers.md
    docs/repair/index.md
    docs/ship/coming-from.md
    docs/ship/index.md
    docs/shrink/first-run.md
    docs/shrink/huge-models.md
    docs/shrink/prune-your-model.md
    docs/shrink/size-or-quality.md
    docs/shrink/when-it-fails.md
    """.split()
)
"""Pages that take more than three seconds; CI runs them with the slow tests."""
LONG_COMMANDS = re.compile(r"^layerimp (?:run|heal|bench) .*\n", re.MULTILINE)
"""The commands of the README that make it long; its other commands are quick and need none of these."""
FOLLOWED_ELSEWHERE = {"docs/extend/index.md", "docs/index.md"}
"""Pages whose commands need what they install, see test_third_party.py, or are those of the README."""
BEGIN_EMPTY = {
    "README.md",
    "docs/shrink/first-run.md",
    "docs/shrink/prune-your-model.md",
    "docs/measure/read-a-report.md",
}
"""Pages that make all the files that they need."""
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LANGUAGES = {"bash", "python", "text", "toml", "yaml", "json"}
FOREIGN = {
    "--no-deps",
    "--prune-layers",
    "--no-build-isolation",
    "--output",
    "--help",
    "--version",
    "--install-completion",
    "--exclude",
    "--only",
}
"""Options on pages that belong to other tools, or to layerimp itself rather than to a command."""


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the metrics of intact models are kept, for all pages."""
    return tmp_path_factory.mktemp("docs-cache")


@pytest.fixture
def workshop(
    tmp_path: Path, model_dir: Path, calibration_file: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> pages.Workshop:
    """The folder that pages assume: my-model, text.jsonl and mood.yaml."""
    shutil.copytree(model_dir, tmp_path / "my-model")
    lines = calibration_file.read_text().splitlines()
    (tmp_path / "text.jsonl").write_text("\n".join(lines * 40))  # enough for the defaults
    own_tasks = pages.blocks((DOCS / "measure" / "own-tasks.md").read_text())
    (tmp_path / "mood.yaml").write_text(next(block.code for block in own_tasks if block.title == "mood.yaml"))
    (tmp_path / "docs.jsonl").write_text(
        "\n".join(f'{{"text": "the cat was {word}", "label": {i % 2}}}' for i, word in enumerate(["big", "small"] * 4))
    )
    monkeypatch.setenv("LAYERIMP_CACHE", str(shared_cache))
    return pages.Workshop(tmp_path)


def unusual_models(folder: Path) -> None:
    """The inputs of shrink/unusual-models.md: a model that also reads images, and an adapter."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_pretrained(folder / "my-model")
    sight = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=4, patch_size=2
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "my-model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words = copy.deepcopy(plain.config)
    words.vocab_size = len(tokenizer)
    both = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=sight, text_config=words, image_token_index=len(tokenizer) - 1)
    )
    both.save_pretrained(folder / "my-image-model")
    tokenizer.save_pretrained(folder / "my-image-model")
    changes = LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(plain, changes).save_pretrained(folder / "my-adapter")


@pytest.fixture
def empty(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> pages.Workshop:
    """The pages where a newcomer begins."""
    monkeypatch.setenv("LAYERIMP_CACHE", str(shared_cache))
    return pages.Workshop(tmp_path)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name, marks=[pytest.mark.slow] * (name in LONG))
        for page, name in zip(PAGES, NAMES, strict=True)
    ],
)
def test_code_blocks_run(page: Path, request: pytest.FixtureRequest) -> None:
    name = str(page.relative_to(ROOT))
    if name in FOLLOWED_ELSEWHERE:
        return
    folder: pages.Workshop = request.getfixturevalue("empty" if name in BEGIN_EMPTY else "workshop")
    if page.name == "unusual-models.md":
        unusual_models(folder.folder)
    follow(page, page.read_text(), folder)


def test_the_readme_runs_without_its_long_commands(empty: pages.Workshop) -> None:
    text, left_out = LONG_COMMANDS.subn("", README.read_text())
    assert left_out
    follow(README, text, empty)


def follow(page: Path, text: str, folder: pages.Workshop) -> None:
    """Run the blocks of a page, and compare the outputs that it shows."""
    printed = command = ""
    for block in pages.blocks(text):
        assert block.language in LANGUAGES, f"a block in {block.language!r} that nothing checks"
        if block.language == "yaml":
            list(yaml.safe_load_all(block.code))
        if block.title == pages.OUTPUT:
            assert pages.same(block.code, printed, command), (
                f"python docs/tools/regenerate.py {page} brings up to date:\n{printed}"
            )
        printed, command = (folder.run(block) if block.runs else ""), block.code


def test_the_home_page_shows_what_the_readme_shows() -> None:
    home, readme = (pages.blocks(page.read_text()) for page in (DOCS / "index.md", README))
    assert [block for block in readme if block in home] == home


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_options_exist(page: Path) -> None:
    text = reference.expanded(page.read_text())
    assert text.count("```") == 2 * len(pages.blocks(text)), "a block that nothing checks"
    commands = reference.commands()
    for block in pages.blocks(text):
        usage = block.code.startswith("layerimp ") and "[OPTIONS]" in block.code
        for name, *arguments in [] if usage else pages.command_lines(block.code):
            with commands[name].make_context(name, arguments):
                pass
    params = [parameter for command in commands.values() for parameter in command.params]
    known = {option for parameter in params for option in (*parameter.opts, *parameter.secondary_opts)} | FOREIGN
    for span in re.findall(r"`([^`\n]+)`", pages.FENCE.sub("", text)):
        if span.startswith(("--", "layerimp ")):
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", span)) <= known, span


def test_a_command_that_does_not_exist_is_found(tmp_path: Path) -> None:
    (line,) = pages.command_lines("srun layerimp run --scorer avss --colour red \\\n  --ratio 0.5\n")
    assert line == ["run", "--scorer", "avss", "--colour", "red", "--ratio", "0.5"]
    with pytest.raises(Exception, match="--colour"):
        reference.commands()["run"].make_context("run", line[1:])
    with pytest.raises(AssertionError, match="--colour"):
        pages.Workshop(tmp_path).run(pages.Block("bash", "", "layerimp run --colour red\n"))


def test_blocks_run_as_in_a_shell(tmp_path: Path) -> None:
    folder = pages.Workshop(tmp_path)
    assert (
        folder.run(pages.Block("bash", "", "export A=1\nlayerimp --version\n")) == f"layerimp {layerimp.__version__}\n"
    )
    assert folder.run(pages.Block("bash", "", "layerimp --version | tr a-z A-Z\n")).startswith("LAYERIMP")
    assert folder.run(pages.Block("bash", "", "layerimp --version > version.txt\n")) == ""
    assert (tmp_path / "version.txt").read_text() == f"layerimp {layerimp.__version__}\n"
    folder.run(pages.Block("yaml", "a.yaml", "a: 1\n"))
    folder.run(pages.Block("python", "", "from pathlib import Path\ntext = Path('a.yaml').read_text()"))
    assert folder.run(pages.Block("python", "", "print(text)")).strip() == "a: 1"
    with pytest.raises(AssertionError):
        folder.run(pages.Block("bash", "", "ls nowhere | cat; false\n"))


@pytest.mark.parametrize(
    ("score", "accuracy", "limit", "expected"),
    [
        ("0.0187", "0.7063", "", True),
        ("0.01869", "0.7063", "", True),  # the last digit
        ("0.01871", "0.7063", "", True),
        ("0.01872", "0.7063", "", False),
        ("0.0187", "0.7094", "", True),  # one document of 320
        ("0.0187", "0.7125", "", True),  # two
        ("0.0187", "0.7157", "", False),  # three
        ("0.0187", "0.7313", "", False),
        ("0.0187", "0.7313", "--limit 40", True),  # one of 40
        ("0.0187", "0.7813", "--limit 40", False),  # three of 40
        ("0.0187", "1.7063", "--limit 1", False),
    ],
)
def test_outputs_are_compared_but_for_rounding_times_and_documents_that_tip_over(
    score: str, accuracy: str, limit: str, expected: bool
) -> None:
    text = (
        "avss: importance of 2 blocks\n\n  0  {}  ✗ 1st\n\n"
        "footprint\n\n  model  latency\n  a      {}\n\ncomparison, 1 of 2\n"
        "\n  avss  {} *  ± 0.01  2.281  1,031\n"
    )
    assert pages.same(text.format("0.0187", 8.2, "0.7063"), text.format(score, 9.9, accuracy), limit) == expected
    assert not pages.same(text, text.replace("1st", "2nd"))
    assert not pages.same(text, text.replace("2.281", "2.283"))
    assert not pages.same(text, text.replace("1,031", "1,032"))
    assert not pages.same(text, text + "more\n")


def test_axes_may_be_drawn_otherwise_and_numbers_may_not() -> None:
    text = "s: importance of 2 blocks\n  block  score  removed\n      0  {}  ✗ 1st\n\nretained {}\n"
    shown = text.format("0.0187", "···├─●─┤·")
    assert pages.same(shown, text.format("0.0187", "··├──●─┤·"))
    assert not pages.same(shown, text.format("0.0197", "···├─●─┤·"))


def test_generated_text_and_the_numbers_of_fidelity_may_differ_and_what_stands_beside_them_may_not() -> None:
    shown = (
        "fidelity: how far\n\n  model  divergence  empty\n  a      0.7019      0.0%\n         ± 0.05\n\n"
        "a: divergence 0.7, loops 0.0%\n\nprompt: Ann\noriginal: a cat\na: a dog\n\nprompt: Bob\na: ran\n\nrows 12\n"
    )
    assert pages.same(shown, shown.replace("0.7", "0.9").replace("a dog", "a dog and a cat"))
    assert not pages.same(shown, shown.replace("empty", "loops"))
    assert not pages.same(shown, shown.replace("rows 12", "rows 13"))


def test_outputs_are_regenerated(tmp_path: Path) -> None:
    page = 'a\n\n```bash\nlayerimp --version\n```\n\n```text title="Output"\nlayerimp 7\n```\n\nb\n'
    assert regenerate.current(page, tmp_path) == page.replace("layerimp 7", f"layerimp {layerimp.__version__}")


def test_every_component_has_its_place_and_its_options_are_described() -> None:
    for kind, overview in reference.KINDS.items():
        listed = reference.expanded(f"<!-- generated: components {kind} -->")
        assert f"<!-- generated: components {kind} -->" in (DOCS / overview).read_text()
        for name in reference.shipped(kind):
            assert f"`{name}`" in listed
            page = ((DOCS / overview).parent / reference.page_of(kind, name).split("#")[0]).read_text()
            table = reference.expanded(
                next(
                    directive[0]
                    for directive in reference.DIRECTIVE.finditer(page)
                    if directive[2].split() == [kind, name]
                )
            )
            for option, field in registry().get(kind, name).Config.model_fields.items():
                assert f"| `{option}` |" in table
                assert field.description, f"{option} of {name}"


def test_other_peoples_plugins_are_not_asked_to_have_a_page(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = install("theirs", layerimp_scorers=lambda: [type("Theirs", (layerimp_step.Step,), {"name": "theirs"})])
    with_theirs = Registry(PluginHost([*entry_points(group="layerimp"), theirs]))
    assert "theirs" in with_theirs.names("scorer")
    monkeypatch.setattr(catalog, "registry", lambda: with_theirs)
    listed = reference.expanded("<!-- generated: components scorer -->")
    assert "`avss`" in listed
    assert "theirs" not in listed


def test_every_command_and_option_has_its_place() -> None:
    text = (DOCS / "reference" / "cli.md").read_text()
    for name, command in reference.commands().items():
        assert f"<!-- generated: command {name} -->" in text
        table = reference.expanded(f"<!-- generated: command {name} -->")
        for parameter in command.params:
            assert parameter.help, f"{parameter.name} of {name}"
            argument = parameter.metavar or parameter.name.upper()
            option = parameter.opts[0] if parameter.param_type_name == "option" else argument
            assert re.search(rf"^\| `\[?{re.escape(option)}(?!\w)", table, re.MULTILINE), option


def test_every_field_has_its_place() -> None:
    recipe, files = ((DOCS / "reference" / f"{name}.md").read_text() for name in ("recipe", "files"))
    for name, model in documents.described_models().items():
        assert f"<!-- generated: fields {name} -->" in recipe
        assert all(field.description for field in model.model_fields.values()), name
    shown = [directive for directive in reference.DIRECTIVE.finditer(files) if directive[1] == "documents"]
    names = [name for directive in shown for name in directive[2].split()]
    assert names == [name for name in documents.DOCUMENTS if name not in documents.SHOWN_ELSEWHERE]
    listed = "".join(reference.expanded(directive[0]) for directive in shown)
    for name in names:
        for part in documents.parts(documents.model_of(name)):
            assert part.__doc__
            assert all(field.description for field in part.model_fields.values()), part
            table = listed.partition(f"### {part.__name__} {{")[2].partition("###")[0]
            assert all(f"| `{field}` |" in table for field in part.model_fields), part


def test_every_module_has_its_layer() -> None:
    table = reference.expanded("<!-- generated: layers -->")
    for place in (ROOT / "layerimp").iterdir():
        if place.stem not in ("__init__", "__main__", "__pycache__", "py"):
            assert re.search(rf"^\| (– )?`{place.stem}` \| \S", table, re.MULTILINE), place


def test_every_public_name_and_hook_has_its_place() -> None:
    python, contracts = ((DOCS / name).read_text() for name in ("reference/python.md", "extend/plugins.md"))
    for name in layerimp.__all__:
        assert re.search(rf"^::: layerimp\.{name}$", python, re.MULTILINE), name
        assert getattr(layerimp, name).__doc__, name
    hooks = {name for name in vars(hookspecs) if name.startswith("layerimp_")}
    writing = (DOCS / "extend" / "write-a-plugin.md").read_text()
    for hook in hooks:
        assert f"::: layerimp.hookspecs.{hook}\n" in contracts
        assert getattr(hookspecs, hook).__doc__
        assert hook in writing


def test_every_name_that_is_documented_exists() -> None:
    for page in PAGES:
        for dotted in re.findall(r"^::: (layerimp\S*)$", page.read_text(), re.MULTILINE):
            module, _, name = dotted.rpartition(".")
            assert hasattr(importlib.import_module(module), name), dotted


def test_the_menu_has_every_page_once() -> None:
    menu = re.findall(r"^ *- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    written = [*PAGES[1:], *(notebook.with_suffix(".md") for notebook in notebooks.notebooks())]
    assert sorted(menu) == sorted(str(page.relative_to(DOCS)) for page in written)


def test_nothing_is_fetched_from_elsewhere() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in settings
    for source in [*DOCS.rglob("*.css"), *DOCS.rglob("*.js")]:
        assert "http" not in source.read_text()
