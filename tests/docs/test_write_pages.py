"""The folder of pages from which a site generator builds the site: complete, plain Markdown, and kept current."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

import markdown
import notebooks
import pages
import pytest
import write_pages
from mathml import with_mathml

DOCS = pages.ROOT / "docs"
CODE = "```bash\nls $HOME $PATH\n```\n"


@pytest.fixture(scope="module")
def written() -> dict[Path, str]:
    return {path: content.decode(errors="replace") for path, content in write_pages.contents().items()}


def test_the_folder_has_every_page_where_its_source_is(written: dict[Path, str]) -> None:
    sources = {page.relative_to(DOCS) for page in pages.pages()[1:]}
    own = {notebook.relative_to(DOCS) for notebook in notebooks.notebooks()}
    assert own
    sources |= {notebook.with_suffix(".md") for notebook in own}
    assert {path for path in written if path.suffix == ".md"} == sources
    others = {Path("stylesheets/extra.css"), Path("javascripts/whole.js"), Path("measure/report-page.webp")}
    assert written.keys() == sources | own | others


def test_nothing_is_left_for_a_site_generator_to_fill_in(written: dict[Path, str]) -> None:
    for path, text in written.items():
        assert "<!-- generated" not in text
        assert path.suffix != ".md" or "$" not in markdown_without_code(text), path
    assert (pages.ROOT / "CHANGELOG.md").read_text() == written[Path("reference/changelog.md")].removesuffix("\n")
    assert "| `--ratio X`" in written[Path("reference/cli.md")]
    assert "<svg" in written[Path("choose/first-blocks.md")]
    settings = (pages.ROOT / "mkdocs.yml").read_text()
    assert f"docs_dir: {write_pages.WRITTEN.relative_to(pages.ROOT)}\n" in settings
    assert "\nhooks:" not in settings


def markdown_without_code(text: str) -> str:
    return "".join(pages.FENCE.sub("", text).split("`")[::2])


def test_only_what_changed_is_written_and_what_is_gone_goes(tmp_path: Path) -> None:
    files = {Path("a.md"): b"a", Path("b/c.md"): b"c", Path("b/d.md"): b"d"}
    write_pages.write(tmp_path, files)
    for path in files:
        os.utime(tmp_path / path, (0, 0))
    del files[Path("b/d.md")]
    write_pages.write(tmp_path, files | {Path("a.md"): b"new"})
    times = {str(path.relative_to(tmp_path)): path.stat().st_mtime for path in tmp_path.rglob("*.md")}
    assert times.keys() == {"a.md", "b/c.md"}
    assert times["b/c.md"] == 0 < times["a.md"]
    assert (tmp_path / "a.md").read_text() == "new"


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("<!-- generated: weather -->", "KeyError: 'weather'"),
        ("<!-- generated: options scorer nosuch -->", "nosuch"),
        ("it costs $5", "'\\$5' has no end"),
    ],
    ids=["kind", "name", "formula"],
)
def test_a_page_that_cannot_be_written_is_named(
    text: str, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_pages, "SOURCE", tmp_path / "docs")
    (tmp_path / "docs" / "shrink").mkdir(parents=True)
    (tmp_path / "docs" / "shrink" / "page.md").write_text(text)
    with pytest.raises(ValueError, match=f"^docs/shrink/page.md: .*{trouble}"):
        write_pages.contents()


def test_formulas_become_mathml_and_code_stays() -> None:
    page = with_mathml(f"a $S_l < 1$ and `$HOME`, ``a ` $b``, \\$5\n\n{CODE}\n$$\n\\frac{{a}}{{b}}\n$$\n\n{CODE}")
    assert page.count("<math") == 2
    assert '<span class="formula"><math' in page
    assert '\n<div class="formula"><math' in page
    assert "<mfrac>" in page
    assert "`$HOME`, ``a ` $b``, \\$5" in page
    assert page.count(CODE) == 2


def test_markdown_leaves_a_formula_as_it_is() -> None:
    text = "| a |\n|---|\n| $\\text{a_b_c} * [x](y) * \\lvert z \\rvert$ |\n"
    page = html.unescape(markdown.markdown(with_mathml(text), extensions=["tables"]))
    assert "<mtext>a_b_c</mtext>" in page
    assert page.count("<td>") == 1
    assert "<em>" not in page
    assert "<a " not in page


@pytest.mark.parametrize(
    ("formula", "trouble"),
    [
        (r"$\begin{nosuch} a & b \end{nosuch}$", "nosuch"),
        ("$a + b\n\nand then $c$", r"'\$a \+ b' has no end"),
        ("$$\na + b\n\n$$", r"'\$\$' has no end"),
    ],
    ids=["unknown", "inline", "paragraph"],
)
def test_what_is_no_formula_is_refused(formula: str, trouble: str) -> None:
    with pytest.raises(ValueError, match=trouble):
        with_mathml(formula)


SHOWN = """
<article class="md-typeset"><p><code>--max-length</code> <code>--scorer gbis --scorer lrp --scorer cim</code></p>
<table><tr><td>97.9% ± 0.7% (0.6%)</td><td>the error, ± as everywhere, is a standard error</td></tr></table>
<div class="language-bash">
<pre><code>layerimp run<span class="w"> </span>--max-length 3 --ratio 0.5 a-b</code></pre>
</div>
"""


def test_what_is_short_stays_whole(browser: Any) -> None:
    page = browser.new_page()
    page.set_content(SHOWN)
    before = page.inner_text("pre")
    page.add_script_tag(path=DOCS / "javascripts" / "whole.js")
    whole = page.evaluate("[...document.querySelectorAll('.whole')].map(element => element.textContent)")
    assert whole == ["--max-length", "97.9% ± 0.7% (0.6%)", "--max-length", "--ratio"]
    assert page.inner_text("pre") == before
