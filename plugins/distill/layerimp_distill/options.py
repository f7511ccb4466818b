"""The options of `distill`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from layerimp.component import Options

STEPS = 200
"""The number of training steps if the user names no limit."""
RATE = 1e-4
"""The highest peak learning rate at which a training begins if the user names none."""
MOVED = 2e-3
"""The share of its size by which a step at that rate moves a matrix at most, but for the smallest tenth of them."""


class DistillConfig(Options):
    """The options of `distill`: the parameters to train, and the limits of the training."""

    learns: Literal["beside", "lora", "lora-beside", "all"] | None = Field(
        None,
        description="The parameters to train: `all` blocks; the blocks `beside` the gaps; low-rank updates (`lora`) of "
        "all linear maps in the blocks, merged at the end; or those of the blocks beside the gaps (`lora-beside`). By "
        "default the first of these that the free memory has room for. Embeddings and head are never trained.",
    )
    width: int = Field(2, ge=1, description="Beside the gaps: the number of blocks to train on either side.")
    rank: int = Field(16, ge=1, description="The rank of each low-rank update.")
    first: str | None = Field("linear", description="A healer to run first, with its default options; null for none.")
    steps: int | None = Field(
        None,
        ge=1,
        description=f"The maximum number of training steps; {STEPS} if no limit of any kind is given.",
    )
    minutes: float | None = Field(None, gt=0, description="The maximum training time, in minutes, with the checks.")
    tokens: int | None = Field(
        None, ge=1, description="The maximum number of training tokens; a token counts each time it is read."
    )
    rate: float | None = Field(
        None,
        gt=0,
        description="The peak learning rate, reached after a twentieth of the training, before a decay. One that is "
        "given stays. By default it is at first 1e-4, or less where the weights are small: a five-hundredth of their "
        "size. Where it is too high, training goes on at a third.",
    )
    rows: int | None = Field(
        None,
        ge=1,
        description="The rows of text per step; by default 4, on a GPU 16, and for a classifier eight times as many. "
        "Where memory is short, fewer run at once.",
    )
    repeated: float = Field(
        0.25,
        ge=0,
        le=1,
        description="The share of the training rows whose second half is replaced by the first, so that a language "
        "model keeps copying; rows of fewer than 16 tokens stay.",
    )
    checks: int = Field(
        10,
        ge=1,
        description="How often the distance from the intact model is measured; the best step is kept. Within a limit "
        "of minutes, fewer if they would take more than a fifth of the time.",
    )
    seed: int = Field(0, ge=0, description="Seed of the order of the text, and of the initial low-rank updates.")

    @model_validator(mode="before")
    @classmethod
    def _limited(cls, given: Any) -> Any:
        """Limit the steps if the user names no limit; what the user names is the only limit."""
        limits = ("steps", "minutes", "tokens")
        if isinstance(given, Mapping) and all(given.get(name) is None for name in limits):
            return {**given, "steps": STEPS}
        return given

    @field_validator("first")
    @classmethod
    def _another(cls, first: str | None) -> str | None:
        if first == "distill":
            raise ValueError("distill cannot run before itself")
        return first
