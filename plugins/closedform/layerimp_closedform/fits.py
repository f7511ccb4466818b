"""Least squares at a gap: new values for the last linear map before the gap, and for a norm after the map.

At the gap, each token t has the pruned model's stream x_t and a target y_t, which the stream should become. Each token
has the weight w_t = 1 / rms(y_t). Otherwise a few tokens with massive activations, whose squares are 10,000 times those
of the others, would dominate the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call

from layerimp.healing import State
from layerimp_closedform.gram import Gram

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.healer import Writer

Values = Mapping[str, "Tensor"]
"""New parameters, by path."""
TINY = torch.finfo(torch.float64).tiny


def lengths(rows: Tensor) -> Tensor:
    """Return the root mean square of each row [row], in float64, always above 0."""
    return rows.double().square().mean(dim=-1).sqrt().clamp_min(TINY)


class Fit:
    """The base class of the fits at a gap.

    Args:
        model: The pruned model.
        writer: The map before the gap, and the norm after the map.
        total: The factor by which the stream was scaled at earlier gaps; the weights hold the stream divided by it.
        dtype: What products are computed in.
    """

    def __init__(
        self, model: nn.Module, writer: Writer, total: float = 1.0, dtype: torch.dtype = torch.float64
    ) -> None:
        self.model, self.writer, self.total, self.dtype = model, writer, total, dtype

    @property
    def features(self) -> int:
        """The number of unknowns per output of the map."""
        linear = self.model.get_submodule(self.writer.path)
        return linear.get_parameter("weight").shape[1 if isinstance(linear, nn.Linear) else 0] + self.has_bias

    @property
    def has_bias(self) -> bool:
        """Whether the map has a bias."""
        return getattr(self.model.get_submodule(self.writer.path), "bias", None) is not None

    def reads(self, state: State) -> Tensor:
        """Return the map's input [token, feature], with a column of ones if the map has a bias."""
        assert state.read is not None
        read = state.read
        return torch.cat([read, torch.ones_like(read[:, :1])], dim=1) if self.has_bias else read

    def map_values(self, change: Tensor, *, relative: bool = True) -> dict[str, Tensor]:
        """Return new parameters of the map, in the shapes of its module.

        Args:
            change: The change of the weight, with that of the bias, if there is one, as the last column [output,
                feature].
            relative: Whether the change is added to the old parameters; otherwise it replaces them.
        """
        path, linear = self.writer.path, self.model.get_submodule(self.writer.path)
        parts = {"weight": change[:, : change.shape[1] - self.has_bias]}
        if not isinstance(linear, nn.Linear):  # GPT-2's Conv1D holds the transpose
            parts["weight"] = parts["weight"].T
        if self.has_bias:
            parts["bias"] = change[:, -1]
        old = {name: linear.get_parameter(name).detach().double() if relative else 0.0 for name in parts}
        return {f"{path}.{name}": old[name] + part for name, part in parts.items()}


class PlainFit(Fit):
    """The fit of a map that writes straight into the stream.

    The change D of the map minimizes  sum_t w_t |y_t / f - x_t - s D a_t|^2  plus a ridge that keeps D near 0. Here a_t
    is the map's input, s the model's own scale, and f the factor by which the stream is scaled at the gap. The solution
    is linear in y / f - x, so the same sums serve every factor, and no state is stored.
    """

    def __init__(self, *common: Any, **options: Any) -> None:
        super().__init__(*common, **options)
        self._gram: Gram | None = None

    def add(self, state: State) -> None:
        """Add the states of both models at the gap in one batch."""
        aims = torch.cat([state.target.double() / self.total, state.stream.double()], dim=1)
        self._gram = self._gram or Gram(self.features, aims.shape[1], self.dtype)
        self._gram.add(self.reads(state), aims, 1 / lengths(state.target))

    def nbytes(self, tokens: int) -> int:
        """Return the size of the sums for so many tokens, in bytes."""
        outputs = self.model.get_submodule(self.writer.path).get_parameter("weight").numel() // self.features
        return 8 * self.features * (self.features + 2 * outputs)

    def values(self, factor: float, ridge: float) -> Values:
        """Return the map's new parameters."""
        assert self._gram is not None
        target, stream = self._gram.solve(ridge).chunk(2)  # the changes that would write y, and x
        return self.map_values((target / factor - stream) / self.writer.scale)


