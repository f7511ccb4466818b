"""The scorers of a run: those requested by name, those that `all` stands for, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from layerimp.blocks.stack import TRIAL_TOKENS
from layerimp.defaults import ALL
from layerimp.errors import CalibrationError, ModelError, NonFiniteError, OptionError, PluginError, SurgeryError
from layerimp.recipe import ComponentSpec, Recipe
from layerimp.registry.attribution import attributing, create
from layerimp.registry.catalog import registry
from layerimp.scorer import Scorer
from layerimp.scoring.engine import measure, scored_blocks
from layerimp.scoring.passes import check_offloading
from layerimp.sweep.forward import Forward
from layerimp.sweep.half import Half, Part

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.progress import Progress


@dataclass
class Selection:
    """The scorers of a run, by label.

    A scorer that was not requested by name is left out if it cannot run, and a note says so. For example, `all` leaves
    out a scorer that does not fit the model.

    Attributes:
        progress: Where notes are reported.
        specs: The scorers that take part, in the order of the results.
        unnamed: The labels that were not requested by name; these scorers may be left out.
        baselines: The unnamed labels that are baselines: their models are measured, but not saved.
        left_out: By label, why an unnamed scorer was left out.
        failed: By label, why a named scorer failed before the end.
    """

    progress: Progress
    specs: dict[str, ComponentSpec] = field(default_factory=dict)
    unnamed: set[str] = field(default_factory=set)
    baselines: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, progress: Progress) -> Selection:
        """The scorers that a recipe names, and those that its `all` stands for.

        Raises:
            UnknownNameError: a scorer, or one of its options, does not exist.
            OptionError: an option is wrong, or a label is the name of another scorer.
            PluginError: the plugin of a named scorer failed.
        """
        selection = cls(progress)
        for label, spec in expanded(recipe.scorers, progress).items():
            if label in recipe.scorers:
                check_spec(label, spec)
                selection.specs[label] = spec
            else:
                selection._invite(label, spec)
        return selection

    def add_baselines(self, recipe: Recipe) -> None:
        """Add the recipe's baselines, except those that take part already.

        Raises:
            UnknownNameError: a baseline, or one of its options, does not exist.
            OptionError: an option is wrong, or a label is the name of another scorer.
        """
        for label, spec in recipe.baselines.items():
            if label not in self.specs:
                self._invite(label, spec)
                if label in self.specs:
                    self.baselines.append(label)
        if self.baselines:
            self.progress.note(f"evaluated as well: {', '.join(self.baselines)} (--no-baselines leaves them out)")

    def _invite(self, label: str, spec: ComponentSpec) -> None:
        self.specs[label] = spec
        self.unnamed.add(label)
        with self.excusing(label):
            check_spec(label, spec)

    @property
    def blind(self) -> list[str]:
        """The labels of scorers that do not look at the model, so that no text changes their scores."""
        return [label for label, spec in self.specs.items() if is_blind(spec.name)]

    def spec_of(self, label: str) -> ComponentSpec | None:
        """The scorer of a label, or of that of a half (see `create_halves`); None if it takes no part."""
        return self.specs.get(label) or self.specs.get(label.rpartition(".")[0])

    @contextmanager
    def excusing(self, label: str) -> Iterator[None]:
        """Go on without the scorer if it fails inside this context, where that is allowed.

        An unnamed scorer may fail because it does not fit the model or because its plugin is broken. A named scorer
        may fail only because its plugin is broken, and only if another named scorer is left.
        """
        try:
            yield
        except (ModelError, PluginError, SurgeryError, NonFiniteError) as error:
            theirs = error.names_plugin or not isinstance(error, NonFiniteError)  # not a NaN of the model
            if theirs and label in self.unnamed & self.specs.keys():
                self.left_out[label] = str(error)
            elif error.names_plugin and self.specs.keys() - self.unnamed - {label}:
                self.failed[label] = str(error)
            else:
                raise
            del self.specs[label]
            if label in self.baselines:
                self.baselines.remove(label)
            self.progress.note(f"the scorer {label} is left out: {error}")

    def try_out(self, stack: BlockStack, batch: Batch) -> None:
        """Leave out the unnamed scorers that cannot run on a model, as a trial on a few tokens of `batch` shows."""
        few = {name: part[:1, :TRIAL_TOKENS] if part.ndim > 1 else part[:1] for name, part in batch.items()}
        if trying := [label for label in self.specs if label in self.unnamed]:
            with self.progress.stage(
                f"try {', '.join(trying)} on a few tokens", len(trying), unit="scorers"
            ) as advance:
                for label in trying:
                    # Too few tokens, or a NaN, will be reported for the whole set.
                    with self.excusing(label), suppress(CalibrationError, NonFiniteError):
                        scorers = self.create(len(stack), label)
                        if stack.offloaded:  # a trial would read the whole model
                            check_offloading(scorers)
                        else:
                            measure(stack, [few], scorers)
                    advance(1)
        self.need_any()

    def need_any(self) -> None:
        """Refuse to go on if no scorer other than the baselines is left.

        Raises:
            ModelError: only baselines are left, or no scorer at all.
        """
        if not self.specs.keys() - set(self.baselines):
            reasons = "; ".join(f"{label}: {reason}" for label, reason in self.left_out.items())
            raise ModelError(f"no scorer is left ({reasons or 'none is installed'})")

    def create(
        self, num_blocks: int, *labels: str, removed: Collection[int] = (), among: Collection[int] | None = None
    ) -> dict[str, Scorer]:
        """Create fresh scorers, by label.

        Args:
            num_blocks: The number of blocks of the intact model.
            labels: The scorers; all of them if no label is given.
            removed: The removed blocks.
            among: The blocks to score; None for all that are left.
        """
        scorers: dict[str, Scorer] = {}
        count = len(scored_blocks(removed, num_blocks, among))
        for label in labels or self.specs:
            spec = self.specs[label]
            scorer = create("scorer", spec.name, spec.options, count, label=label)
            assert isinstance(scorer, Scorer)
            scorers[label] = scorer
        return scorers

    def create_halves(self, num_blocks: int, label: str) -> dict[str, Scorer]:
        """Create two fresh instances of a scorer: for the attentions (`LABEL.attn`) and for the MLPs (`LABEL.mlp`).

        Raises:
            ModelError: the scorer reads something else than the input and the output of each block.
        """
        halves: dict[str, Scorer] = {}
        for part in get_args(Part):
            scorer = self.create(num_blocks, label)[label]
            if type(scorer.sweep) is not Forward or scorer.lookback or not scorer.observes <= Half.SITES:
                raise ModelError(
                    f"scorer {label!r} cannot score attention and MLP apart: only scorers can that read the input and "
                    "the output of each block, and nothing else, such as block-influence"
                )
            scorer.sweep = Half(part)
            halves[f"{label}.{part}"] = scorer
        return halves


def check_spec(label: str, spec: ComponentSpec) -> None:
    """Refuse a scorer that does not exist or whose options are wrong, and a label that is another scorer's name.

    A variant's name may be the label of what it stands for, written out.
    """
    meant = f"For a label of your own, name its scorer: --scorer {label}=SCORER --set {label}.OPTION=VALUE."
    cls = registry().get("scorer", spec.name, otherwise=meant if label == spec.name else "")
    with attributing("scorer", label, cls):
        options = registry().options("scorer", spec.name, spec.options)
    if spec.name == label or label not in registry().summaries("scorer"):
        return
    if (registry().get("scorer", label), registry().options("scorer", label, {})) != (cls, options):
        raise OptionError(f"the label {label!r} is the name of another scorer than {spec.name!r}")


def expanded(scorers: Mapping[str, ComponentSpec], progress: Progress) -> dict[str, ComponentSpec]:
    """Return the scorers of a recipe or a grid, by label, with those that `all` stands for in its place."""
    specs: dict[str, ComponentSpec] = {}
    for label, spec in scorers.items():
        if spec.name == ALL:
            specs |= {name: ComponentSpec(name=name) for name in _installed(progress) if name not in scorers}
        else:
            specs[label] = spec
    return specs


def _installed(progress: Progress) -> list[str]:
    """Return the names of all scorers; those that do not look at the model come last."""
    if failed := [record.name for record in registry().plugins.records if record.error]:
        progress.note(
            f"left out of {ALL}: plugins that failed to load ({', '.join(failed)}); layerimp plugins says why"
        )
    names = registry().names("scorer")
    return sorted(names, key=lambda name: (is_blind(name), name))


def is_blind(name: str) -> bool:
    """Whether a scorer does not look at the model, so that no text changes its scores."""
    return getattr(registry().get("scorer", name), "sweep", name) is None
