"""The contract of a healer: what a healer is given, and how it reports its work."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from layerimp.component import Component
from layerimp.errors import NonFiniteError, PluginError
from layerimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.fidelity import Distance, Loss


@dataclass(frozen=True)
class Writer:
    """The last linear map that writes into the residual stream before a gap, and what lies between map and stream.

    Attributes:
        path: The linear map, by its path in the pruned model, such as `model.layers.11.mlp.down_proj`.
        norm: The norm between the map's output and the gap, by its path; None if there is no norm.
        scale: The constant by which the model multiplies the output before adding it; 1 in most models.
        joined: Whether the norm reads the whole stream (post-norm) rather than only the map's output (sandwich norms).
        offset: The constant that the norm adds to its weight before multiplying: 1 in Gemma, 0 in most models.
    """

    path: str
    norm: str | None = None
    scale: float = 1.0
    joined: bool = False
    offset: float = 0.0


@dataclass(frozen=True)
class Gap:
    """A place in the pruned model where neighbouring blocks were removed.

    Without the blocks 3 and 4 of 12 the gap is between the blocks 2 and 5, and its position in the pruned model is 3.

    Attributes:
        removed: The blocks that were there, in depth order, by their indices in the intact model.
        before: The last kept block before the gap, by its index in the intact model; None at the start of the stack.
        after: The first kept block after the gap; None at the end of the stack, where only the head comes after.
        position: Where the gap is in the pruned model: the block after the gap, by its index there. At the end of the
            stack this is the number of blocks.
        writer: The last linear map before the gap; None if no single linear map writes there.
        obstacle: Why there is no writer; empty if there is one.
    """

    removed: tuple[int, ...]
    before: int | None
    after: int | None
    position: int
    writer: Writer | None
    obstacle: str = ""

    @property
    def end(self) -> int:
        """Where the gap ends in the intact model: the block after the removed ones; at the end their number."""
        return self.removed[-1] + 1

    def __str__(self) -> str:
        first, last = self.removed[0], self.removed[-1]
        return f"block {first}" if first == last else f"blocks {first}-{last}"


@dataclass(frozen=True)
class Repair:
    """What was done at a gap.

    Attributes:
        gap: The gap.
        done: What was done, in a word that users can look up, such as `linear`; `nothing` if the gap was left as it is.
        why: What a reader has to know about the repair, such as why another method than the requested one was used.
        numbers: Finite numbers that describe it, by name, such as a factor or a ridge.

    Raises:
        NonFiniteError: a number is a NaN or an infinity.
    """

    gap: Gap
    done: str
    why: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, number in self.numbers.items():
            if not math.isfinite(number):
                raise NonFiniteError(f"the {name} at {self.gap} is {number}")


@dataclass(frozen=True)
class Case:
    """What a healer is given.

    Attributes:
        intact: The blocks of the intact model, which stays as it is, bit for bit.
        pruned: The blocks of the pruned model. It is a separate tree of modules that may share every tensor with the
            intact model, so replace parameters with `layerimp.healing.replace`, and never write into them.
        gaps: The places where something was removed, in depth order.
        batches: The text to heal on.
        held_out: Other text, on which the loss is measured to choose between options.
        further: More text to heal on than `batches`, for healers that train: read anew each time, batch by batch. Empty
            if no such text was given.
        further_length: The most tokens in a row of `further`, as far as it has an attribute `max_length`; else 0.
        loss: Measures the current pruned model on `held_out`. The targets are the text's own next tokens. For a
            classifier they are its labels, or without labels the predictions of the intact model.
        distance: Measures how far the current pruned model is from the intact one, on rows that are used for nothing
            else. What a healer did is kept or taken back by `Distance.is_better_than`; a healer that trains chooses its
            steps by it.
        progress: Where to report progress.
        rerun: Gives a context in which a model runs a batch of the case from the first block that has changed since the
            model last ran this batch; used by `loss` and `layerimp.healing.states`.
        workspace: Gives a directory for the state of long work. It holds what an interrupted run of the same healing
            has left there, and is removed once it is no longer needed. None if there is no such directory.
        began: When the healing began, by `time.monotonic`: before the first measurement of the models.
    """

    intact: BlockStack
    pruned: BlockStack
    gaps: Sequence[Gap]
    batches: Sequence[Batch]
    held_out: Sequence[Batch]
    loss: Callable[[], Loss]
    distance: Callable[[], Distance]
    progress: Progress = SILENT
    further: Iterable[Batch] = ()
    further_length: int = 0
    rerun: Callable[[BlockStack, Batch], AbstractContextManager[None]] = lambda _stack, _batch: nullcontext()
    workspace: Callable[[], Path | None] = lambda: None
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Scope:
    """The size of a healing, as far as it is known before any model is loaded.

    Attributes:
        gaps: How many places something is removed at, at most.
        length: The most tokens in a row of text.
    """

    gaps: int
    length: int


@dataclass(frozen=True)
class Room:
    """The memory for a healing.

    Attributes:
        device: The type of the device, such as `cpu` or `cuda`.
        free: The free bytes there, beside the weights of both models.
    """

    device: str
    free: int


@dataclass(frozen=True)
class Decision:
    """What a healer decides by the memory that there is.

    Attributes:
        words: The decision, in a line.
        options: The options by which the healer decides the same on any machine.
    """

    words: str
    options: Mapping[str, str | int | float]


class Healer(Component):
    """Repairs what is left of a pruned model.

    A whole plugin with one:

        from layerimp import Healer, hookimpl
        from layerimp.healer import Repair
        from layerimp.healing import replace, states


        class Louder(Healer):
            \"\"\"Scales the last map before each gap, to bring the stream close to what it was.\"\"\"

            name = "louder"

            def heal(self, case):
                return [self.repair(case, gap) for gap in case.gaps]

            def repair(self, case, gap):
                if gap.writer is None or gap.writer.norm:
                    return Repair(gap, "nothing", gap.obstacle or "a norm comes after the map")
                square = product = 0.0
                for state in states(case, gap, case.batches):
                    added = gap.writer.scale * state.written
                    square += float(added.square().sum())
                    product += float((added * (state.target - state.stream)).sum())
                factor = 1 + product / square
                linear = case.pruned.model.get_submodule(gap.writer.path)
                for name, value in linear.named_parameters():
                    replace(case.pruned.model, f"{gap.writer.path}.{name}", factor * value)
                return Repair(gap, "louder", numbers={"factor": factor})


        @hookimpl
        def layerimp_healers():
            return [Louder]

    A healer with options chooses between them by `Case.loss`. `layerimp.healing` has the functions that healers need.

    Attributes:
        reads_further: Whether the healer reads `Case.further`; a command refuses `--heal-text` if none of its healers
            does.
    """

    reads_further: ClassVar[bool] = False

    @abstractmethod
    def heal(self, case: Case) -> list[Repair]:
        """Replace parameters of `case.pruned`.

        Shapes, dtypes and the configuration stay, so that the result is a checkpoint of the same architecture. What
        cannot be healed exactly as the method says falls back to something else, or is left, and the repair says so.

        Args:
            case: The models, the gaps and the text.

        Returns:
            What was done at each gap, in their order.

        Raises:
            ModelError: this healer cannot heal such a model.
        """

    def tokens(self, scope: Scope, rows: int) -> float | None:
        """How many tokens models run forward on in `heal`, about; a backward pass counts twice. None if not known.

        Args:
            scope: The size of the healing.
            rows: The rows of the text.
        """
        return None

    def decide(self, pruned: BlockStack, scope: Scope, room: Room) -> Decision | None:
        """Return what the healer decides by the memory that there is; None if it decides nothing by that.

        Args:
            pruned: The blocks of the pruned model; its parameters may be on the meta device.
            scope: The size of the healing.
            room: The memory.
        """
        return None

    def at_every_gap(self, case: Case) -> list[Repair]:
        """The repairs, held against the gaps.

        Raises:
            PluginError: they are not one for each gap.
        """
        repairs = self.heal(case)
        if not isinstance(repairs, list | tuple) or not all(isinstance(repair, Repair) for repair in repairs):
            raise PluginError("heal() does not give a list of Repair")
        if [repair.gap for repair in repairs] != list(case.gaps):
            raise PluginError(
                f"heal() tells of {len(repairs)} gaps, not of each of the {len(case.gaps)} in their order"
            )
        return list(repairs)
