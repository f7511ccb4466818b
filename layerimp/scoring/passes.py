"""One pass over a calibration set: a sweep, and the scorers that share it and see its traces."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.snapshot import unchanged
from layerimp.calibration.validation import Checked
from layerimp.errors import LayerimpError, ModelError, PluginError, PredictionError, one_line
from layerimp.indices import named as written
from layerimp.registry.attribution import attributing, named
from layerimp.registry.catalog import registry
from layerimp.scorer import Scorer
from layerimp.scoring.observed_sites import as_observed, fallbacks
from layerimp.sweep.base import Drive

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.progress import Advance, Progress
    from layerimp.sweep import Scouting, Sweep, Trace
    from layerimp.sweep.cache import BlockCache


class _NobodyLeftError(PluginError):
    """All scorers of a pass have failed."""


NAMED = 4
"""So many candidates are named; more are counted."""


@dataclass(frozen=True)
class Scored:
    """What is scored in a pass.

    Attributes:
        stack: The model's blocks.
        calibration: The calibration set.
        removed: The blocks that are bypassed.
        blocks: The blocks that are scored.
        progress: Where to report progress.
        cache: The outputs of blocks in earlier passes.
        memory: What sweeps keep of the intact model on this calibration set.
    """

    stack: BlockStack
    calibration: Iterable[Batch]
    removed: Sequence[int]
    blocks: Sequence[int]
    progress: Progress
    cache: BlockCache | None
    memory: MutableMapping[Hashable, Any]


@dataclass
class Pass:
    """One sweep, and the scorers that share it. If a scorer fails, the others go on without it.

    Attributes:
        sweep: The sweep that serves all scorers.
        scorers: The scorers, by label.
        failed: For each scorer that failed, its error.
        scouting: Where the model has the sites that the scorers read.
        renamed: For each scorer, the sites that the model lacks, and the sites that are read in their place.
    """

    sweep: Sweep
    scorers: dict[str, Scorer]
    failed: dict[str, LayerimpError] = field(default_factory=dict)
    scouting: Scouting = field(init=False)
    renamed: dict[str, dict[str, str]] = field(init=False)

    def scout(self, stack: BlockStack) -> None:
        """Check, before any long work, that the model has the sites that the scorers read.

        Raises:
            ModelError: the model lacks a site that a scorer reads, and the scorer has no fallback for it; or the model
                is offloaded, and the sweep needs all of its blocks at once.
        """
        if stack.offloaded:
            self.check_offloading()
        wanted: set[str] = set()
        for scorer in self.scorers.values():
            # The sites that stand in for others are looked for as well, since the trial is made once.
            wanted |= scorer.observes | {scorer.fallbacks.get(site, site) for site in scorer.observes}
        self.scouting = self.sweep.scout(stack, frozenset(wanted))
        missing = self.scouting.missing
        self.renamed = {label: fallbacks(label, scorer, missing) for label, scorer in self.scorers.items()}

    def check_offloading(self) -> None:
        """Check that the pass can read a model that is offloaded.

        Raises:
            ModelError: the sweep needs all blocks of the model at once; the error names the scorers.
        """
        if self.sweep.reads_offloaded:
            return
        names = ", ".join(map(repr, self.scorers))
        raise ModelError(
            f"{names} cannot score an offloaded model: the sweep {type(self.sweep).__name__} needs all blocks in "
            "memory at once; --scorer fast does not, and --no-offload loads the whole model if it fits"
        )

    def run(self, scored: Scored) -> None:
        """Drive the model over the set.

        Raises:
            PluginError: a scorer wrote into a tensor that the model, and the other scorers, go on to use.
        """
        stack = scored.stack
        who = " and ".join(named("scorer", label, type(scorer)) for label, scorer in self.scorers.items())
        with (
            suppress(_NobodyLeftError),
            unchanged(stack.model, f"the sweep of {who}", weights=stack.offloaded),
            self._failing_together(who),
            _naming_those_without_prediction(),
            self._stage(scored) as advance,
        ):
            try:
                self.sweep.drive(stack, Checked(scored.calibration, stack), self._drive(scored, advance))
            except PluginError:  # a scorer may have written into what is kept
                scored.memory.clear()
                if scored.cache is not None:
                    scored.cache.forget_from(0)
                raise
            for label in self._attending():
                with self._setting_aside(label, "at the end of the text"):
                    self.scorers[label].end_sweep()

    def _stage(self, scored: Scored) -> AbstractContextManager[Advance]:
        """The stage of the pass, which counts batches, or the blocks of an offloaded model.

        A search may score several times without the same blocks, so the stage then says which candidates it scores.
        """
        labels, stack = ", ".join(self._attending()), scored.stack
        rounds, unit = (stack, "blocks") if stack.offloaded else (scored.calibration, "batches")
        total = len(rounds) if isinstance(rounds, Sized) else None
        count = len(scored.blocks)
        candidates = written(scored.blocks) if count <= NAMED else f"{count} candidates"
        of = f" of {candidates} without {written(scored.removed)}" if scored.removed else ""
        return scored.progress.stage(f"score {labels}{of}", total, unit=unit)

    def _drive(self, scored: Scored, advance: Advance) -> Drive:
        """What the sweep is to read for the scorers, and how it reaches them."""
        offloaded = scored.stack.offloaded
        together: dict[frozenset[str], list[str]] = {}  # scorers that read the same sites see the same traces
        for label in self._attending():
            renamed = self.renamed[label]
            sites = frozenset(renamed.get(site, site) for site in self.scorers[label].observes)
            together.setdefault(sites, []).append(label)
        return Drive(
            scouting=self.scouting,
            blocks=scored.blocks,
            takers={sites: partial(self._show, scored.blocks, labels) for sites, labels in together.items()},
            end_batch=lambda: None if offloaded else advance(1),
            lookback=max(self.scorers[label].lookback for label in self._attending()),
            end_block=lambda: advance(1),
            removed=scored.removed,
            cache=scored.cache,
            memory=scored.memory,
        )

    def _show(self, blocks: Sequence[int], labels: Sequence[str], trace: Trace) -> None:
        """Show a trace to scorers."""
        before, where = trace.versions(), f"at block {blocks[trace.block]}, batch {trace.batch}"
        for label in labels:
            if label in self.failed:
                continue
            with self._setting_aside(label, where):
                self.scorers[label].update(as_observed(trace, self.scorers[label], self.renamed[label]))
            if changed := [name for name, version in trace.versions().items() if version != before[name]]:
                with attributing("scorer", label, type(self.scorers[label])):
                    raise PluginError(f"it wrote into {changed[0]} {where}, which is borrowed; reduce a copy")

    def _attending(self) -> list[str]:
        """List the scorers that have not failed."""
        return [label for label in self.scorers if label not in self.failed]

    @contextmanager
    def _failing_together(self, who: str) -> Iterator[None]:
        """If a sweep that a plugin defines fails, mark all scorers of the sweep as failed."""
        try:
            yield
        except (LayerimpError, torch.OutOfMemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if type(self.sweep).__module__.startswith("layerimp."):
                raise
            broken = PluginError(f"the sweep of {who} failed: {one_line(error)}")
            broken.names_plugin = True
            self.failed |= dict.fromkeys(self._attending(), broken)

    @contextmanager
    def _setting_aside(self, label: str, where: str) -> Iterator[None]:
        try:
            with attributing("scorer", label, type(self.scorers[label]), where):
                yield
        except LayerimpError as error:
            self.failed[label] = error
            if not self._attending():
                raise _NobodyLeftError from error

    def notes(self, stack: BlockStack, label: str) -> list[str]:
        """What a reader of a scorer's scores has to know: which sites were read in place of others."""
        notes = []
        for site, other in self.renamed[label].items():
            blocks = self.scouting.missing[site]
            where = "no block has" if len(blocks) == len(stack) else f"{len(blocks)} of {len(stack)} blocks have no"
            kind = type(stack[blocks[0]]).__name__
            notes.append(f"{where} site {site} ({kind}); {other} is read instead, in every block")
        return notes


