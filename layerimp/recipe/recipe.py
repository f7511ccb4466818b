"""The recipe: the description of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from layerimp.component import versioned
from layerimp.defaults import FAST, HEALING_ROWS, PRUNER, RATIO, RECOMMENDED, SCORERS, STARTER
from layerimp.errors import OptionError
from layerimp.indices import read_blocks
from layerimp.pruner import checked_ratio
from layerimp.recipe.components import ComponentSpec, NamedComponent, named
from layerimp.recipe.experiment import Dtype, Experiment, ModelName
from layerimp.recipe.method import completed
from layerimp.sizes.targets import read_targets


def _blocks(value: Any) -> Any:
    """Accept one block, a list of blocks, or text as on the command line; pydantic validates anything else."""
    parts = [value] if isinstance(value, int | str) else value
    if not isinstance(parts, list | tuple):
        return value
    return read_blocks(",".join(map(str, parts)), what="blocks") if parts else []


def _ratio(value: Any) -> Any:
    """Refuse a number that is not a valid ratio; pydantic validates anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return checked_ratio(value) if number else value


def _targets(value: dict[str, Any]) -> dict[str, Any]:
    read_targets(value)
    return value


def _keep(value: Any) -> Any:
    """Refuse a number that is not a valid share; pydantic validates anything else."""
    if isinstance(value, int | float) and not 0 < value < 1:
        raise OptionError(f"keep {value:g} is not between 0 and 1; it is a share such as 0.95")
    return value


AMOUNTS = ("ratio", "count", "keep", "targets")
"""The fields that say how much to remove. A recipe gives at most one of them."""


class Recipe(Experiment):
    """A run: the model, how it is scored, how far it is pruned, and what it is evaluated on."""

    schema_version: Literal["layerimp.recipe/1"] = versioned("layerimp.recipe/1")
    model: ModelName = STARTER
    dtype: Dtype = None
    device: str | None = None
    """Device: cpu, cuda, cuda:1 and so on. Default: the first GPU, else the CPU."""
    device_map: Literal["auto"] | None = None
    """auto: spread a model that is too large for one GPU over all of them. Default: one device."""
    offload: bool | None = None
    """Read the blocks from their files one after another, so that the model need not fit into memory. Default: if it
    does not fit."""
    pruner: NamedComponent = ComponentSpec(name=PRUNER)
    """The pruner."""
    ratio: Annotated[float | None, BeforeValidator(_ratio)] = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the blocks to remove; it is less of the parameters, since embeddings stay. "
        f"Default: {RATIO} if neither another amount nor blocks are given.",
    )
    count: int | None = Field(None, ge=1)
    """How many blocks to remove, in place of a ratio."""
    targets: Annotated[dict[str, str | int | float], AfterValidator(_targets)] = Field({})
    """Limits that the pruned models must not exceed, in place of ratio: parameters, bytes or kv-cache, each as a
    size with a unit (200M, 6GB, 64KiB) or as a factor of the intact model's, such as 0.7. No more blocks are
    removed than necessary."""
    keep: Annotated[float | None, BeforeValidator(_keep)] = Field(None, gt=0, lt=1)
    """Share of the model's quality to keep, such as 0.95, in place of a ratio; as many blocks are removed as that
    allows."""
    keep_of: Literal["quality", "agreement"] = "quality"
    """What keep is a share of: quality, or agreement, the share of predictions with the same top token (or label) as
    the intact model's, which takes no tasks."""
    blocks: Annotated[tuple[int, ...], BeforeValidator(_blocks)] = ()
    """Blocks to remove regardless of scores: a list, or text such as 5,8-10."""
    output: Path | None = None
    """Directory for results and checkpoints; must not exist."""
    overwrite: bool = False
    """Replace an output that layerimp made."""
    verify: bool = True
    """Whether checkpoints are loaded back and compared."""

    @model_validator(mode="wrap")
    @classmethod
    def _method(cls, given: Any, make: ModelWrapValidatorHandler[Recipe]) -> Recipe:
        """Complete the method; only what was given counts as set."""
        if not isinstance(given, dict):
            return make(given)
        recipe = make(completed(given))
        recipe.model_fields_set.intersection_update(given)
        return recipe

    @model_validator(mode="after")
    def _one_place(self) -> Recipe:
        if self.device is not None and self.device_map is not None:
            raise OptionError("device and device_map contradict each other; give one of them")
        return self

    @model_validator(mode="after")
    def _one_amount(self) -> Recipe:
        given = [name for name in AMOUNTS if getattr(self, name) not in (None, {})]
        if len(given) > 1:
            raise OptionError(f"{given[0]} and {given[1]} contradict each other; give one of them")
        return self

    @model_validator(mode="after")
    def _something_to_keep(self) -> Recipe:
        if self.keep is None and self.keep_of != "quality":
            raise OptionError(f"keep_of says that keep is a share of the {self.keep_of}: give keep, such as 0.9")
        return self

    @model_validator(mode="after")
    def _enough_text(self) -> Recipe:
        if self.healers and not self.is_recommended and self.calibration.samples < HEALING_ROWS:
            raise OptionError(
                f"healing needs at least {HEALING_ROWS} rows of text, and only {self.calibration.samples} would be "
                "drawn (samples)"
            )
        return self

    @property
    def is_recommended(self) -> bool:
        """Whether the recipe scores, prunes and heals by the recommended method, as it does if it names no scorer."""
        return self.model_dump(include=set(RECOMMENDED)) == RECOMMENDED

    @property
    def in_one_pass(self) -> Recipe:
        """The same recipe with the best scorer that reads a text once, and no healer."""
        plain = {"scorers": named(SCORERS[FAST]), "pruner": ComponentSpec(name=PRUNER), "healers": named()}
        return self.model_copy(update=plain)

    @property
    def for_plans(self) -> Recipe:
        """The same recipe without what says which blocks go and how many, as plans say that."""
        nothing: dict[str, object] = {"keep_of": "quality", "blocks": (), "protect": ()}
        amounts = {name: type(self).model_fields[name].default for name in AMOUNTS}
        return self.model_copy(update=nothing | amounts)

    @property
    def names_amount(self) -> bool:
        """Whether the recipe says how much to remove: as a share, a number, a size or a quality."""
        return any(getattr(self, name) not in (None, {}) for name in AMOUNTS)

    @property
    def names_all(self) -> bool:
        """Whether only the named blocks are to be removed, so that no block is chosen by its score."""
        return bool(self.blocks) and not self.names_amount
