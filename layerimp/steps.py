"""The steps of a plan: which sublayers can be removed together, how steps are written, and what they leave.

A decoder or an encoder is a row of sublayers: `0.attn`, `0.mlp`, `1.attn`, `1.mlp`, and so on. A step removes one
attention and one MLP such that attention and MLP still alternate in the rest, and each pair is an ordinary block. Steps
are written like this, with 0-based blocks:

    5                   block 5: 5.attn and 5.mlp
    "17/18"             the seam 17/18: 17.mlp and 18.attn; 17.attn and 18.mlp become one block
    "17.attn,18.mlp"    spelled out: after the seam 17/18, the block that it left

The numbers of blocks and sublayers are always those of the intact model.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

from layerimp.errors import OptionError, unknown_name

Part = Literal["attn", "mlp"]
"""A half of a block."""
Step = int | str
"""One step: a block's index, or the text of a seam or of two sublayers."""
Cuts = Literal["blocks", "all"]
"""The steps that may be taken: only whole blocks, or seams as well."""

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")
_SEAM = re.compile(r"(\d+)\s*/\s*(\d+)")
_MOST_IN_A_RANGE = 10_000
"""A number of blocks that no model has. A range with more blocks is a typing error, and would fill the memory."""
_SUBLAYER = re.compile(r"(\d+)\s*\.\s*(attn|mlp)")


class Sublayer(NamedTuple):
    """The attention or the MLP of a block. Sublayers sort by depth.

    Attributes:
        block: The block's index.
        part: The half of the block.
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
        """Return the sublayer with `depth` sublayers before it."""
        return cls(depth // 2, "mlp" if depth % 2 else "attn")


def sublayers_of(step: Step) -> tuple[Sublayer, ...]:
    """Return the sublayers of a step, in depth order.

    Raises:
        OptionError: the value is not a step; the error says how steps are written.
    """
    if not isinstance(step, str):
        try:
            block = operator.index(step)  # integers of NumPy and torch count as well
        except TypeError:
            block = None
        if block is None or isinstance(step, bool):
            raise OptionError(f"{step!r} is no step: write a block as a number, and a seam as a text such as '17/18'")
        return Sublayer(block, "attn"), Sublayer(block, "mlp")
    sublayers: list[Sublayer] = []
    for part in step.split(","):
        sublayers += _read(part)
    return tuple(sorted(sublayers))


def checked_cuts(cuts: str) -> Cuts:
    """Check the name of what may be cut.

    Raises:
        UnknownNameError: the name is neither `blocks` nor `all`.
    """
    if cuts not in (known := get_args(Cuts)):
        raise unknown_name("cuts", str(cuts), known)
    return "all" if cuts == "all" else "blocks"


def step_of(sublayers: Iterable[Sublayer]) -> Step:
    """Return the step of an attention and an MLP: a number for a block, a text for any other step."""
    first, second = sorted(sublayers)
    if first.block == second.block:
        return first.block
    if first.part == "mlp" and second.block == first.block + 1:
        return f"{first.block}/{second.block}"
    return f"{first},{second}"


def read_steps(text: str, *, what: str = "--blocks") -> list[Step]:
    """Read the steps in a text such as `5,17/18`, `8-10` or `7.mlp,8.attn`.

    A range includes its last block. Sublayers that are spelled out are taken together until attention and MLP alternate
    again in the rest.

    Args:
        text: The text.
        what: The option or field that holds the text, for the error.

    Raises:
        OptionError: a part of the text is not a step.
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
        removed = removed_by(steps)
        if overlap := removed.intersection(single):
            raise OptionError(_overlap(part, steps, min(overlap)))
        if len(set(single)) == len(single) and _takes_turns(removed | set(single)):
            steps += paired(single, after=steps)
            single = []
    if single:
        raise OptionError(f"{what} {text}: {_unpaired(single)}")
    return steps


