"""The options of `distill`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerimp.component import Options


class DistillConfig(Options):
    """What learns, from what, and for how long."""

    loss: Literal["divergence", "hidden", "streams"] = Field(
        "divergence",
        description="The training loss: the `divergence` of the predictions; the distance of the last `hidden` "
        "states, in the metric of the head, which needs no logits; or the distance of the `streams` after each kept "
        "block from the first gap on.",
    )
    learns: Literal["beside", "lora", "all"] = Field(
        "beside",
        description="What is trained: the blocks `beside` the gaps; low-rank changes (`lora`) of all linear maps in "
        "blocks, merged in the end; or `all` blocks. Embeddings and head stay.",
    )
    width: int = Field(2, ge=1, description="With `beside`: how many blocks on either side of a gap.")
    rank: int = Field(16, ge=1, description="With `lora`: the rank of a change.")
    first: str = Field("", description="A healer to run first, such as `linear`, with its default options.")
    steps: int | None = Field(
        200, ge=1, description="The most training steps; null: as many as the other limits allow."
    )
    minutes: float | None = Field(None, gt=0, description="The longest training time, in minutes.")
    tokens: int | None = Field(None, ge=1, description="The most training tokens; a token counts each time it is read.")
    rate: float = Field(
        3e-4, gt=0, description="The greatest learning rate: it rises for a twentieth of the time, then falls."
    )
    rows: int = Field(4, ge=1, description="The most rows of text in a step.")
    checks: int = Field(10, ge=1, description="How often the held-out loss is measured; the best step is kept.")
    seed: int = Field(0, ge=0, description="Seed of the order of the text.")
