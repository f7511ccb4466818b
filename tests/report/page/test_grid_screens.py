"""The page of a grid on screens of all widths: all of it is shown, and nothing but code scrolls sideways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.made_up_grids import found_of, pictures

from layerimp.report.document import Results
from layerimp.report.page import page

SCHEMES = ("light", "dark")
SHOWN = "[...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility())"
SCROLLS = """[...document.querySelectorAll('body, body *')].filter(e => {
    const box = e.getBoundingClientRect(), code = e.closest('pre, code, svg');
    const aside = box.right > innerWidth + 1 || box.left < -1;
    return !code && e.checkVisibility() && (aside || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0);
}).map(e => e.outerHTML.slice(0, 90))"""
TEXTS = f"""{SHOWN}.flatMap(s => {{
    const texts = [...s.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    return texts.filter(([_, a], n) => a.height < 11 || a.height > 28 || texts.slice(0, n).some(([_, b]) => over(a, b)))
        .map(([text]) => text);
}})"""
"""Numbers beside curves that are too small or too large, or cover each other."""
CELLS = """[...document.querySelectorAll('.cells')].flatMap(table => {
    const boxes = row => [...row.querySelectorAll('td')].map(cell => cell.getBoundingClientRect());
    const rows = [...table.tBodies[0].rows].map(boxes), names = [...table.tHead.querySelectorAll('th')];
    const shown = names.filter(name => name.checkVisibility()).map(name => {
        const range = document.createRange();
        range.selectNodeContents(name);
        return range.getBoundingClientRect();
    });
    const covered = shown.some((a, n) => n && shown[n - 1].right > a.left + 0.5 && shown[n - 1].bottom > a.top + 0.5);
    const apart = rows.some(row => row.some((cell, n) => Math.abs(cell.left - rows[0][n].left) > 0.5));
    const small = rows.some(row => row.some(cell => cell.width < 1.5 || cell.height < 12));
    const broken = table.matches('.numbered') && shown.some(a => a.height > 24);
    return covered || broken || apart || small || !shown.length ? [table.getAttribute('aria-label')] : [];
})"""
"""Tables of cells that cannot be seen, whose names are broken or cover each other, or whose columns are askew."""
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
    return {{width: box.width, height: box.height}};
}})"""


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (320, "light"),
        (1280, "dark"),
        *(pytest.param(width, scheme, marks=pytest.mark.slow) for width, scheme in product((390, 2560), SCHEMES)),
    ],
)
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
    assert all(box["width"] > 200 and box["height"] > 80 for box in boxes)
    assert shown.evaluate(CUT) == []
    assert shown.evaluate(TEXTS) == []
    assert shown.evaluate(CELLS) == []
    ink = shown.evaluate(f"getComputedStyle({SHOWN}[0].querySelector('text')).fill")
    assert (sum(map(int, re.findall(r"\d+", ink))) > 380) == (scheme == "dark")
    with shown.expect_download() as download:
        shown.click("a[download='results.csv']")
    assert download.value.suggested_filename == "results.csv"
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


@pytest.fixture(scope="module")
def deep() -> str:
    return page(found_of(scorers=("avss", "gbis"), num_blocks=120, pruners=("lowest", "greedy")))


@pytest.fixture(scope="module")
def shown(browser: Any, document: str) -> Iterator[Any]:
    """The page in a browser, laid out once; tests set the size of its window."""
    shown = browser.new_page()
    shown.set_content(document)
    yield shown
    shown.close()


def sized(shown: Any, width: int) -> Any:
    """Give a page a width, and return it."""
    shown.set_viewport_size({"width": width, "height": 844})
    return shown


