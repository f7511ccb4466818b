"""One pass over a calibration set: a sweep, and the scorers that share it and see its traces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from layerimp.blocks.snapshot import leaving_no_trace
from layerimp.calibration.validation import Checked
from layerimp.errors import LayerimpError, ModelError, PluginError, PredictionError, listing
from layerimp.registry.attribution import attributing, named
from layerimp.registry.catalog import registry
from layerimp.steps import Step, untouched
from layerimp.sweep.base import Drive

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.progress import Advance, Progress
    from layerimp.scorer import Scorer
    from layerimp.sweep import Scouting, Sweep, Trace
    from layerimp.sweep.cache import BlockCache


class HarmfulError(PluginError):
    """A scorer wrote into a tensor that the model, and the other scorers, go on to use."""


class _NobodyLeftError(PluginError):
    """All scorers of a pass were set aside."""


@dataclass
class Pass:
    """One sweep, and the scorers that share it. A scorer that fails is set aside, and the others go on.

    Attributes:
        sweep: The sweep that serves all of them.
        scorers: The scorers, by label.
        failed: Why some of them were set aside, by label.
        scouting: Where the model has the sites that they read.
        renamed: For each scorer, the sites that the model lacks, and what is read in their place.
    """

    sweep: Sweep
    scorers: dict[str, Scorer]
    failed: dict[str, LayerimpError] = field(default_factory=dict)
    scouting: Scouting = field(init=False)
    renamed: dict[str, dict[str, str]] = field(init=False)

    def scout(self, stack: BlockStack) -> None:
        """Find out, before anything long, whether the model has what the scorers read.

        Raises:
            ModelError: it has not.
        """
        wanted = {site for scorer in self.scorers.values() for site in scorer.observes}
        # The sites that stand in for others are looked for as well, since the trial is made once.
        substitutes = {scorer.fallbacks.get(site) for scorer in self.scorers.values() for site in scorer.observes}
        self.scouting = self.sweep.scout(stack, frozenset(wanted | {site for site in substitutes if site}))
        missing = self.scouting.missing
        self.renamed = {label: _fallbacks(label, scorer, missing) for label, scorer in self.scorers.items()}

    def run(
        self,
        stack: BlockStack,
        calibration: Iterable[Batch],
        removed: Sequence[Step],
        progress: Progress,
        cache: BlockCache | None,
    ) -> None:
        """Drive the model over the set; and once more, where a scorer harmed what the others were to see.

        Args:
            stack: The model's blocks.
            calibration: The calibration set.
            removed: The steps that are bypassed; the blocks of which they remove nothing are scored.
            progress: Where to report progress.
            cache: What the blocks put out in earlier passes.
        """
        total = len(calibration) if isinstance(calibration, Sized) else None
        who = " and ".join(named("scorer", label, type(scorer)) for label, scorer in self.scorers.items())
        with (
            suppress(_NobodyLeftError),
            leaving_no_trace(stack.model, progress, f"the sweep of {who}"),
            _naming_those_without_prediction(),
        ):
            while True:
                with suppress(HarmfulError), progress.stage(f"score {', '.join(self._attending())}", total) as advance:
                    self.sweep.drive(stack, Checked(calibration, stack), self._drive(stack, removed, cache, advance))
                    for label in self._attending():
                        with self._setting_aside(label, "at the end of the text"):
                            self.scorers[label].end_sweep()
                    return
                self._renew()
                cache = None  # it may hold what was harmed

    def _drive(self, stack: BlockStack, removed: Sequence[Step], cache: BlockCache | None, advance: Advance) -> Drive:
        """What the sweep is to read for the scorers, and how it reaches them."""
        bundles = self._bundles()
        kept = untouched(removed, len(stack))

        def show(trace: Trace) -> None:
            before, where = trace.versions(), f"at block {kept[trace.block]}, batch {trace.batch}"
            for label in self._attending():
                if not bundles[label] <= trace.acts.keys():
                    continue
                with self._setting_aside(label, where):
                    self.scorers[label].update(_view(trace, self.scorers[label], self.renamed[label]))
                    if written := [name for name, version in trace.versions().items() if version != before[name]]:
                        raise HarmfulError(f"it wrote into {written[0]} {where}, which is borrowed; reduce a copy")

        def end_batch() -> None:
            for label in self._attending():
                with self._setting_aside(label, "at the end of a batch"):
                    self.scorers[label].end_batch()
            advance(1)

        return Drive(
            scouting=self.scouting,
            bundles=set(bundles.values()),
            emit=show,
            end_batch=end_batch,
            lookback=max(scorer.lookback for scorer in self.scorers.values()),
            removed=removed,
            cache=cache,
        )

    def _bundles(self) -> dict[str, frozenset[str]]:
        """By label, the sites that one trace has to hold for a scorer: its own, or a larger set that holds them all."""
        own = {
            label: frozenset(self.renamed[label].get(site, site) for site in scorer.observes)
            for label, scorer in self.scorers.items()
        }
        largest = sorted(own.values(), key=lambda sites: (-len(sites), sorted(sites)))
        return {label: next(other for other in largest if sites <= other) for label, sites in own.items()}

    def _attending(self) -> list[str]:
        """Who was not set aside."""
        return [label for label in self.scorers if label not in self.failed]

    def _renew(self) -> None:
        """Let fresh scorers take the place of those who saw what was harmed."""
        for label in self._attending():
            scorer = self.scorers[label]
            self.scorers[label] = type(scorer)(scorer.num_blocks, scorer.config)

    @contextmanager
    def _setting_aside(self, label: str, where: str) -> Iterator[None]:
        try:
            with attributing("scorer", label, type(self.scorers[label]), where):
                yield
        except LayerimpError as error:
            self.failed[label] = error
            if not self._attending():
                raise _NobodyLeftError from error
            if isinstance(error, HarmfulError):
                raise

    def notes(self, stack: BlockStack, label: str) -> list[str]:
        """What a reader of a scorer's scores has to know: which sites were read in place of others."""
        found = []
        for site, other in self.renamed[label].items():
            blocks = self.scouting.missing[site]
            where = "no block has" if len(blocks) == len(stack) else f"{len(blocks)} of {len(stack)} blocks have no"
            kind = type(stack[blocks[0]]).__name__
            found.append(f"{where} site {site} ({kind}); {other} is read instead, in every block")
        return found


