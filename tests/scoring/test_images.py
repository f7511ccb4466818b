"""Scores on text with images, against the stock model's own forward on what its processor makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import seeing
from support.collected import Collect
from support.states import states
from torch.nn.functional import cosine_similarity

import layerimp
from layerimp.blocks.modalities import image_token
from layerimp.errors import CalibrationError, ModelError
from layerimp.models.offloading import open_offloaded
from layerimp.registry.attribution import create
from layerimp.scoring.engine import measure
from layerimp.sweep import Backward

Saved = tuple[Path, Any]


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind == "llava")) for kind in seeing.KINDS],
)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    directory = tmp_path_factory.mktemp(request.param)
    return directory, seeing.save(directory, request.param)


def scores(stack: Any, text: Any, *names: str) -> dict[str, list[float]]:
    scorers = {name: create("scorer", name, {}, len(stack)) for name in names}
    return {name: list(importance.scores) for name, importance in measure(stack, text, scorers).items()}


def log_probs(model: Any, inputs: Any) -> torch.Tensor:
    """The log-probability of every token that is predicted [target]."""
    (ids,) = inputs["input_ids"]
    places = seeing.predicted(ids, image_token(model.config))
    return model(**inputs).logits[0].double().log_softmax(-1)[places, ids[[place + 1 for place in places]]]


@pytest.mark.parametrize("skips", [False, True])
def test_what_blocks_do_to_tokens(saved: Saved, skips: bool) -> None:
    """Tokens of images count like others, or do not count."""
    directory, model = saved
    text = seeing.rows_of_texts(directory, model, skips_image_tokens=skips)
    stack = layerimp.find_blocks(model)
    angles: list[list[torch.Tensor]] = [[] for _ in stack]
    with states(model) as stream, torch.no_grad():
        for inputs in (inputs for batch in text for inputs in seeing.stock_inputs(batch)):
            model(**inputs)
            counts = inputs["input_ids"][0] != image_token(model.config) if skips else slice(None)
            for index, kept in enumerate(angles):
                before, after = (stream[end, index][0, counts].double() for end in ("block_in", "block_out"))
                kept.append(1 - cosine_similarity(before, after, dim=-1))
    expected = [float(torch.cat(kept).mean()) for kept in angles]
    assert scores(stack, text, "block-influence")["block-influence"] == pytest.approx(expected, rel=1e-4)


def test_the_loss_without_a_block(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token but those of images is predicted, from all that stand before it, images among them."""
    directory, model = saved
    text = seeing.rows_of_texts(directory, model)
    stack = layerimp.find_blocks(model)
    rows = [inputs for batch in text for inputs in seeing.stock_inputs(batch)]
    rises = scores(stack, text, "perplexity")["perplexity"]
    with torch.no_grad():
        intact = torch.cat([log_probs(model, inputs) for inputs in rows])
        for index, block in enumerate(stack):
            with monkeypatch.context() as patch:
                patch.setattr(block, "forward", lambda hidden, *_args, **_kwargs: hidden)
                without = torch.cat([log_probs(model, inputs) for inputs in rows])
            assert rises[index] == pytest.approx(float((intact - without).mean()), rel=1e-3, abs=1e-5)


def test_images_are_read_once(saved: Saved) -> None:
    """However many blocks are tried, what reads the images computes once for each row."""
    directory, model = saved
    text = seeing.rows_of_texts(directory, model)
    tower = model.model.visual if hasattr(model.model, "visual") else model.model.vision_tower
    calls: list[None] = []
    hook = next(tower.children()).register_forward_hook(lambda *_: calls.append(None))
    scores(layerimp.find_blocks(model), text, "perplexity")
    hook.remove()
    assert len(calls) == sum("pixel_values" in batch for batch in text)


def test_gradients(saved: Saved) -> None:
    directory, model = saved
    text = seeing.rows_of_texts(directory, model)
    batch = next(batch for batch in text if "pixel_values" in batch)
    stack = layerimp.find_blocks(model)
    collected = Collect(len(stack), Backward())
    measure(stack, [batch], {"collect": collected})
    with states(model) as stream:
        (inputs,) = seeing.stock_inputs(batch)
        loss = -log_probs(model, inputs).sum()
        gradients = torch.autograd.grad(loss, [stream["block_out", index] for index in range(len(stack))])
    for trace in collected.traces:
        aim = gradients[trace.block].to(torch.float32)
        torch.testing.assert_close(trace.acts["block_out_grad"], aim, rtol=1e-3, atol=1e-5 * float(aim.abs().max()))


def test_sums_of_gradients_run_over_all_tokens(tmp_path: Path) -> None:
    """Relevance is conserved over all tokens, and the loss changes by what all of them contribute."""
    model = seeing.save(tmp_path)
    every, few = (
        layerimp.score(model, seeing.rows_of_texts(tmp_path, model, skips_image_tokens=skips), ["lrp", "gbis"])
        for skips in (False, True)
    )
    for scorer, columns in (("lrp", ("signed_relevance", "input_relevance")), ("gbis", ("slope",))):
        assert not few[scorer].notes
        for column in columns:
            assert few[scorer].columns[column] == pytest.approx(every[scorer].columns[column])
        assert all(less < more for less, more in zip(few[scorer].scores, every[scorer].scores, strict=True))


def test_pixels_count(saved: Saved) -> None:
    directory, model = saved
    text = seeing.rows_of_texts(directory, model)
    other = [
        {name: value.flip(-1) if "pixel_values" in name else value for name, value in batch.items()} for batch in text
    ]
    stack, names = layerimp.find_blocks(model), ("block-influence", "gbis", "perplexity", "divergence")
    before, after = scores(stack, text, *names), scores(stack, other, *names)
    assert all(old != new for name in names for old, new in zip(before[name], after[name], strict=True))


def test_a_model_in_its_files_scores_the_same(saved: Saved) -> None:
    directory, model = saved
    text = seeing.rows_of_texts(directory, model)
    names = ("block-influence", "avss")
    assert scores(open_offloaded(directory), text, *names) == scores(layerimp.find_blocks(model), text, *names)


def test_pixels_are_read_in_the_dtype_of_the_model(saved: Saved) -> None:
    directory, model = saved
    text = seeing.rows_of_texts(directory, model)
    half = type(model).from_pretrained(directory, dtype=torch.bfloat16)
    expected = scores(layerimp.find_blocks(model), text, "block-influence")["block-influence"]
    assert scores(layerimp.find_blocks(half), text, "block-influence")["block-influence"] == pytest.approx(
        expected, rel=0.1
    )


def test_rows_with_images_stand_alone(saved: Saved) -> None:
    directory, model = saved
    batch = next(batch for batch in seeing.rows_of_texts(directory, model) if "pixel_values" in batch)
    two = {name: torch.cat([value, value]) for name, value in batch.items()}
    with pytest.raises(CalibrationError, match="batch 0 holds images, and 2 rows or padding: a row with images is a"):
        scores(layerimp.find_blocks(model), [two], "block-influence")


def test_a_head_whose_backbone_does_not_see_is_refused(saved: Saved) -> None:
    """What such a backbone would make of pixels is nothing: many take any argument, and do not read it."""
    directory, model = saved
    batch = next(batch for batch in seeing.rows_of_texts(directory, model) if "pixel_values" in batch)
    from layerimp.blocks.forward import run

    with pytest.raises(ModelError, match="takes no images: the part of the model before it does"):
        run(model.model.language_model, batch)