@pytest.mark.parametrize(
    ("which", "widths"),
    [
        ("healed", (390, 1100)),
        *(
            pytest.param(which, (320, 390, 700, 1100, 1600, 2560), marks=pytest.mark.slow)
            for which in ("healed", "document", "crowded", "deep")
        ),
    ],
)
def test_nothing_scrolls_sideways_on_any_screen(
    browser: Any, which: str, widths: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    shown = browser.new_page()
    shown.set_content(request.getfixturevalue(which))
    for width in widths:
        shown.set_viewport_size({"width": width, "height": 844})
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert (width, shown.evaluate(SCROLLS), shown.evaluate(CUT)) == (width, [], [])
        assert (width, shown.evaluate(TEXTS), shown.evaluate(CELLS)) == (width, [], [])
    shown.close()


@pytest.mark.slow
@pytest.mark.parametrize("font", ["monospace", "DejaVu Sans", "serif"])
def test_it_fits_in_any_font(browser: Any, document: str, crowded: str, font: str) -> None:
    """Another machine has other fonts, some of them half as wide again."""
    shown = browser.new_page()
    for which in (document, crowded):
        shown.set_content(which.replace("--sans: system-ui", f"--sans: {font!r}" if " " in font else f"--sans: {font}"))
        for width in (320, 1280):
            shown.set_viewport_size({"width": width, "height": 844})
            assert (width, shown.evaluate(SCROLLS), shown.evaluate(CUT)) == (width, [], [])
            assert (width, shown.evaluate(TEXTS), shown.evaluate(CELLS)) == (width, [], [])
    shown.close()


def test_colours_have_words_and_roles(shown: Any) -> None:
    """What a screen reader reads of tables that are laid out as boxes: rows and columns with their names."""
    sized(shown, 390)
    table = shown.get_by_role("table", name="Rank agreement").first
    assert table.get_by_role("rowheader").all_inner_texts()[:2] == ["avss", "gbis"]
    assert table.get_by_role("columnheader").all_inner_texts()[:2] == ["avss", "gbis"]
    assert table.get_by_role("cell", name=re.compile("^avss and gbis: "), exact=False).count() == 0  # it has text
    assert re.fullmatch(r"0\.\d\d", table.get_by_role("row").nth(1).get_by_role("cell").first.inner_text())
    blocks = shown.get_by_role("table", name="Importance of each block").first
    assert blocks.get_by_role("cell", name=re.compile("^avss, block 3: score .*, rank")).count() == 1


def test_text_is_readable_on_every_ground(shown: Any) -> None:
    """The contrast of the text in coloured cells, as WCAG counts it, in light and dark."""
    texts = ".heat tbody td, .heat tbody td .under"
    script = """texts => [...document.querySelectorAll(texts)].filter(text => text.innerText.trim()).map(text => {
        const draw = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        const light = colour => {
            draw.fillStyle = colour;
            draw.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...draw.getImageData(0, 0, 1, 1).data].map(
                v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        };
        const ground = getComputedStyle(text.closest('td')).backgroundColor;
        const pair = [light(getComputedStyle(text).color), light(ground)];
        return Math.max(...pair) / Math.min(...pair);
    })"""
    sized(shown, 1280)
    for scheme in ("dark", "light"):
        shown.emulate_media(color_scheme=scheme)
        ratios = shown.evaluate(script, texts)
        assert len(ratios) > 50
        assert min(ratios) > 4.5


def test_it_can_be_printed(shown: Any) -> None:
    sized(shown, 720).emulate_media(media="print")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 720
    assert shown.evaluate("getComputedStyle(document.querySelector('.heat tbody td')).printColorAdjust") == "exact"
    assert not shown.locator("nav").is_visible()
    assert shown.evaluate(SCROLLS) == []
    shown.emulate_media(media="screen")


def test_the_legend_is_visible_on_a_phone(shown: Any, grid: Results) -> None:
    """The table beneath the curves is their legend: each name has a piece of its line, and its values."""
    names = sized(shown, 390).get_by_role("table", name="What is retained").first.get_by_role("rowheader")
    labels = names.all_inner_texts()
    assert {label.strip() for label in labels} == set(grid.models["tiny"].headlines[-1].entries)
    for name in names.all():
        box, piece = name.bounding_box(), name.locator("svg").bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390
        assert box["height"] >= 11
        assert piece["width"] > 20


def test_a_wide_screen_is_used(shown: Any) -> None:
    sized(shown, 2560)
    places = dict(
        shown.evaluate("[...document.querySelectorAll('h3')].reverse().map(e => [e.textContent, e.offsetLeft])")
    )
    columns = {places[title] for title in ("What is retained", "Importance of each block", "Stability", "Cost")}
    assert len(columns) >= 3
    rights = "[...document.querySelectorAll('table, svg')].map(e => e.getBoundingClientRect().right)"
    assert max(shown.evaluate(rights)) > 0.9 * 2560
    measures = "e => e.clientWidth / parseFloat(getComputedStyle(e).fontSize)"
    widest = max(shown.evaluate(f"[...document.querySelectorAll('p, figcaption')].map({measures})"))
    assert widest < 46  # em, which is about 90 characters
    sized(shown, 1280)
    places = dict(
        shown.evaluate("[...document.querySelectorAll('h3')].reverse().map(e => [e.textContent, e.offsetLeft])")
    )
    assert places["What is retained"] < 640 < places["Stability"]
