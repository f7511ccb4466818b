"""Texts for different purposes share no row and no document."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerimp.calibration import CalibrationSet
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import Corpus, document_hash
from layerimp.calibration.splits import for_fidelity, hold_out, read_by, split
from layerimp.errors import CalibrationError
from layerimp.testing import batch, tiny_tokenizer


def test_every_fourth_row_is_held_out_and_no_row_is_in_both() -> None:
    whole = CalibrationSet(tuple((n, n + 1) for n in range(18)), 4, "made up", tuple(n % 2 for n in range(18)))
    rest, held = hold_out(whole)
    assert held.rows == whole.rows[3::4]
    assert held.labels == whole.labels[3::4]
    assert sorted(rest.rows + held.rows) == sorted(whole.rows)
    assert len(rest.rows) == 14
    assert not set(rest.rows) & set(held.rows)
    assert rest.batch_size == held.batch_size == whole.batch_size


def test_text_is_split_by_rows() -> None:
    text = [batch(5, 6, seed=0), batch(6, 6, seed=1), batch(5, 6, seed=2)]
    parts = split(text)
    ids = torch.cat([inputs["input_ids"] for inputs in text])
    chosen = {name: torch.cat([inputs["input_ids"] for inputs in part]) for name, part in vars(parts).items()}
    assert torch.equal(chosen["choosing"], ids[[6, 14]])
    assert torch.equal(chosen["measuring"], ids[[7, 15]])
    assert torch.equal(chosen["healing"], ids[[*range(6), *range(8, 14)]])
    assert [len(part[0]["input_ids"]) for part in vars(split([batch(4, 6)])).values()] == [2, 1, 1]
    with pytest.raises(CalibrationError, match="at least 3 rows"):
        split([batch(2, 6)])


@pytest.mark.parametrize(("rows", "held_out"), [(512, 64), (513, 57), (2000, 62), (6400, 64)])
def test_no_more_rows_are_held_out_than_are_worth_their_cost(rows: int, held_out: int) -> None:
    """One row in eight is held out for each purpose up to 512 rows, then one in nine, and so on."""
    parts = split([batch(100, 3, seed=seed) for seed in range(rows // 100)] + [batch(rows % 100, 3)] * (rows % 100 > 0))
    counts = {name: sum(len(inputs["input_ids"]) for inputs in part) for name, part in vars(parts).items()}
    assert counts == {"healing": rows - 2 * held_out, "choosing": held_out, "measuring": held_out}


TOKENIZER = tiny_tokenizer(bos=False)


def corpus(texts: list[str], **form: Any) -> Corpus:
    settings: dict[str, Any] = {"max_length": 6, "batch_size": 4, "packing": "rows"} | form
    return Corpus([(text, None) for text in texts], "made up", RowFormat(TOKENIZER, **settings))


def texts_of(drawn: CalibrationSet) -> list[str]:
    return [TOKENIZER.decode(row, skip_special_tokens=True).strip() for row in drawn.rows]


@settings(derandomize=True, max_examples=50, deadline=None, database=None)
@given(
    numbers=st.lists(st.integers(0, 30), min_size=6, max_size=40),
    seeds=st.sets(st.integers(0, 9), min_size=1, max_size=3),
    packing=st.sampled_from(["rows", "windows"]),
    half=st.booleans(),
)
def test_fidelity_reads_no_document_that_is_drawn(
    numbers: list[int], seeds: set[int], packing: Any, half: bool
) -> None:
    """Not even under another seed, nor a copy in capitals; and each document once."""
    texts = [f"W{n} W{n}" if place % 3 == 0 else f"w{n} w{n}" for place, n in enumerate(numbers)]
    whole = corpus(texts, packing=packing, max_length=4)
    drawn = [whole.draw(2, seed) for seed in seeds]
    kept = for_fidelity(whole, 100, without=read_by(whole, 2, seeds), half=half)
    assert kept.documents.isdisjoint(frozenset().union(*(each.documents for each in drawn)))
    left = set(map(document_hash, texts)) - read_by(whole, 2, seeds)
    assert len(kept.documents) == (-(-len(left) // 2) if half else len(left)), "a copy is no further document"
    if packing == "rows":
        assert len(kept.rows) == len(kept.documents)


def test_the_text_for_fidelity_depends_on_no_order() -> None:
    texts = [f"w{n} w{n + 1}" for n in range(20)]
    first = for_fidelity(corpus(texts), 8)
    assert for_fidelity(corpus(texts[::-1]), 8).rows == first.rows
    assert len(first.rows) == 8
    assert texts_of(first) != texts[:8], "the documents at the beginning of a file may be of one kind"


def test_an_earlier_text_is_drawn_again_from_its_hashes() -> None:
    texts = [f"w{n} w{n + 1}" for n in range(20)]
    first = for_fidelity(corpus(texts), 8, without=corpus(texts).draw(4, 0).documents)
    again = for_fidelity(corpus(["w40 w50", *texts]), 8, only=first.documents)
    assert again.rows == first.rows
    later = corpus(texts).draw(12, 7, without=first.documents)
    assert later.documents.isdisjoint(first.documents)
    with pytest.raises(CalibrationError, match="holds 12 documents, but 13 are asked for"):
        corpus(texts).draw(13, 7, without=first.documents)


def test_too_little_text_gives_fewer_rows() -> None:
    few = corpus(["w1 w2", "w3 w4"])
    assert len(for_fidelity(few, 8).rows) == 2
    assert for_fidelity(few, 8, without=few.draw(2, 0).documents).rows == ()


def test_draws_are_what_they_were_before_fidelity_had_text() -> None:
    """The first rows of a shuffled list, whatever else is drawn."""
    texts = [f"w{n} w{n + 1}" for n in range(9)]
    assert texts_of(corpus(texts).draw(3, 0)) == ["w7 w8", "w5 w6", "w1 w2"]


def test_a_long_document_gives_no_more_than_one_row_for_fidelity() -> None:
    """Rows of one document are alike, and a mean over them says little of others."""
    texts = [" ".join(f"w{n}" for _ in range(40)) for n in range(10)]
    kept = for_fidelity(corpus(texts, packing="windows", max_length=8), 5)
    assert len(kept.rows) == 5
    assert len(kept.documents) >= 5
    assert len({token for row in kept.rows for token in row} - {TOKENIZER.eos_token_id}) >= 5
