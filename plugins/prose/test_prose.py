"""The calibration text is there, whole, and old enough."""

from __future__ import annotations

import json
from collections import Counter

from layerimp.calibration import load_calibration
from layerimp.registry.assets import assets
from layerimp.testing import tiny_tokenizer

ROWS = [json.loads(line) for line in assets().texts["prose"].read_text(encoding="utf-8").splitlines()]


def test_every_book_has_its_passages_and_is_in_the_public_domain() -> None:
    assert Counter(Counter(row["work"] for row in ROWS).values()) == {7: 18}
    assert max(row["year"] for row in ROWS) < 1900
    assert len({row["text"] for row in ROWS}) == len(ROWS)


def test_passages_are_clean_prose() -> None:
    for row in ROWS:
        assert 600 < len(row["text"]) <= 4000
        assert row["text"].endswith((".", '"', "'", "”"))
        assert not {"#", "|", "_", "[", "\ufffd"} & set(row["text"])


def test_it_is_enough_for_the_defaults() -> None:
    words = sum(len(row["text"].split()) for row in ROWS)
    assert words > 2 * 64 * 256
    assert len(load_calibration("prose", tiny_tokenizer())) == 8
