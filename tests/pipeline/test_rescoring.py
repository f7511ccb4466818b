"""The blocks that a pruner is offered after some removals."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from layerimp_greedy import Greedy
from layerimp_lowest import Lowest
from support.recipes import make_recipe
from support.tiny import tiny

import layerimp
from layerimp import Importance
from layerimp.calibration.sampling import CalibrationSet
from layerimp.pipeline.scores import Rescoring
from layerimp.progress import SILENT
from layerimp.pruner import Budget, Scoring
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure
from layerimp.scoring.selection import Selection
from layerimp.testing import padded_batch


def scoring_of(scorer: str = "block-influence", **options: object) -> Scoring:
    """The scores of a random model of five blocks."""
    stack = layerimp.find_blocks(tiny("llama", dtype=torch.float64, num_hidden_layers=5))
    selection = Selection.of(make_recipe({"scorers": {scorer: {"name": scorer, "options": options}}}), SILENT)
    text = [padded_batch()]
    first = measure(stack, text, selection.create(5, scorer))[scorer]
    drawn: CalibrationSet = text  # type: ignore[assignment]
    return Rescoring(stack, drawn, first, selection, scorer)


@pytest.mark.parametrize(
    ("removed", "offered"),
    [([], [0, 1, 2, 3, 4]), ([3], [0, 1, 2, 4]), ([2, 1], [0, 3, 4]), ([0, 1, 2, 3], [4])],
)
def test_what_is_offered(removed: Sequence[int], offered: list[int]) -> None:
    scoring = scoring_of()(removed)
    assert list(scoring.blocks) == offered


def test_the_first_scores_are_those_that_are_known() -> None:
    known = Importance([1.0])
    stack = layerimp.find_blocks(tiny("llama"))
    selection = Selection.of(make_recipe({"scorers": ["depth"]}), SILENT)
    drawn: CalibrationSet = []  # type: ignore[assignment]
    assert Rescoring(stack, drawn, known, selection, "depth")(()) is known


def test_a_part_of_the_text_can_serve_for_later_scores() -> None:
    """The first two rows alone decide what a partly pruned model scores."""
    stack = layerimp.find_blocks(tiny("llama", dtype=torch.float64, num_hidden_layers=5))
    selection = Selection.of(make_recipe({"scorers": ["perplexity"]}), SILENT)
    rows = tuple(tuple(row) for row in torch.randint(5, 60, (6, 9), generator=torch.manual_seed(0)).tolist())
    text = CalibrationSet(rows, batch_size=4, source="drawn")
    few = CalibrationSet(rows[:2], batch_size=4, source="drawn")
    first, known = (
        measure(stack, part, {"perplexity": registry().create("scorer", "perplexity", {}, num_blocks)}, removed=gone)
        for part, num_blocks, gone in ((text, 5, []), (few, 4, [3]))
    )
    some = Rescoring(stack, text.first(2), first["perplexity"], selection, "perplexity")
    assert some(()) is first["perplexity"]
    assert some([3]).scores == pytest.approx(known["perplexity"].scores, rel=1e-12)
    every = Rescoring(stack, text.first(99), first["perplexity"], selection, "perplexity")
    assert every([3]).scores != pytest.approx(known["perplexity"].scores, rel=1e-3)


@pytest.mark.parametrize("forced", [(), (1,), (0, 3)])
def test_pruners_begin_with_what_is_forced(forced: tuple[int, ...]) -> None:
    budget = Budget.exactly(4, 5, forced=forced)
    for pruner in (Lowest(), Greedy(), Greedy(Greedy.Config(exchange=1))):
        assert pruner.within_budget(scoring_of("perplexity"), budget).blocks[: len(forced)] == list(forced)


@pytest.mark.parametrize(("scorer", "blocks"), [("perplexity", [1, 4]), ("block-influence", [0, 1, 2, 4])])
def test_scorers_that_run_the_model_for_each_block_score_only_what_is_asked_for(scorer: str, blocks: list[int]) -> None:
    scoring = scoring_of(scorer)
    few = scoring([3], among={1, 4})
    assert list(few.blocks) == blocks
    every = scoring([3])
    scores = dict(zip(every.blocks, every.scores, strict=True))
    assert few.scores == pytest.approx([scores[block] for block in blocks], rel=1e-12)
    assert scoring([3], among={1}) is every


def test_a_scorer_is_made_for_the_blocks_at_hand_alone() -> None:
    """A window of three blocks fits into the four that are left, and not into fewer."""
    scoring = scoring_of("angular", window=3)
    assert list(scoring([2]).blocks) == [0, 1, 3, 4]
    assert list(scoring([1], among={0}).blocks) == [0, 2, 3, 4]
