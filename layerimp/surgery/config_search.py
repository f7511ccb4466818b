"""Finds a configuration from which stock code builds exactly a model's kept blocks.

No field is known by name. Lists with one entry per block, and mappings from block to entry, lose the entries of removed
blocks. Other fields that depend on the depth are found by trial: a field is rewritten as a count of the first or last
blocks, as a list of indices, as a period, or as a factor that scales with the depth, and the change is kept if it makes
the meta model more like the kept blocks. If any difference is left at the end, the removal is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from operator import getitem
from typing import TYPE_CHECKING, Any

from torch import nn

from layerimp.blocks.modes import quiet
from layerimp.errors import SurgeryError
from layerimp.surgery.config_edits import COMMON, COUNTS_LAYERS, FieldPath, Fields, Rewrites, leaves, write
from layerimp.surgery.kept import KeptBlocks, same
from layerimp.surgery.meta_model import Builder, Facts, blocks_of, facts, lists_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack

_LIMIT = 400
"""The largest number of meta models to try."""


@dataclass
class Shortened:
    """A configuration for the kept blocks, and the other changes to the model that follow from it.

    Attributes:
        config: The configuration of the whole model.
        meta_model: The model that stock code builds from the configuration.
        attributes: New values of plain attributes of the kept blocks, by (new index, path); mostly block indices.
        outside: New values of plain attributes of the rest of the model, by path.
        parallel: The paths of further lists of modules that have one module per block.
        tables: The weights outside the blocks that have one slice per block, by path, with the axis.
        left: The remaining differences in the kept blocks, in words.
        beside: The remaining differences outside the blocks, in words.
    """

    config: PretrainedConfig
    meta_model: PreTrainedModel
    attributes: dict[tuple[int, str], object] = field(default_factory=dict)
    outside: dict[str, object] = field(default_factory=dict)
    parallel: list[str] = field(default_factory=list)
    tables: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    @property
    def misfit(self) -> int:
        """The number of remaining differences."""
        return len(self.left) + len(self.beside)


def shortened(stack: BlockStack, kept: Sequence[int]) -> Shortened:
    """Find a configuration from which stock code builds the kept blocks.

    Args:
        stack: The blocks of the intact model.
        kept: The kept blocks.

    Raises:
        SurgeryError: no such configuration was found; the error says what would be different.
    """
    with quiet():
        return _Search(stack, kept).run()


class _Search:
    """The search for a configuration of the kept blocks."""

    def __init__(self, stack: BlockStack, kept: Sequence[int]) -> None:
        self.stack, self.count = stack, len(stack)
        self.model, self.name = stack.model, type(stack.model).__name__
        self.builder = Builder(self.model)
        self.tries = 0
        self.error = ""
        try:
            intact = self.builder.build(self.model.config)
        except Exception as error:
            raise self._unbuilt(error) from error
        blocks = blocks_of(intact, stack.path)
        if len(blocks) != self.count:
            raise SurgeryError(f"{self.name} is not built from its own configuration with {self.count} blocks")
        self.kept = KeptBlocks(kept, [facts(block) for block in blocks])
        self.rest, self.lists = facts(intact, without=stack.path), lists_of(intact)
        self.names = {*intact.state_dict(), *(f"{path}.class" for path, _ in intact.named_modules())}
        self.whole = self.model.config.to_dict()
        self.where = _location(self.model.config, stack.config, self.name)
        self.rewrites = Rewrites(kept, self.count, self.kept.kinds())

    def run(self) -> Shortened:
        fields, best = self._start()
        while best.misfit and (better := self._improved(fields, best)):
            fields, best = better
        if best.misfit:
            raise SurgeryError(self._why_unfit(best))
        return self._consistent(fields, best)

    def _start(self) -> tuple[Fields, Shortened]:
        """Shorten the lists and mappings, and choose the best field among those that may count the blocks."""
        part = self._part(self.whole)
        listed = {(name,): new for name, old in part.items() if (new := self.rewrites.listed(name, old)) is not None}
        starts: list[tuple[Fields, Shortened]] = []
        for left_out, counted in product(((), *listed), list(self._counts())):
            if left_out and starts:
                break  # if a list has this length by chance, shortening it would make every meta model fail
            fields = {path: new for path, new in listed.items() if path != left_out} | counted
            tried = self._try(fields)
            if tried is not None:
                starts.append((fields, tried))
                if not tried.misfit:
                    return fields, tried
        if not starts:
            raise SurgeryError(self.error or f"{self.name} has no field that counts its {self.count} blocks")
        return min(starts, key=lambda pair: pair[1].misfit)

    def _counts(self) -> Iterator[Fields]:
        """Yield the fields that may count the blocks, beginning with the one whose name says so."""
        kept, part = len(self.kept), self._part(self.whole)
        main = self.stack.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
        names = [name for name, value in part.items() if type(value) is int and value == self.count]
        names = [name for name in names if name not in COMMON]
        names.sort(key=lambda name: (name != main, not COUNTS_LAYERS.search(name)))
        for name in names:
            yield {(name,): kept}
        layered = [(name,) for name in names if COUNTS_LAYERS.search(name)]
        if len(layered) > 1:
            yield dict.fromkeys(layered, kept)
        if all(not COUNTS_LAYERS.search(name) for name in names):
            yield {}  # the number follows from the lists alone

    def _improved(self, fields: Fields, best: Shortened) -> tuple[Fields, Shortened] | None:
        """Return the first new value of one field that leaves fewer differences."""
        for path, value, candidate in self._candidates():
            if fields.get(path, value) == candidate or self.tries >= _LIMIT:
                continue
            changed = {**fields, path: candidate}
            tried = self._try(changed)
            if tried is not None and tried.misfit < best.misfit:
                return changed, tried
        return None

    def _candidates(self) -> Iterator[tuple[FieldPath, Any, Any]]:
        """Yield fields with their values and possible new values."""
        # Likely values of all fields come first, and among them fields whose name mentions layers.
        known = sorted(leaves(self._part(self.whole)), key=lambda pair: not COUNTS_LAYERS.search(pair[0][-1]))
        for path, value in known:
            yield from ((path, value, candidate) for candidate in self.rewrites.candidates(value))
        for path, value in known:
            yield from ((path, value, candidate) for candidate in self.rewrites.periods(value))

    def _consistent(self, fields: Fields, best: Shortened) -> Shortened:
        """Also shorten fields that count layers but have no effect, because a list decides, for other readers.

        A meta model shows whether a field has an effect.
        """
        for path, follower in self.rewrites.followers(self._part(self.whole), fields):
            changed = {**fields, path: follower}
            tried = self._try(changed)
            if tried is None or tried.misfit or (tried.parallel, tried.tables) != (best.parallel, best.tables):
                continue
            if type(follower) is list or (tried.outside, tried.attributes) == (best.outside, best.attributes):
                fields, best = changed, tried
        return best

    def _try(self, fields: Fields) -> Shortened | None:
        """Build a meta model with new values of fields, and compare it; None if it cannot be built."""
        self.tries += 1
        whole = copy.deepcopy(self.whole)
        try:
            write(self._part(whole), fields)
            config = type(self.model.config).from_dict(whole)
            meta_model = self.builder.build(config)
        except Exception as error:
            self.error = self.error or str(self._unbuilt(error))
            return None
        blocks = blocks_of(meta_model, self.stack.path)
        if len(blocks) != len(self.kept):
            self.error = self.error or f"{self.name} builds {len(blocks)} blocks where {len(self.kept)} are kept"
            return None
        shortened = Shortened(config, meta_model)
        self._compare_blocks(shortened, [facts(block) for block in blocks])
        self._compare_rest(shortened)
        return shortened

    def _compare_blocks(self, shortened: Shortened, after: list[Facts]) -> None:
        for new, name, was, now, follows in self.kept.compare(after):
            if follows:
                shortened.attributes[new, name] = now
            else:
                shortened.left.append(
                    f"block {self.kept.kept[new]} cannot become block {new} of {self.name}: "
                    f"its {name} would change from {was} to {now}"
                )

    def _compare_rest(self, shortened: Shortened) -> None:
        """Compare the rest of the model: attributes, further lists and tables may change; classes must not."""
        after_lists = lists_of(shortened.meta_model)
        for path, length in self.lists.items():
            other = after_lists.get(path)
            if path == self.stack.path or path.startswith(f"{self.stack.path}.") or other is None:
                continue
            if length == self.count and other == len(self.kept) < self.count:
                shortened.parallel.append(path)
        rest = facts(shortened.meta_model, without=self.stack.path)
        beside = tuple(f"{path}." for path in shortened.parallel)
        for name in sorted(self.rest.keys() | rest.keys()):
            was, now = self.rest.get(name), rest.get(name)
            if same(was, now) or (beside and name.startswith(beside)):
                continue
            axis = _sliced_axis(was, now, self.count, len(self.kept))
            if axis is not None:
                shortened.tables[name] = axis
            elif name in rest and _is_attribute(shortened.meta_model, name):
                shortened.outside[name] = now
            elif name not in rest and name not in self.names:
                continue  # only the removed blocks used it
            else:
                shortened.beside.append(f"{name} would change from {was} to {now}")

    def _part(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of that part of the configuration which counts the blocks."""
        return reduce(getitem, self.where, whole)

    def _unbuilt(self, error: Exception) -> SurgeryError:
        cause = " ".join(line.strip() for line in str(error).strip().split("\n")[:2])
        cause = cause if len(cause) <= 200 else f"{cause[:200]} ..."
        return SurgeryError(f"{self.name} cannot be built from its shortened configuration: {cause}")

    def _why_unfit(self, best: Shortened) -> str:
        if not best.left:
            return (
                f"blocks cannot be removed from {self.name}: its {best.beside[0]}, because it depends on their number"
            )
        if self.tries >= _LIMIT:
            return f"{best.left[0]}, and in {_LIMIT} tries no configuration was found that keeps it"
        return f"{best.left[0]}, because it depends on the position"


