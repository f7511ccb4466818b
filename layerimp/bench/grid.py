"""The description of a grid: validated plain data, readable from YAML or JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from layerimp._paths import last_name
from layerimp.component import Plain, versioned
from layerimp.defaults import BEST, FIDELITY, GRID_BASELINES, HARNESS, PAPER_SCORERS, PRUNER, RATIO, SCORERS, STARTER
from layerimp.errors import OptionError
from layerimp.pruner import checked_ratio
from layerimp.recipe import CalibrationSpec, Recipe
from layerimp.recipe.components import COMPARED_BRIEFLY, Baselines, Components, Evaluators, Scorers, named
from layerimp.recipe.experiment import Dtype, Experiment, ModelName
from layerimp.recipe.labels import by_label, check_any, check_labels
from layerimp.recipe.method import completed_grid


class ModelSpec(Plain):
    """A model of the grid."""

    model: ModelName
    dtype: Dtype = None
    calibration: CalibrationSpec | None = None
    """The text that drives scoring. Default: that of the grid."""
    tasks: tuple[str, ...] | None = None
    """The tasks to evaluate the model on. Default: those of the grid."""


def _several(value: Any) -> Any:
    """Accept a single value."""
    return (value,) if isinstance(value, int | float | str) else value


def _once(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(value)) < len(value):
        raise ValueError("each is needed once")
    return value


def _ratios(value: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(checked_ratio(ratio) for ratio in value)


def _default_ratios(others: dict[str, Any]) -> tuple[float, ...]:
    return () if others.get("counts") else (RATIO,)


_Count = Annotated[int, Field(ge=1)]


class Grid(Experiment):
    """Models x scorers x pruners x ratios x healers x tasks, each repeated with calibration text of its own."""

    schema_version: Literal["layerimp.grid/1"] = versioned("layerimp.grid/1")
    models: Annotated[
        dict[str, ModelSpec],
        BeforeValidator(by_label("model", last_name)),
        BeforeValidator(_several),
        AfterValidator(check_labels),
        AfterValidator(check_any),
    ] = Field({STARTER: ModelSpec.model_validate({"model": STARTER})})
    """Models, by label."""
    scorers: Scorers = named(SCORERS[BEST], *PAPER_SCORERS)
    baselines: Baselines = named(*GRID_BASELINES)
    evaluators: Evaluators = named(HARNESS) | {FIDELITY: COMPARED_BRIEFLY}
    pruners: Components = named(PRUNER)
    """Pruners, by label; each makes a plan by the scores of every scorer."""
    own_pruners: Components = named()
    """By label of a scorer, a pruner that takes the place of all pruners above: that of the recommended method, which
    `best` brings along."""
    counts: Annotated[tuple[_Count, ...], BeforeValidator(_several), AfterValidator(_once)] = ()
    """How many blocks to remove; several numbers may be given, also beside ratios."""
    ratios: Annotated[
        tuple[float, ...],
        BeforeValidator(_several),
        AfterValidator(_ratios),
        AfterValidator(_once),
    ] = Field(
        default_factory=_default_ratios,
        description="Share of the blocks to remove, less of the parameters; several may be given, also beside counts. "
        f"Default: {RATIO}, or none if counts are given.",
    )
    repeats: int = Field(5, ge=1)
    """How often to repeat each scoring, each time with different text: repeat n draws with the seed plus n."""
    random_draws: int = Field(10, ge=1)
    """How often, at least, to repeat a scorer that has a seed and looks at no model (random). Random choices differ
    more than those of other scorers, and scoring costs them nothing."""

    @model_validator(mode="before")
    @classmethod
    def _method(cls, given: Any) -> Any:
        return completed_grid(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _own_of_scorers(self) -> Grid:
        if strange := sorted(self.own_pruners.keys() - self.scorers.keys()):
            raise OptionError(f"own_pruners names {strange[0]!r}, and no scorer has this label")
        return self

    @model_validator(mode="after")
    def _some_amount(self) -> Grid:
        if not self.amounts:
            raise OptionError("nothing is to be removed: give ratios or counts")
        return self

    @property
    def amounts(self) -> tuple[int | float, ...]:
        """The amounts to remove: numbers of blocks (int), then shares (float), each in ascending order."""
        return (*sorted(self.counts), *sorted(self.ratios))

    def recipe(self, label: str) -> Recipe:
        """Return the recipe of a run that does for one model what the grid asks for."""
        spec = self.models[label]
        shared = {name: getattr(self, name) for name in Experiment.model_fields if name != "schema_version"}
        own = {name: value for name in ("calibration", "tasks") if (value := getattr(spec, name)) is not None}
        return Recipe(model=spec.model, dtype=spec.dtype, **(shared | own))
