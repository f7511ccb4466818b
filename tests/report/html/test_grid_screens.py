"""The page of a grid on screens of all widths: all of it is shown, and nothing but code scrolls sideways."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.made_up_grids import found_of, pictures

from layerimp.report.html.page import page
from layerimp.report.results import Findings


@pytest.fixture(scope="module")
def found() -> Findings:
    return found_of(models=("tiny", "other"), fails="by lrp")


@pytest.fixture(scope="module")
def document(found: Findings) -> str:
    return page(found)


SHOWN = "[...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility())"
SCROLLS = """[...document.querySelectorAll('body, body *')].filter(e => {
    const box = e.getBoundingClientRect(), code = e.closest('pre, code, svg');
    const aside = box.right > innerWidth + 1 || box.left < -1;
    return !code && e.checkVisibility() && (aside || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0);
}).map(e => e.outerHTML.slice(0, 90))"""
CUT = f"""{SHOWN}.flatMap(s => {{
    const frame = s.getBoundingClientRect();
    return [...s.querySelectorAll('text')].filter(t => {{
        const b = t.getBoundingClientRect();
        return b.left < frame.left - 1 || b.right > frame.right + 1
            || b.top < frame.top - 1 || b.bottom > frame.bottom + 1;
    }}).map(t => t.textContent);
}})"""
SIZES = f"""{SHOWN}.map(s => {{
    const box = s.getBoundingClientRect();
    return {{top: box.top, width: box.width, height: box.height, scale: box.width / s.viewBox.baseVal.width}};
}})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_a_browser_shows_it(browser: Any, document: str, tmp_path: Path, width: int, scheme: str) -> None:
    (tmp_path / "report.html").write_text(document, encoding="utf-8")
    address = (tmp_path / "report.html").as_uri()
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, accept_downloads=True)
    shown, troubles, asked = context.new_page(), [], []
    shown.on("console", lambda message: troubles.append(message.text))
    shown.on("pageerror", lambda error: troubles.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(address)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate(SCROLLS) == []
    boxes = shown.evaluate(SIZES)
    assert len(boxes) == len(pictures(document))
    assert all(box["width"] > 200 and box["height"] > 80 and box["scale"] > 0.85 for box in boxes)
    assert shown.evaluate(CUT) == []
    ink = shown.evaluate(f"getComputedStyle({SHOWN}[0].querySelector('text')).fill")
    assert (sum(map(int, re.findall(r"\d+", ink))) > 380) == (scheme == "dark")
    with shown.expect_download() as download:
        shown.click("a[download='bench.csv']")
    assert download.value.suggested_filename == "bench.csv"
    context.close()
    assert troubles == []
    assert [url for url in asked if not url.startswith("data:")] == [address]


@pytest.fixture(scope="module")
def crowded() -> str:
    scorers = [f"scorer-{n}-with-a-rather-long-name" for n in range(6)]
    return page(found_of(scorers=scorers, num_blocks=40, healers=["linear", "rescale"], counts=(), repeats=1))


@pytest.fixture(scope="module")
def healed() -> str:
    return page(found_of(healers=["linear"], fails="healed by linear (seed 1)", repeats=2))


@pytest.mark.parametrize("which", ["document", "crowded", "healed"])
def test_nothing_scrolls_sideways_on_any_screen(browser: Any, which: str, request: pytest.FixtureRequest) -> None:
    shown = browser.new_page()
    shown.set_content(request.getfixturevalue(which))
    for width in (320, 390, 700, 1100, 1600):
        shown.set_viewport_size({"width": width, "height": 844})
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert (width, shown.evaluate(SCROLLS), shown.evaluate(CUT)) == (width, [], [])
    shown.close()


def test_the_legend_is_visible_on_a_phone(browser: Any, found: Findings, document: str) -> None:
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    shown.set_content(document)
    labels = (
        f"""[...{SHOWN}[0].querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect().toJSON()])"""
    )
    boxes = dict(shown.evaluate(labels))
    left, right = (boxes[label] for label in ("avss", "random"))
    for label in found.models["tiny"].headlines[-1].entries:
        assert 0 <= boxes[label]["left"] < boxes[label]["right"] <= 390
        assert boxes[label]["height"] >= 11
    assert left["top"] != right["top"] or left["left"] != right["left"]
    shown.close()


def test_a_wide_screen_is_used(browser: Any, document: str) -> None:
    shown = browser.new_page(viewport={"width": 1920, "height": 844})
    shown.set_content(document)
    tops = dict(shown.evaluate("[...document.querySelectorAll('h3')].map(e => [e.textContent, e.offsetTop])"))
    assert tops["What is retained"] == tops["How many blocks may go"] < tops["Importance of each block"]
    rights = "[...document.querySelectorAll('table, svg')].map(e => e.getBoundingClientRect().right)"
    assert max(shown.evaluate(rights)) > 0.9 * 1920
    measures = "e => e.clientWidth / parseFloat(getComputedStyle(e).fontSize)"
    widest = max(shown.evaluate(f"[...document.querySelectorAll('p, figcaption')].map({measures})"))
    assert widest < 46  # em, which is about 90 characters
    shown.close()