def _location(config: PretrainedConfig, part: PretrainedConfig, model: str) -> FieldPath:
    """Return the path of a part of a configuration; empty if the part is the whole configuration.

    Raises:
        SurgeryError: the configuration has no such part.
    """
    for path, held in _configurations(config):
        if held is part:
            return path
    raise SurgeryError(f"the configuration that counts the blocks of {model} is no part of the model's own")


def _configurations(config: PretrainedConfig, path: FieldPath = ()) -> Iterator[tuple[FieldPath, PretrainedConfig]]:
    """Yield a configuration and all its parts, each with its path."""
    yield path, config
    for name, value in vars(config).items():
        if hasattr(value, "to_diff_dict"):
            yield from _configurations(value, (*path, name))


def _sliced_axis(was: object, now: object, count: int, kept: int) -> int | None:
    """Return the axis along which a shape has one slice per block, before and after; None if there is none."""
    if not (isinstance(was, tuple) and isinstance(now, tuple) and len(was) == len(now)):
        return None
    if not all(type(size) is int for size in (*was, *now)):
        return None
    axes = [axis for axis, (before, after) in enumerate(zip(was, now, strict=True)) if before != after]
    if len(axes) != 1:
        return None
    before, after = was[axes[0]], now[axes[0]]
    return axes[0] if before % count == 0 and before // count * kept == after else None


def _is_attribute(model: nn.Module, name: str) -> bool:
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    return own != "class" and own in vars(module)
