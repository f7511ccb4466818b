"""Formulas as MathML, which browsers show by themselves: no script, no font from elsewhere."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

_CODE = r"^```.*?^```$|(?P<ticks>`+)(?!`)(?:.(?!\n\n))+?(?<!`)(?P=ticks)(?!`)"
_FORMULA = r"(?:[^$\n]|\n(?!\n))+"
_PIECE = re.compile(
    rf"{_CODE}|^\$\$(?P<block>{_FORMULA})\$\$$|(?<!\\)\$(?P<inline>{_FORMULA})\$|(?P<stray>(?<!\\)\$.*$)",
    re.MULTILINE | re.DOTALL,
)
_MEANS_SOMETHING_IN_MARKDOWN = re.compile(r"[_*`|\[\]\\]")


def with_mathml(markdown: str) -> str:
    """A page with every formula, `$...$` in a line and `$$...$$` as a paragraph, put into MathML; code stays as it is.

    Raises:
        ValueError: a formula has no end, or has something that latex2mathml does not know.
    """
    return _PIECE.sub(_shown, markdown)


def _shown(match: re.Match[str]) -> str:
    if match["stray"]:
        raise ValueError(f"the formula {match['stray'].splitlines()[0]!r} has no end; a dollar is written \\$")
    if match["block"]:
        return f'<div class="formula">{_mathml(match["block"], "block")}</div>'
    if match["inline"]:
        return f'<span class="formula">{_mathml(match["inline"], "inline")}</span>'
    return match[0]


def _mathml(formula: str, display: str) -> str:
    made = convert(formula, display=display)
    if "<mi>&</mi>" in made or re.search(r"<m(?:i|text)>\\\\", made):
        raise ValueError(f"the formula {formula.strip()!r} has something that latex2mathml does not know")
    return _MEANS_SOMETHING_IN_MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", made)
