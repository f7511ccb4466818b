"""Describes the cuts of a plan in words, for tables and for model cards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from layerimp.steps import Step, kept_halves, named, removed_by, runs_of, steps_of, sublayers_of


def ranges(steps: Iterable[Step]) -> str:
    """List the removed steps in depth order, with neighbouring blocks as a range: `2, 7-9, 17/18`."""
    parts: list[str] = []
    for run in runs_of(removed_by(steps)):
        if run[0].part == "mlp":
            parts += map(str, steps_of(run))
        else:
            parts.append(_range(run[0].block, run[-1].block))
    return ", ".join(parts)


def always(plans: Sequence[Sequence[Step]]) -> str:
    """List what is removed, if all plans remove the same; else empty."""
    return ranges(plans[0]) if len({removed_by(steps) for steps in plans}) == 1 else ""


def whole(steps: Iterable[Step]) -> bool:
    """Whether only whole blocks are removed."""
    return all(run[0].part == "attn" for run in runs_of(removed_by(steps)))


def seams(steps: Iterable[Step]) -> Iterator[str]:
    """Yield a sentence for each place where halves of two blocks become one: what is removed, and what is joined."""
    for run in runs_of(removed_by(steps)):
        if run[0].part == "mlp":
            first, last = run[0].block, run[-1].block
            gone = f"the MLP of block {first} and the attention of block {last}"
            if last > first + 1:
                gone = f"all from the MLP of block {first} to the attention of block {last}"
            yield (f"{named(steps_of(run))}: {gone}; the attention of {first} and the MLP of {last} now form one block")


def sources(steps: Iterable[Step], num_blocks: int) -> Iterator[tuple[str, str, str]]:
    """Yield the blocks of the pruned model, with the origins of attention and MLP; neighbouring blocks as a range."""
    halves = kept_halves(steps, num_blocks)
    start = 0
    for end in range(1, len(halves) + 1):
        shift = tuple(half - start for half in halves[start])
        if end == len(halves) or tuple(half - end for half in halves[end]) != shift:
            ends = [(start, end - 1), *zip(halves[start], halves[end - 1], strict=True)]
            block, attention, mlp = (_range(first, last) for first, last in ends)
            yield block, attention, mlp
            start = end


def marked(scored: Step, taken: Sequence[Step]) -> str:
    """Return the mark for a block in a table: `✗ 2nd` if it is removed, `½ 1st (17/18)` if one half is, else empty.

    A seam is marked if the plan has this seam, but not if it has a block beside it.

    Args:
        scored: The block, or another step that was scored.
        taken: The steps of the plan, in order.
    """
    if not isinstance(scored, int):
        return f"✗ {_ordinal(taken.index(scored) + 1)}" if scored in taken else ""
    parts = set(sublayers_of(scored))
    touching = [(place, step) for place, step in enumerate(taken, 1) if parts.intersection(sublayers_of(step))]
    if not touching:
        return ""
    told = (_ordinal(place) + (f" ({step})" if step != scored else "") for place, step in touching)
    return f"{'✗' if parts <= removed_by(taken) else '½'} {', '.join(told)}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