def checked_steps(steps: Iterable[Step], num_blocks: int, *, what: str = "block") -> tuple[Step, ...]:
    """Check that steps exist and do not overlap, and return them in standard notation.

    Raises:
        OptionError: a step does not exist, or overlaps with an earlier step, or attention and MLP would no longer
            alternate after it.
    """
    if not isinstance(steps, Iterable):
        raise OptionError(f"steps are given as a list, such as [5, '17/18'], got {steps!r}")
    checked: list[Step] = []
    removed: set[Sublayer] = set()
    for step in read_steps(steps, what=f"{what}s") if isinstance(steps, str) else steps:
        parts = sublayers_of(step)
        if len(parts) > 2:
            raise OptionError(f"{step!r} is more than one step: write each as an entry of its own")
        for part in parts:
            if not 0 <= part.block < num_blocks:
                where = f" ({step})" if isinstance(step, str) else ""
                raise OptionError(
                    f"{what} {part.block}{where} does not exist: the model has blocks 0 to {num_blocks - 1}"
                )
        if overlap := removed.intersection(parts):
            raise OptionError(_overlap(step, checked, min(overlap), what=what))
        if len(set(parts)) != 2 or not _takes_turns(removed | set(parts)):
            raise OptionError(_unpaired(parts))
        checked.append(step_of(parts))
        removed |= set(parts)
    return tuple(checked)


def removed_by(steps: Iterable[Step]) -> frozenset[Sublayer]:
    """Return all sublayers that steps remove."""
    return frozenset(part for step in steps for part in sublayers_of(step))


def touched_by(steps: Iterable[Step]) -> frozenset[int]:
    """Return the blocks that steps remove completely or partly."""
    return frozenset(part.block for part in removed_by(steps))


def untouched(steps: Iterable[Step], num_blocks: int) -> list[int]:
    """Return the blocks of which steps remove nothing, in depth order."""
    touched = touched_by(steps)
    return [index for index in range(num_blocks) if index not in touched]


def kept_halves(steps: Iterable[Step], num_blocks: int) -> list[tuple[int, int]]:
    """Return the blocks that are left, each as the pair of blocks that its attention and its MLP come from."""
    row = left(steps, num_blocks)
    return [(attention.block, mlp.block) for attention, mlp in zip(row[::2], row[1::2], strict=True)]


def left(removed: Iterable[Step], num_blocks: int) -> list[Sublayer]:
    """Return the sublayers that are left without the steps `removed`, in depth order."""
    absent = removed_by(removed)
    return [sublayer for sublayer in map(Sublayer.at, range(2 * num_blocks)) if sublayer not in absent]


def candidates(removed: Iterable[Step], num_blocks: int, cuts: Cuts = "blocks") -> tuple[list[Step], list[Step]]:
    """Return the steps that can be taken next, as two series in depth order: blocks, and seams.

    With `blocks` these are the blocks of which nothing is removed, and no seams. With `all` they are the pairs of
    neighbours among the remaining sublayers: pairs at even places are blocks, pairs at odd places are seams. After the
    seam 17/18 one of the blocks is `17.attn,18.mlp`; after block 18, one of the seams is `17.mlp,19.attn`.

    Args:
        removed: The steps that are already taken.
        num_blocks: The number of blocks of the intact model.
        cuts: The steps that may be taken.
    """
    if checked_cuts(cuts) == "blocks":
        return list(untouched(removed, num_blocks)), []
    row = left(removed, num_blocks)
    blocks, seams = ([step_of(row[at : at + 2]) for at in range(first, len(row) - 1, 2)] for first in (0, 1))
    return blocks, seams


def sublayer_units(removed: Iterable[Step], num_blocks: int) -> tuple[list[Step], list[Step]]:
    """Return the attentions and the MLPs that are left, such as `7.attn` and `7.mlp`. None can be removed alone."""
    row = left(removed, num_blocks)
    attention, mlp = ([str(sublayer) for sublayer in row if sublayer.part == part] for part in ("attn", "mlp"))
    return list(attention), list(mlp)


def simplest(steps: Iterable[Step]) -> list[Step]:
    """Return the same removal as whole blocks as far as possible, and seams, in depth order, which is a valid order."""
    return [step for run in runs_of(removed_by(steps)) for step in steps_of(run)]