class NormFit(Fit):
    """The fit of a map whose output enters a norm, either alone (sandwich norms) or added to the stream (post-norm).

    The norm's output should be r_t, so its input should point along q_t = (r_t - b) / g, where g and b are the spread
    and the mean of r. The map is fitted to q_t. Each token has the weight w_t rms(q_t)^2, which is the effect of its
    error after the norm. Then the norm's own weight and bias are fitted, channel by channel, to the output of the new
    map. This is one step of iteratively reweighted least squares; further steps add little. The states are stored,
    because the weights depend on the factor, and the fit of the norm depends on the map.
    """

    def __init__(self, *common: Any, **options: Any) -> None:
        super().__init__(*common, **options)
        self.seen: list[State] = []

    def add(self, state: State) -> None:
        """Add the states of both models at the gap in one batch."""
        self.seen.append(state)

    def nbytes(self, tokens: int) -> int:
        """Return the size of the states of so many tokens, in bytes."""
        weight = self.model.get_submodule(self.writer.path).get_parameter("weight")
        return tokens * (self.features + 4 * (weight.numel() // self.features)) * weight.element_size()

    def values(self, factor: float, ridge: float) -> Values:
        """Return the new parameters of the map and of the norm."""
        aims = [self.aim(state, factor) for state in self.seen]
        spread, middle = self._spread(aims)
        gram = Gram(self.features, len(spread), self.dtype)
        for state, aim in zip(self.seen, aims, strict=True):
            along = (aim - middle) / spread
            size = lengths(along)
            wanted = along / size[:, None]
            weight = size.square() / lengths(state.target)
            if self.writer.joined:
                assert state.normed is not None
                read = state.normed.double()
                mean = read.mean(dim=-1, keepdim=True)
                scatter = lengths(read - mean)
                wanted, weight = mean + scatter[:, None] * wanted - read, weight / scatter.square()
            gram.add(self.reads(state), wanted, weight)
        new_map = self.map_values(gram.solve(ridge), relative=self.writer.joined)
        return new_map | self._diagonal(aims, new_map)

    def norm_values(self, factor: float) -> Values:
        """Return the norm's new parameters for an unchanged map."""
        return self._diagonal([self.aim(state, factor) for state in self.seen], {})

    def aim(self, state: State, factor: float) -> Tensor:
        """Return the desired output of the norm [token, hidden], in float64."""
        target = state.target.double() / (factor * self.total)
        if self.writer.joined:
            return target
        assert state.written is not None
        with torch.no_grad():
            added: Tensor = self._norm(state.written)
        return (target - state.stream.double()) / self.writer.scale + added.double()

    def _diagonal(self, aims: Sequence[Tensor], new_map: Values) -> dict[str, Tensor]:
        """Return the norm's new weight and bias: least squares per channel, given the map's new parameters."""
        sums = [torch.zeros(aims[0].shape[1], dtype=torch.float64, device=aims[0].device) for _ in range(5)]
        for state, aim in zip(self.seen, aims, strict=True):
            unit, weight = self._unit(self._norm_reads(state, new_map)), 1 / lengths(state.target)[:, None]
            parts = (weight.expand_as(unit), weight * unit, weight * aim, weight * unit * aim, weight * unit.square())
            for total, part in zip(sums, parts, strict=True):
                total += part.sum(dim=0)
        count, unit, aim, product, square = sums
        if "bias" not in dict(self._norm.named_parameters()):
            return {f"{self.writer.norm}.weight": product / square.clamp_min(TINY) - self.writer.offset}
        scale = (product - unit * aim / count) / (square - unit.square() / count).clamp_min(TINY)
        parameters = {"weight": scale - self.writer.offset, "bias": (aim - scale * unit) / count}
        return {f"{self.writer.norm}.{name}": value for name, value in parameters.items()}

    @property
    def _norm(self) -> nn.Module:
        assert self.writer.norm is not None
        return self.model.get_submodule(self.writer.norm)

    def _norm_reads(self, state: State, new_map: Values) -> Tensor:
        """Return the norm's input [token, hidden] under the map's new parameters; without any, under the old ones."""
        assert state.read is not None
        assert state.written is not None
        assert state.normed is not None
        if not new_map:
            return state.normed
        linear = self.model.get_submodule(self.writer.path)
        prefix = f"{self.writer.path}."
        own = {path.removeprefix(prefix): value.to(state.read.dtype) for path, value in new_map.items()}
        with torch.no_grad():
            written: Tensor = functional_call(linear, own, (state.read,))
        return state.normed - state.written + written if self.writer.joined else written

    def _unit(self, read: Tensor) -> Tensor:
        """Return the norm's output for a weight of 1 and a bias of 0 [token, hidden], in float64."""
        plain = {name: torch.zeros_like(value) for name, value in self._norm.named_parameters()}
        plain["weight"] += 1 - self.writer.offset
        with torch.no_grad():
            output: Tensor = functional_call(self._norm, plain, (read,))
        return output.double()

    def _spread(self, aims: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the weighted spread and mean of the norm's desired output, both [hidden].

        For a norm without a bias the mean is 0.
        """
        count = total = square = torch.zeros((), dtype=torch.float64, device=aims[0].device)
        for state, aim in zip(self.seen, aims, strict=True):
            weight = 1 / lengths(state.target)[:, None]
            count, total, square = (
                count + weight.sum(),
                total + (weight * aim).sum(dim=0),
                square + (weight * aim.square()).sum(dim=0),
            )
        middle = total / count if "bias" in dict(self._norm.named_parameters()) else torch.zeros_like(total)
        return (square / count - middle.square()).clamp_min(TINY).sqrt(), middle


def fit_of(writer: Writer) -> type[PlainFit | NormFit]:
    """Return the kind of fit for the map that writes before a gap."""
    return PlainFit if writer.norm is None else NormFit
