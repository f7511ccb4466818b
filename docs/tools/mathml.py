"""Converts formulas to MathML, which browsers show without scripts or fonts."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def with_mathml(page: str) -> str:
    """Return a page's HTML with every formula marked by arithmatex converted to MathML."""
    return _FORMULA.sub(_mathml, page)


def _mathml(found: re.Match[str]) -> str:
    tag, bracket, formula = found.groups()
    made = convert(html.unescape(formula), display="block" if bracket == "[" else "inline")
    if "<mi>&</mi>" in made or re.search(r"<m(?:i|text)>\\\\", made):
        raise ValueError(f"the formula {formula.strip()!r} has something that latex2mathml does not know")
    return f'<{tag} class="formula">{made}</{tag}>'