def shared_passes(scorers: Mapping[str, Scorer]) -> list[Pass]:
    """As few passes as serve all scorers, by label; scorers whose sweeps can be joined share one."""
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


def _fallbacks(label: str, scorer: Scorer, missing: Mapping[str, list[int]]) -> dict[str, str]:
    """For each site that the model lacks, the one that the scorer reads in its place, in all blocks alike."""
    renamed = {}
    for site in sorted(scorer.observes & missing.keys()):
        other = scorer.fallbacks.get(site)
        if other is None:
            raise ModelError(f"scorer {label!r} reads the site {site!r}, which block {missing[site][0]} does not have")
        renamed[site] = other
    return renamed


@contextmanager
def _naming_those_without_prediction() -> Iterator[None]:
    """Where a model's predictions cannot be read, name the scorers that need none."""
    try:
        yield
    except PredictionError as error:
        sweeps = {name: getattr(registry().get("scorer", name), "sweep", None) for name in registry().names("scorer")}
        free = [name for name, sweep in sweeps.items() if sweep is None or not sweep.predicts]
        raise PredictionError(f"{error}; scorers that need no prediction: {', '.join(free)}") from error


class _Observed(dict[str, "Tensor"]):
    """The sites that a scorer observes; who reads another one is told."""

    def __missing__(self, site: str) -> Tensor:
        raise PluginError(f"it reads the site {site!r}, which is not in its `observes` ({listing(self)})")


def _view(trace: Trace, scorer: Scorer, renamed: Mapping[str, str]) -> Trace:
    """A trace as a scorer sees it: with the sites that it observes, under their names."""
    return replace(trace, acts=_Observed({site: trace.acts[renamed.get(site, site)] for site in scorer.observes}))
