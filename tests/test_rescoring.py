"""What a pruner is given when it asks for scores."""

from __future__ import annotations

from layerimp_greedy import Greedy

from layerimp.pipeline.rescoring import without_joined
from layerimp.pruner import Budget
from layerimp.scorer import Importance
from layerimp.steps import Step


def test_blocks_that_a_seam_joined_are_not_offered() -> None:
    found = Importance(
        scores=[3.0, 0.0, 1.0, 2.0],
        blocks=[0, "1.attn,2.mlp", 3, "3/4"],
        columns={"std": [1.0, 2.0, 3.0, 4.0]},
        spans={2: [1.0, 2.0]},
        notes=["n"],
    )
    left = without_joined(found, ["1/2"], 5)
    assert left == Importance([3.0, 1.0, 2.0], [0, 3, "3/4"], columns={"std": [1.0, 3.0, 4.0]}, notes=["n"])
    assert without_joined(found, ["1/2", "1.attn,2.mlp"], 5) is found
    blocks = Importance(scores=[3.0, 1.0], blocks=[0, 2], spans={2: [1.0]})
    assert without_joined(blocks, [1], 3) is blocks


def test_a_pruner_of_blocks_leaves_joined_ones_alone() -> None:
    def scoring(removed: list[Step]) -> Importance:
        scored = [step for step in (0, "1.attn,2.mlp", 3, 4) if step not in removed]
        return without_joined(Importance([float(n) for n, _ in enumerate(scored)], scored), removed, 5)

    budget = Budget.exactly(3, 5, forced=("1/2",), protect=(0,))
    assert Greedy().within_budget(scoring, budget).blocks == ["1/2", 3, 4]
