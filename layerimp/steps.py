"""The steps of a plan: which sublayers can go together, how they are written, and what they leave.

A decoder or an encoder is a row of sublayers: `0.attn`, `0.mlp`, `1.attn`, `1.mlp`, and so on. A step removes one
attention and one MLP, so that in what is left attention and MLP still take turns and every pair of them is an ordinary
block. Written for people and in JSON, with 0-based blocks:

    5                   block 5: 5.attn and 5.mlp
    "17/18"             the seam 17/18: 17.mlp and 18.attn; 17.attn and 18.mlp become one block
    "17.attn,18.mlp"    spelled out: after the seam 17/18, the block that it left

The numbers of blocks and sublayers are always those of the intact model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

from layerimp.errors import OptionError, unknown_name

Part = Literal["attn", "mlp"]
"""Which half of a block."""
Step = int | str
"""One step: a block's index, or the text of a seam or of two sublayers."""
Cuts = Literal["blocks", "all"]
"""Which steps may be taken: whole blocks alone, or seams as well."""

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")
_SEAM = re.compile(r"(\d+)\s*/\s*(\d+)")
_MOST_IN_A_RANGE = 10_000
"""More blocks than any model has: a range that names more is a slip, and would fill the memory."""
_SUBLAYER = re.compile(r"(\d+)\s*\.\s*(attn|mlp)")