def shared_passes(scorers: Mapping[str, Scorer]) -> list[Pass]:
    """The fewest passes that serve scorers: scorers whose sweeps can be joined share a pass."""
    passes: list[Pass] = []
    for label, scorer in scorers.items():
        if scorer.sweep is None:
            continue
        for existing in passes:
            if joint := existing.sweep.union(scorer.sweep):
                existing.sweep = joint
                existing.scorers[label] = scorer
                break
        else:
            passes.append(Pass(scorer.sweep, {label: scorer}))
    return passes


def check_offloading(scorers: Mapping[str, Scorer]) -> None:
    """Check that scorers can read a model that is offloaded.

    Raises:
        ModelError: a sweep needs all blocks of the model at once; the error names its scorers.
    """
    for one_pass in shared_passes(scorers):
        one_pass.check_offloading()


@contextmanager
def _naming_those_without_prediction() -> Iterator[None]:
    """If a model's predictions cannot be read, name in the error the scorers that need none."""
    try:
        yield
    except PredictionError as error:
        sweeps = {name: getattr(registry().get("scorer", name), "sweep", None) for name in registry().names("scorer")}
        free = [name for name, sweep in sweeps.items() if sweep is None or not sweep.predicts]
        raise PredictionError(f"{error}; scorers that need no prediction: {', '.join(free)}") from error
