"""The scorer `avss`: the activation variance-sparsity score (Song et al. 2024, arXiv:2411.02117), equations 1 to 9."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from layerimp import Importance, Scorer, hookimpl
from layerimp.component import Options
from layerimp.errors import CalibrationError
from layerimp.stats import Mean, Moments, Workspace, chunks, working_dtype
from layerimp.sweep import Forward

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.sweep import Trace

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"site": "block_out", "epsilon": 1e-5, "epsilon_mode": "absolute"},
    "reference": {"site": "block_out", "epsilon": 1e-5, "epsilon_mode": "absolute"},
}

FEW = 100
"""Fewer inactive activations than this make a note: by chance alone their number varies by a tenth or more."""

Site = Literal["mlp_act", "block_out", "block_delta", "attn_out", "mlp_out"]


class AVSSConfig(Options):
    """The options of `avss`: the choices that the paper leaves open."""

    variant: Literal["default", "paper", "reference"] = Field(
        "default",
        description="A preset of the options below. paper: the literal text (block_out, absolute 1e-5). reference: "
        "the authors' scripts, which take the variance of each sample's mean over its tokens.",
    )
    site: Site = Field(
        "mlp_act",
        description="The activation to measure: the MLP's neurons (mlp_act), the block's output (block_out), the "
        "block's contribution to the residual stream (block_delta), or that of its attention or its MLP (attn_out, "
        "mlp_out).",
    )
    epsilon: float = Field(0.1, gt=0, description="Activations below this magnitude count as inactive.")
    epsilon_mode: Literal["relative", "absolute"] = Field(
        "relative", description="Whether epsilon is relative to the token's root mean square, or absolute."
    )
    sparsity_floor: float = Field(1e-6, gt=0, lt=1, description="The lower bound on a block's sparsity.")
    exclude_first_token: bool = Field(
        False, description="Leave out each row's first token, whose massive activations can triple the variance."
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(variant := values.get("variant"), str):
            return PRESETS.get(variant, {}) | values
        return values


class AVSS(Scorer):
    """Activation variance over sparsity: blocks whose neurons vary and are active score high."""

    name = "avss"
    reference = "Song et al. 2024, arXiv:2411.02117, equations 1-9"
    Config = AVSSConfig
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "avss-delta": {"site": "block_delta"},
        "avss-paper": {"variant": "paper"},
        "avss-reference": {"variant": "reference"},
    }
    sweep = Forward()
    fallbacks: ClassVar[dict[str, str]] = {"mlp_act": "mlp_out"}

    def __init__(self, num_blocks: int, config: AVSSConfig | None = None) -> None:
        super().__init__(num_blocks, config)
        self.config: AVSSConfig
        delta = self.config.site == "block_delta"
        self.observes = frozenset({"block_in", "block_out"} if delta else {self.config.site})
        self._moments = Moments(num_blocks)
        self._sample_variance = Mean(num_blocks)
        self._inactive = Mean(num_blocks)
        self._workspace = Workspace()

    def update(self, trace: Trace) -> None:
        """Add one block's activations [batch, seq, features] in one batch."""
        site, mask, padded = self.config.site, trace.mask, trace.padded
        act = trace.acts["block_out"] - trace.acts["block_in"] if site == "block_delta" else trace.acts[site]
        if self.config.exclude_first_token:
            first = mask.int().argmax(dim=1, keepdim=True)
            mask = mask.scatter(1, first, False)
            padded = True
        rows = act[mask] if padded else act.flatten(0, 1)
        if not rows.numel():
            return
        if self.config.variant == "reference":
            self._sample_variance.add(trace.block, _variance_of_means(act, mask))
        self._reduce(trace.block, rows)

    def _reduce(self, block: int, rows: Tensor) -> None:
        """Add the moments and the inactive share of `rows` [token, features]."""
        total, squares, inactive = self._sums(rows)
        mean = total / rows.numel()
        m2 = squares - total * mean
        # If the mean makes up less than half of the squares, there is no cancellation, and one pass over the memory is
        # enough. Only a CPU can test this for free; any other device would have to synchronize.
        if rows.device.type != "cpu" or not m2 > squares / 2:
            m2 = self._squared_deviations(rows, mean)
        self._moments.add_moments(block, rows.numel(), mean, m2)
        self._inactive.add_total(block, inactive, rows.numel())

    def _sums(self, rows: Tensor) -> Tensor:
        """Return the sum of `rows` [token, features], the sum of their squares, and the inactive count [3], float64.

        The rows are processed in chunks that fit into the cache. Sums over features are in the working dtype, and sums
        over tokens in float64.
        """
        dtype = working_dtype(rows.dtype)
        per_token = torch.empty(3, len(rows), dtype=dtype, device=rows.device)
        sources = list(chunks(rows))
        for source, part in zip(sources, per_token.split([len(source) for source in sources], dim=1), strict=True):
            chunk, (total, squares, inactive) = source.to(dtype), part
            buffer = self._workspace.like(chunk)
            torch.sum(chunk, dim=-1, out=total)
            torch.mul(chunk, chunk, out=buffer)
            torch.sum(buffer, dim=-1, out=squares)
            if self.config.epsilon_mode == "relative":  # compares squares, which needs no root
                # "At most" instead of "less than", so that a token with only zeros counts as entirely inactive.
                buffer.le_((squares / rows.shape[1] * self.config.epsilon**2).unsqueeze(-1))
            else:
                torch.abs(chunk, out=buffer)
                buffer.lt_(self.config.epsilon)
            torch.sum(buffer, dim=-1, out=inactive)
        return per_token.sum(dim=-1, dtype=torch.float64)

    def _squared_deviations(self, rows: Tensor, mean: Tensor) -> Tensor:
        """Return the sum of the squared deviations of `rows` [token, features] from `mean` [], float64."""
        dtype = working_dtype(rows.dtype)
        rounded, m2 = mean.to(dtype), torch.zeros_like(mean)
        for source in chunks(rows):
            chunk = source.to(dtype)
            buffer = torch.sub(chunk, rounded, out=self._workspace.like(chunk))
            deviations = torch.linalg.vector_norm(buffer, dim=-1).double()
            m2 += deviations.dot(deviations)
        return (m2 - rows.numel() * (mean - rounded).square()).clamp_min(0)

    def end_sweep(self) -> None:
        """Release the working memory."""
        self._workspace.release()

    def compute(self) -> Importance:
        """Return the normalized AVSS (8) as the scores, and all nine equations as columns."""
        reference = self.config.variant == "reference"
        variance = self._sample_variance.value() if reference else self._moments.variance()  # (1)
        share = self._inactive.value()
        if share.isnan().any():
            raise CalibrationError("no activation is left without the first token of each row; give longer rows")
        sparsity = share.clamp_min(self.config.sparsity_floor)  # (4)
        normalized_sparsity = _normalized(sparsity)  # (5)
        avss = variance / sparsity  # (7)
        normalized_avss = _normalized(avss)  # (8)
        columns = {
            "variance": variance,
            "std": variance.sqrt(),  # (2)
            "normalized_variance": _normalized(variance),  # (3)
            "sparsity": sparsity,
            "normalized_sparsity": normalized_sparsity,
            "sparsity_deviation": (sparsity - normalized_sparsity).abs(),  # (6)
            "avss": avss,
            "normalized_avss": normalized_avss,
            "cumulative_avss": normalized_avss.cumsum(0),  # (9)
        }
        return Importance(
            scores=normalized_avss.tolist(),
            columns={name: values.tolist() for name, values in columns.items()},
            notes=self._doubts(share),
        )

    def _doubts(self, share: Tensor) -> list[str]:
        """Return notes if the scores hang on a handful of inactive activations, or do not compare with others."""
        floored = share < self.config.sparsity_floor
        few = ~floored & (self._inactive.total() < FEW)
        floor, notes = f"{self.config.sparsity_floor:g}", []
        if where := self._blocks_where(floored):
            notes.append(
                f"sparsity was floored at {floor} in {len(where)} of {self.num_blocks} blocks ({', '.join(where)}): "
                "almost no activation is below epsilon there"
            )
        if where := self._blocks_where(few):
            notes.append(
                f"fewer than {FEW} activations are below epsilon in {len(where)} of {self.num_blocks} blocks "
                f"({', '.join(where)}): single ones decide the scores there"
            )
        return notes

    def _blocks_where(self, holds: Tensor) -> list[str]:
        """Return the blocks of which something holds."""
        return [str(self.blocks[place]) for place in holds.nonzero().flatten().tolist()]


def _normalized(values: Tensor) -> Tensor:
    """Return each value's share of the sum; equal shares if the sum is 0."""
    total = values.sum()
    return torch.full_like(values, 1 / len(values)) if total == 0 else values / total


def _variance_of_means(act: Tensor, mask: Tensor) -> Tensor:
    """Return, for each sample, the unbiased variance over features of the mean over tokens [batch]."""
    act = act.to(working_dtype(act.dtype))
    samples = mask.any(dim=1)
    weights = mask[samples].to(act.dtype)
    means = torch.einsum("bs,bsf->bf", weights, act[samples]) / weights.sum(dim=1, keepdim=True)
    return means.double().var(dim=-1, unbiased=True)


@hookimpl
def layerimp_scorers() -> list[type[Scorer]]:
    """Return this plugin's scorer."""
    return [AVSS]