class Sublayer(NamedTuple):
    """The attention or the MLP of a block. Sublayers sort by depth.

    Attributes:
        block: The block's index.
        part: Which half of it.
    """

    block: int
    part: Part

    def __str__(self) -> str:
        return f"{self.block}.{self.part}"

    @property
    def depth(self) -> int:
        """How many sublayers come before this one."""
        return 2 * self.block + (self.part == "mlp")

    @classmethod
    def at(cls, depth: int) -> Sublayer:
        """The sublayer that has so many before it."""
        return cls(depth // 2, "mlp" if depth % 2 else "attn")


def sublayers_of(step: Step) -> tuple[Sublayer, ...]:
    """The sublayers of a step, in depth order.

    Raises:
        OptionError: this is no step; says how one is written.
    """
    if isinstance(step, bool) or not isinstance(step, int | str):
        raise OptionError(f"{step!r} is no step: write a block as a number, and a seam as a text such as '17/18'")
    if isinstance(step, int):
        return Sublayer(step, "attn"), Sublayer(step, "mlp")
    found: list[Sublayer] = []
    for part in step.split(","):
        found += _read(part)
    return tuple(sorted(found))


def checked_cuts(cuts: str) -> Cuts:
    """What may be cut.

    Raises:
        UnknownNameError: it is neither `blocks` nor `all`.
    """
    if cuts not in (known := get_args(Cuts)):
        raise unknown_name("cuts", str(cuts), known)
    return "all" if cuts == "all" else "blocks"


def step_of(sublayers: Iterable[Sublayer]) -> Step:
    """The step of an attention and an MLP, as it is written: a number for a block, a text for anything else."""
    first, second = sorted(sublayers)
    if first.block == second.block:
        return first.block
    if first.part == "mlp" and second.block == first.block + 1:
        return f"{first.block}/{second.block}"
    return f"{first},{second}"


def read_steps(text: str, *, what: str = "--blocks") -> list[Step]:
    """The steps in a text such as `5,17/18`, `8-10` or `7.mlp,8.attn`.

    A range stands for its blocks, the last one among them. Sublayers that are spelled out are taken together until
    attention and MLP take turns in what is left.

    Args:
        text: The text.
        what: What holds the text, for the error.

    Raises:
        OptionError: a part of the text is no step.
    """
    steps: list[Step] = []
    single: list[Sublayer] = []
    for part, read in _parts(text, what):
        if len(read) == 2:
            if single:
                raise OptionError(f"{what} {text}: {_unpaired(single)}")
            steps.append(step_of(read))
            continue
        single += read
        gone = removed_by(steps)
        if overlap := gone.intersection(single):
            raise OptionError(_overlap(part, steps, min(overlap)))
        if len(set(single)) == len(single) and _takes_turns(gone | set(single)):
            steps += paired(single, after=steps)
            single = []
    if single:
        raise OptionError(f"{what} {text}: {_unpaired(single)}")
    return steps


def checked_steps(steps: Iterable[Step], num_blocks: int, *, what: str = "block") -> tuple[Step, ...]:
    """Steps as they are written, all of which exist and none of which removes what an earlier one has removed.

    Raises:
        OptionError: otherwise, or after a step attention and MLP do not take turns in what is left.
    """
    if not isinstance(steps, Iterable):
        raise OptionError(f"steps are given as a list, such as [5, '17/18'], got {steps!r}")
    found: list[Step] = []
    gone: set[Sublayer] = set()
    for step in read_steps(steps, what=f"{what}s") if isinstance(steps, str) else steps:
        parts = sublayers_of(step)
        if len(parts) > 2:
            raise OptionError(f"{step!r} is more than one step: write each as an entry of its own")
        for part in parts:
            if not 0 <= part.block < num_blocks:
                where = "" if isinstance(step, int) else f" ({step})"
                raise OptionError(
                    f"{what} {part.block}{where} does not exist: the model has blocks 0 to {num_blocks - 1}"
                )
        if overlap := gone.intersection(parts):
            raise OptionError(_overlap(step, found, min(overlap), what=what))
        if len(set(parts)) != 2 or not _takes_turns(gone | set(parts)):
            raise OptionError(_unpaired(parts))
        found.append(step_of(parts))
        gone |= set(parts)
    return tuple(found)


def removed_by(steps: Iterable[Step]) -> frozenset[Sublayer]:
    """All sublayers that steps remove."""
    return frozenset(part for step in steps for part in sublayers_of(step))


def touched_by(steps: Iterable[Step]) -> frozenset[int]:
    """The blocks that steps remove, whole or in part."""
    return frozenset(part.block for part in removed_by(steps))


def untouched(steps: Iterable[Step], num_blocks: int) -> list[int]:
    """The blocks of which steps remove nothing, in depth order."""
    touched = touched_by(steps)
    return [index for index in range(num_blocks) if index not in touched]


def kept_halves(steps: Iterable[Step], num_blocks: int) -> list[tuple[int, int]]:
    """The blocks that are left, each as (the block whose attention it has, the block whose MLP it has)."""
    gone = removed_by(steps)
    attention, mlp = (
        [index for index in range(num_blocks) if Sublayer(index, part) not in gone] for part in ("attn", "mlp")
    )
    return list(zip(attention, mlp, strict=True))


def left(removed: Iterable[Step], num_blocks: int) -> list[Sublayer]:
    """The row of sublayers that is left without the steps `removed`, in depth order."""
    gone = removed_by(removed)
    return [one for one in map(Sublayer.at, range(2 * num_blocks)) if one not in gone]


def candidates(removed: Iterable[Step], num_blocks: int, cuts: Cuts = "blocks") -> tuple[list[Step], list[Step]]:
    """The steps that can be taken next, as two series in depth order: blocks, and seams.

    With `blocks` these are the blocks of which nothing is removed, and no seams. With `all` they are the neighbours in
    the row of sublayers that is left: at even places its blocks, at odd places its seams. After the seam 17/18 one of
    the blocks is `17.attn,18.mlp`; after the block 18, one of the seams is `17.mlp,19.attn`.

    Args:
        removed: The steps that are taken already.
        num_blocks: How many blocks the intact model has.
        cuts: Which steps may be taken.
    """
    if checked_cuts(cuts) == "blocks":
        return list(untouched(removed, num_blocks)), []
    row = left(removed, num_blocks)
    blocks, seams = ([step_of(row[at : at + 2]) for at in range(first, len(row) - 1, 2)] for first in (0, 1))
    return blocks, seams


def sublayer_units(removed: Iterable[Step], num_blocks: int) -> tuple[list[Step], list[Step]]:
    """The attentions that are left, and the MLPs, such as `7.attn` and `7.mlp`. None of them can be removed alone."""
    row = left(removed, num_blocks)
    attention, mlp = ([str(one) for one in row if one.part == part] for part in ("attn", "mlp"))
    return list(attention), list(mlp)


def simplest(steps: Iterable[Step]) -> list[Step]:
    """The same removal as blocks, where whole ones go, and seams: in depth order, in which they can be removed."""
    return [step for run in runs_of(removed_by(steps)) for step in steps_of(run)]


def runs_of(sublayers: Collection[Sublayer]) -> Iterator[tuple[Sublayer, ...]]:
    """Sublayers as runs of neighbours, in depth order."""
    run: list[Sublayer] = []
    for one in sorted(sublayers):
        if run and one.depth != run[-1].depth + 1:
            yield tuple(run)
            run = []
        run.append(one)
    if run:
        yield tuple(run)


def steps_of(run: Sequence[Sublayer]) -> list[Step]:
    """Sublayers of an even number, in depth order, as steps of two neighbours each."""
    return [step_of(run[index : index + 2]) for index in range(0, len(run), 2)]


def paired(sublayers: Collection[Sublayer], after: Iterable[Step] = ()) -> list[Step]:
    """Sublayers as steps that can be taken one after the other, each of two that are neighbours by then.

    Args:
        sublayers: What is to go.
        after: The steps that are taken before.

    Raises:
        OptionError: there are no such steps.
    """
    missing, out = sorted(sublayers), set(removed_by(after))
    steps: list[Step] = []
    while missing:
        pair = next((pair for pair in pairwise(missing) if _takes_turns({*out, *pair})), None)
        if pair is None:
            raise OptionError(_unpaired(missing))
        steps.append(step_of(pair))
        out.update(pair)
        missing = [one for one in missing if one not in pair]
    return steps


def named(steps: Sequence[Step]) -> str:
    """Steps as prose: `block 5`, `blocks 5, 6`, `seam 17/18`, `5, 17/18`."""
    written = ", ".join(map(str, steps))
    many = "s" if len(steps) > 1 else ""
    if all(isinstance(step, int) for step in steps):
        return f"block{many} {written}"
    if all(isinstance(step, str) and _SEAM.fullmatch(step) for step in steps):
        return f"seam{many} {written}"
    return written


def _parts(text: str, what: str) -> Iterator[tuple[str, list[Sublayer]]]:
    """The parts of a text with the sublayers of each; a range has a part for each of its blocks."""
    try:
        for part in map(str.strip, text.split(",")):
            if ends := _RANGE.fullmatch(part):
                first, last = int(ends[1]), int(ends[2])
                if first > last:
                    raise OptionError(f"the range {part} runs backwards")
                if last - first >= _MOST_IN_A_RANGE:
                    raise OptionError(f"no model has as many blocks as the range {part} names")
                yield from ((str(block), _read(str(block))) for block in range(first, last + 1))
            else:
                yield part, _read(part)
    except OptionError as error:
        raise OptionError(f"{what} takes blocks and seams such as 5,8-10,17/18, got {text!r}: {error}") from None


def _read(text: str) -> list[Sublayer]:
    """The sublayers in one part of a text."""
    part = text.strip()
    if part.isdecimal():
        return list(sublayers_of(int(part)))
    if seam := _SEAM.fullmatch(part):
        first, second = int(seam[1]), int(seam[2])
        if second != first + 1:
            raise OptionError(f"{part} is no seam, which lies between neighbours such as {first}/{first + 1}")
        return [Sublayer(first, "mlp"), Sublayer(second, "attn")]
    if one := _SUBLAYER.fullmatch(part):
        return [Sublayer(int(one[1]), "attn" if one[2] == "attn" else "mlp")]
    raise OptionError(f"{text!r} is no block (5), no range (8-10), no seam (17/18) and no sublayer (7.mlp)")


def _takes_turns(gone: Collection[Sublayer]) -> bool:
    """Whether attention and MLP take turns in what is left, whatever the number of blocks."""
    return all(len(run) % 2 == 0 for run in runs_of(gone))


def _unpaired(parts: Sequence[Sublayer]) -> str:
    """Why sublayers cannot go together."""
    written = " and ".join(map(str, parts))
    return (
        f"without {written} attention and MLP would not take turns; remove whole blocks such as {parts[0].block}, or "
        f"seams such as {parts[0].block}/{parts[0].block + 1}"
    )


def _overlap(step: Step, earlier: Sequence[Step], part: Sublayer, *, what: str = "block") -> str:
    """Why a step cannot follow others that have removed a part of it."""
    if step in earlier and isinstance(step, int):
        return f"{what}s named twice: {', '.join(map(str, [*earlier, step]))}"
    first = next(one for one in earlier if part in sublayers_of(one))
    return f"{first} and {step} both remove {part}"
