"""One pass over a calibration set: a sweep, and the scorers that share it and see its traces."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.snapshot import leaving_no_trace
from layerimp.calibration.validation import Checked
from layerimp.errors import LayerimpError, ModelError, PluginError, PredictionError, one_line
from layerimp.registry.attribution import attributing, named
from layerimp.registry.catalog import registry
from layerimp.scorer import Scorer
from layerimp.scoring.observed_sites import as_observed, fallbacks
from layerimp.steps import Step
from layerimp.steps import named as written
from layerimp.sweep.base import Drive, Series

if TYPE_CHECKING:
    from layerimp.blocks.middle import Halves
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.progress import Advance, Progress
    from layerimp.sweep import Scouting, Sweep, Trace, Unit
    from layerimp.sweep.cache import BlockCache


class _NobodyLeftError(PluginError):
    """All scorers of a pass have failed."""


Key = tuple[str, int]
"""A scorer in a pass: its label, and the series of units that it scores."""
NAMED = 4
"""So many candidates are named; more are counted."""


@dataclass(frozen=True)
class Scored:
    """What is scored in a pass.

    Attributes:
        stack: The model's blocks.
        calibration: The calibration set.
        removed: The steps that are bypassed.
        series: The units, in two series, of which the second may be empty.
        halves: The halves of every block that a unit divides, by its index.
        progress: Where to report progress.
        cache: The outputs of blocks in earlier passes.
        memory: What sweeps keep of the intact model on this calibration set.
    """

    stack: BlockStack
    calibration: Iterable[Batch]
    removed: Sequence[Step]
    series: Sequence[Sequence[Unit]]
    halves: Mapping[int, Halves]
    progress: Progress
    cache: BlockCache | None
    memory: MutableMapping[Hashable, Any]


@dataclass
class Pass:
    """One sweep, and the scorers that share it. If a scorer fails, the others go on without it.

    Attributes:
        sweep: The sweep that serves all scorers.
        scorers: The scorers, by label and series.
        failed: For each scorer that failed, its error.
        scouting: Where the model has the sites that the scorers read.
        renamed: For each scorer, the sites that the model lacks, and the sites that are read in their place.
    """

    sweep: Sweep
    scorers: dict[Key, Scorer]
    failed: dict[Key, LayerimpError] = field(default_factory=dict)
    scouting: Scouting = field(init=False)
    renamed: dict[Key, dict[str, str]] = field(init=False)

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
        self.renamed = {key: fallbacks(key[0], scorer, missing) for key, scorer in self.scorers.items()}

    def check_offloading(self) -> None:
        """Check that the pass can read a model that is offloaded.

        Raises:
            ModelError: the sweep needs all blocks of the model at once; the error names the scorers.
        """
        if self.sweep.reads_offloaded:
            return
        names = ", ".join(dict.fromkeys(repr(label) for label, _ in self.scorers))
        raise ModelError(
            f"{names} cannot score an offloaded model: the sweep {type(self.sweep).__name__} needs all blocks in "
            "memory at once; --scorer fast does not, and --no-offload loads the whole model if it fits"
        )

    def run(self, scored: Scored) -> None:
        """Drive the model over the set.

        Raises:
            PluginError: a scorer wrote into a tensor that the model, and the other scorers, go on to use.
        """
        stack, classes = scored.stack, {label: type(scorer) for (label, _), scorer in self.scorers.items()}
        who = " and ".join(named("scorer", label, cls) for label, cls in classes.items())
        with (
            suppress(_NobodyLeftError),
            leaving_no_trace(stack.model, scored.progress, f"the sweep of {who}", weights=stack.offloaded),
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
            for key in self._attending():
                with self._setting_aside(key, "at the end of the text"):
                    self.scorers[key].end_sweep()

    def _stage(self, scored: Scored) -> AbstractContextManager[Advance]:
        """The stage of the pass, which counts batches, or the blocks of an offloaded model.

        A search may score several times without the same steps, so the stage then says which candidates it scores.
        """
        labels, stack = ", ".join(dict.fromkeys(label for label, _ in self._attending())), scored.stack
        rounds, unit = (stack, "blocks") if stack.offloaded else (scored.calibration, "batches")
        total = len(rounds) if isinstance(rounds, Sized) else None
        unit_bytes = stack.residency.block_bytes if stack.residency else 0
        steps = [unit.step for units in scored.series for unit in units]
        candidates = written(steps) if len(steps) <= NAMED else f"{len(steps)} candidates"
        of = f" of {candidates} without {written(scored.removed)}" if scored.removed else ""
        return scored.progress.stage(f"score {labels}{of}", total, unit=unit, unit_bytes=unit_bytes)

    def _drive(self, scored: Scored, advance: Advance) -> Drive:
        """What the sweep is to read for the scorers, and how it reaches them."""
        offloaded = scored.stack.offloaded
        present = sorted({which for _, which in self._attending()})
        return Drive(
            scouting=self.scouting,
            series=[self._series(which, scored.series[which]) for which in present],
            end_batch=lambda: None if offloaded else advance(1),
            end_block=lambda: advance(1),
            removed=scored.removed,
            halves=scored.halves,
            cache=scored.cache,
            memory=scored.memory,
        )

    def _series(self, which: int, units: Sequence[Unit]) -> Series:
        """What the sweep is to read of one series: scorers that read the same sites see the same traces."""
        keys: dict[frozenset[str], list[Key]] = {}
        lookback = 0
        for key in self._attending():
            if key[1] == which:
                scorer, renamed = self.scorers[key], self.renamed[key]
                keys.setdefault(frozenset(renamed.get(site, site) for site in scorer.observes), []).append(key)
                lookback = max(lookback, scorer.lookback)
        return Series(units, {sites: partial(self._show, units, own) for sites, own in keys.items()}, lookback)

    def _show(self, units: Sequence[Unit], keys: Sequence[Key], trace: Trace) -> None:
        """Show a trace to scorers."""
        before, where = trace.versions(), f"at {written([units[trace.block].step])}, batch {trace.batch}"
        for key in keys:
            if key in self.failed:
                continue
            with self._setting_aside(key, where):
                self.scorers[key].update(as_observed(trace, self.scorers[key], self.renamed[key]))
            if changed := [name for name, version in trace.versions().items() if version != before[name]]:
                with attributing("scorer", key[0], type(self.scorers[key])):
                    raise PluginError(f"it wrote into {changed[0]} {where}, which is borrowed; reduce a copy")

    def _attending(self) -> list[Key]:
        """List the scorers that have not failed."""
        return [key for key in self.scorers if key not in self.failed]

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
    def _setting_aside(self, key: Key, where: str) -> Iterator[None]:
        try:
            with attributing("scorer", key[0], type(self.scorers[key]), where):
                yield
        except LayerimpError as error:
            self.failed[key] = error
            if not self._attending():
                raise _NobodyLeftError from error

    def notes(self, stack: BlockStack, key: Key) -> list[str]:
        """What a reader of a scorer's scores has to know: which sites were read in place of others."""
        notes = []
        for site, other in self.renamed[key].items():
            blocks = self.scouting.missing[site]
            where = "no block has" if len(blocks) == len(stack) else f"{len(blocks)} of {len(stack)} blocks have no"
            kind = type(stack[blocks[0]]).__name__
            notes.append(f"{where} site {site} ({kind}); {other} is read instead, in every block")
        return notes


def shared_passes(series: Sequence[Mapping[str, Scorer]]) -> list[Pass]:
    """The fewest passes that serve the scorers of all series: scorers whose sweeps can be joined share a pass."""
    passes: list[Pass] = []
    for label in dict.fromkeys(label for scorers in series for label in scorers):
        for which, scorers in enumerate(series):
            if (scorer := scorers.get(label)) is None or scorer.sweep is None:
                continue
            for existing in passes:
                if joint := existing.sweep.union(scorer.sweep):
                    existing.sweep = joint
                    existing.scorers[label, which] = scorer
                    break
            else:
                passes.append(Pass(scorer.sweep, {(label, which): scorer}))
    return passes


def check_offloading(series: Sequence[Mapping[str, Scorer]]) -> None:
    """Check that scorers can read a model that is offloaded.

    Raises:
        ModelError: a sweep needs all blocks of the model at once; the error names its scorers.
    """
    for one_pass in shared_passes(series):
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
