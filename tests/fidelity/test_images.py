"""Fidelity on rows with images, against the stock models' own forward on what the processor makes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support import seeing

import layerimp
from layerimp.blocks.modalities import image_token
from layerimp.fidelity import Fidelity, Intact, prompts, repeated
from layerimp.registry.attribution import create

Pair = tuple[Any, Any, list[dict[str, Any]]]


@pytest.fixture(scope="module", params=seeing.KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """An intact model, the same without two blocks, and text with images."""
    directory: Path = tmp_path_factory.mktemp(request.param)
    model = seeing.save(directory, request.param)
    text = seeing.rows_of_texts(directory, model)
    return model, layerimp.prune(copy.deepcopy(model), [1, 3]), text


@torch.no_grad()
def naive(intact: Any, other: Any, batch: dict[str, Any]) -> list[list[tuple[float, bool]]]:
    """For each row, the divergence of every prediction, and whether both top tokens are the same."""
    rows = []
    for inputs in seeing.stock_inputs(batch):
        places = seeing.predicted(inputs["input_ids"][0], image_token(intact.config))
        p, q = (model(**inputs).logits[0].double().log_softmax(-1)[places] for model in (intact, other))
        divergences = (p.exp() * (p - q)).sum(-1)
        rows.append(list(zip(divergences.tolist(), (p.argmax(-1) == q.argmax(-1)).tolist(), strict=True)))
    return rows


def test_divergence_of_each_row(pair: Pair) -> None:
    intact, other, text = pair
    known = Intact(layerimp.find_blocks(intact), text)
    divergence = known.divergence(layerimp.find_blocks(other))
    rows = [row for batch in text for row in naive(intact, other, batch)]
    assert divergence.totals == pytest.approx([math.fsum(value for value, _ in row) for row in rows], rel=1e-4)
    assert divergence.counts == [len(row) for row in rows]
    assert divergence.agreed == [sum(same for _, same in row) for row in rows]


def test_rows_with_images_are_a_figure_of_their_own(pair: Pair) -> None:
    intact, other, text = pair
    comparer: Any = create("evaluator", "fidelity", {"prompts": 0})
    fidelity: Fidelity = comparer.comparison(intact, None, text)(other)
    rows = [row for batch in text if "pixel_values" in batch for row in naive(intact, other, batch)]
    values = [value for row in rows for value, _ in row]
    assert fidelity.with_images is not None
    assert fidelity.with_images.rows == len(rows) == 3
    assert fidelity.with_images.divergence.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-4)
    assert fidelity.with_images.divergence.max == pytest.approx(max(values), rel=1e-4)
    assert fidelity.with_images.agreement == sum(same for row in rows for _, same in row) / len(values)
    plain = [batch for batch in text if "pixel_values" not in batch]
    others = sum(len(row) for batch in plain for row in naive(intact, other, batch))
    assert fidelity.predictions == len(values) + others
    alone: Fidelity = comparer.comparison(intact, None, plain)(other)
    assert "with_images" not in alone.model_dump()


def test_rows_with_images_are_not_copied_or_continued(pair: Pair) -> None:
    """Without their pixels, the tokens of images would stand for nothing."""
    _, _, text = pair
    image = max(int(batch["input_ids"].max()) for batch in text)
    assert any("pixel_values" in batch for batch in text)
    assert all(int(batch["input_ids"].max()) < image for batch, _ in repeated(text, ()))
    tokenizer = seeing._tokenizer()
    assert not prompts([batch for batch in text if "pixel_values" in batch], tokenizer)