def runs_of(sublayers: Collection[Sublayer]) -> Iterator[tuple[Sublayer, ...]]:
    """Yield sublayers as runs of neighbours, in depth order."""
    run: list[Sublayer] = []
    for sublayer in sorted(sublayers):
        if run and sublayer.depth != run[-1].depth + 1:
            yield tuple(run)
            run = []
        run.append(sublayer)
    if run:
        yield tuple(run)


def steps_of(run: Sequence[Sublayer]) -> list[Step]:
    """Return an even number of sublayers, in depth order, as steps of two neighbours each."""
    return [step_of(run[index : index + 2]) for index in range(0, len(run), 2)]


def paired(sublayers: Collection[Sublayer], after: Iterable[Step] = ()) -> list[Step]:
    """Return sublayers as steps that can be taken one after the other, each of two sublayers that are then neighbours.

    Args:
        sublayers: The sublayers to remove.
        after: The steps that are taken before.

    Raises:
        OptionError: the sublayers cannot be removed in such steps.
    """
    missing, out = sorted(sublayers), set(removed_by(after))
    steps: list[Step] = []
    while missing:
        pair = next((pair for pair in pairwise(missing) if _takes_turns({*out, *pair})), None)
        if pair is None:
            raise OptionError(_unpaired(missing))
        steps.append(step_of(pair))
        out.update(pair)
        missing = [sublayer for sublayer in missing if sublayer not in pair]
    return steps


def weakest_first(scores: Mapping[Step, float]) -> list[Step]:
    """The steps from the lowest score to the highest; of two equal scores the deeper step comes first."""
    return sorted(scores, key=lambda step: (scores[step], -sublayers_of(step)[0].depth))


def named(steps: Sequence[Step]) -> str:
    """Name steps in words: `block 5`, `blocks 5, 6`, `seam 17/18`, `5, 17/18`."""
    written = ", ".join(map(str, steps))
    many = "s" if len(steps) > 1 else ""
    if all(isinstance(step, int) for step in steps):
        return f"block{many} {written}"
    if all(isinstance(step, str) and _SEAM.fullmatch(step) for step in steps):
        return f"seam{many} {written}"
    return written


def _parts(text: str, what: str) -> Iterator[tuple[str, list[Sublayer]]]:
    """Yield the parts of a text with their sublayers; a range is divided into its blocks."""
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
    """Read the sublayers in one part of a text."""
    part = text.strip()
    if part.isdecimal():
        return list(sublayers_of(int(part)))
    if seam := _SEAM.fullmatch(part):
        first, second = int(seam[1]), int(seam[2])
        if second != first + 1:
            raise OptionError(f"{part} is no seam, which lies between neighbours such as {first}/{first + 1}")
        return [Sublayer(first, "mlp"), Sublayer(second, "attn")]
    if match := _SUBLAYER.fullmatch(part):
        return [Sublayer(int(match[1]), "attn" if match[2] == "attn" else "mlp")]
    raise OptionError(f"{text!r} is no block (5), no range (8-10), no seam (17/18) and no sublayer (7.mlp)")


def _takes_turns(removed: Collection[Sublayer]) -> bool:
    """Whether attention and MLP alternate in what is left, whatever the number of blocks."""
    return all(len(run) % 2 == 0 for run in runs_of(removed))


def _unpaired(parts: Sequence[Sublayer]) -> str:
    """Say why sublayers cannot be removed together."""
    written = " and ".join(map(str, parts))
    return (
        f"without {written} attention and MLP would not take turns; remove whole blocks such as {parts[0].block}, or "
        f"seams such as {parts[0].block}/{parts[0].block + 1}"
    )


def _overlap(step: Step, earlier: Sequence[Step], part: Sublayer, *, what: str = "block") -> str:
    """Say why a step cannot follow others that have removed a part of it."""
    if step in earlier and isinstance(step, int):
        return f"{what} {step} is named twice"
    first = next(other for other in earlier if part in sublayers_of(other))
    return f"{first} and {step} both remove {part}"
