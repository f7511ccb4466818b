"""Comparing pictures that were drawn by matplotlib, whose versions differ by less than a pixel."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np


def drawing(svg: str) -> tuple[list[str], list[float]]:
    """The words of a picture, and all numbers that say where its words, lines and areas are."""
    parts = list(ElementTree.fromstring(svg.replace("xlink:href", "href")).iter())
    words = ["".join(part.itertext()) for part in parts if part.tag.rpartition("}")[2] == "text"]
    places = [part.get(name, "") for part in parts for name in ("d", "x", "y", "transform")]
    return words, [float(number) for place in places for number in re.findall(r"-?\d+\.?\d*", place)]


def alike(svg: str, other: str) -> bool:
    """Whether two pictures differ by less than a pixel."""
    (words, places), (others, further) = drawing(svg), drawing(other)
    return words == others and len(places) == len(further) and np.allclose(places, further, rtol=0, atol=0.6)
