"""Makes the findings for one model: rows, agreement, stability, and notes for a reader."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

from layerimp.report.findings import Contender, Design, Key, ModelFindings, Pruned, Row, Scored
from layerimp.report.rows import Rows
from layerimp.report.statistics.agreement import Stability, mean_tau
from layerimp.report.statistics.comparison import above_the_intact, unknown
from layerimp.report.statistics.removable import Removable, removable, worst_by_repeat
from layerimp.report.statistics.retained import Retained, counting
from layerimp.report.tables import named
from layerimp.steps import Step, removed_by, simplest, sublayers_of
from layerimp.steps import named as written

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.report.data import Size

ONE_DRAW = (
    "one draw of calibration text: the comparison is of the models from this draw, and another draw may give others"
)
Left = Mapping[tuple[str, float, Contender], Sequence[Pruned]]
"""The pruned models of contenders, one for each repeat, by pruner, ratio and contender."""


def common_steps(scored: Iterable[Collection[Step]]) -> list[Step]:
    """Return the steps that all scorings have in common, in depth order."""
    return sorted(set.intersection(*map(set, scored)), key=sublayers_of)


def model_findings(
    design: Design,
    label: str,
    *,
    num_blocks: int,
    size: Size | None,
    intact: Mapping[Key, Metric],
    scored: Mapping[str, Scored],
    left: Left,
) -> ModelFindings:
    """Make the findings for one model.

    Args:
        design: The design of the comparison.
        label: The label of the model.
        num_blocks: The number of blocks of the intact model.
        size: The size of the intact model; None if nothing is evaluated yet.
        intact: The metrics of the intact model.
        scored: The scores, by label of the scorer.
        left: The pruned models.
    """
    scores = {scorer: one.scores for scorer, one in scored.items()}
    pruned = {(pruner, ratio, one.label): found for (pruner, ratio, one), found in left.items() if not one.healer}
    gone = {key: [removed_by(each.blocks) for each in found] for key, found in pruned.items()}
    rows: list[Row] = []
    retained: dict[tuple[str, float, str], Retained] = {}
    notes = list(unknown(intact, counting(intact.values()))) if size else []
    for pruner, ratio in dict.fromkeys((pruner, ratio) for pruner, ratio, _ in left):
        here = {one.label: found for (p, r, one), found in left.items() if (p, r) == (pruner, ratio)}
        if size is None or not any(one.size for found in here.values() for one in found):
            continue
        made = Rows(design, label, pruner, ratio, intact, size, here)
        rows += made.made()
        retained |= {(pruner, ratio, name): one for name, one in made.retained.items()}
        tables = {f"{name} at {named(ratio)}": [one.metrics for one in found] for name, found in here.items()}
        known = dict(zip(tables, made.retained.values(), strict=True))
        notes += above_the_intact(counting(intact.values()), tables, known)
    notes += _not_as_asked(left)
    return ModelFindings(
        label=label,
        num_blocks=num_blocks,
        size=size,
        scored=scored,
        agreement={(a, b): mean_tau(scores[a], scores[b]) for a, b in product(scored, scored) if a != b},
        pruned=pruned,
        healed={key: found for key, found in left.items() if key[2].healer},
        stability={key: one for key, sets in gone.items() if (one := Stability.of(sets))},
        retained=retained,
        rows=rows,
        removable=_removable(left, retained),
        notes=[f"{label}: {note}" for note in notes],
    )


def _removable(left: Left, retained: Mapping[tuple[str, float, str], Retained]) -> dict[tuple[str, str], Removable]:
    """Find how many blocks may be removed for each contender that was measured at several numbers of blocks."""
    found = {}
    for pruner, one in dict.fromkeys((pruner, one) for pruner, _, one in left):
        curves: dict[int, dict[int, float]] = {}
        for (p, ratio, each), models in left.items():
            known = retained.get((p, ratio, each.label)) if (p, each) == (pruner, one) else None
            shares = None if known is None else worst_by_repeat(known)
            for model, share in zip(models, shares or (), strict=False):
                curves.setdefault(model.draw, {})[len(model.blocks)] = share
        made = removable(list(curves.values()))
        if made is not None and len(made.measured) > 1:
            found[pruner, one.label] = made
    return found


def _not_as_asked(left: Left) -> Iterator[str]:
    """Yield a note on each healer that, in some models, did at every gap something other than requested, or nothing."""
    reasons: dict[str, dict[tuple[int, tuple[Step, ...]], list[str]]] = {}
    for (_, _, one), found in left.items():
        for model in found:
            if model.healing:
                own = [gap["why"] for gap in model.healing["gaps"]]
                reasons.setdefault(one.healer, {})[model.draw, tuple(simplest(model.blocks))] = own
    for healer, models in reasons.items():
        other = [(blocks, own[0]) for (_, blocks), own in models.items() if own and all(own)]
        if other:
            blocks, why = other[0]
            yield (
                f"{healer} did something other than requested, or nothing, at every gap of {len(other)} of "
                f"{len(models)} models, such as without {written(blocks)}: {why}"
            )
