"""Least squares at a gap: new values for the last linear map before the gap, and for a norm after the map.

At the gap, each token t has the pruned model's stream x_t and a target y_t, which the stream should become. Each token
has the weight w_t = 1 / rms(y_t). Otherwise a few tokens with massive activations, whose squares are 10,000 times those
of the others, would dominate the fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
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


class Fit(ABC):
    """The base class of the fits at a gap.

    Args:
        model: The pruned model.
        writer: The map before the gap, and the norm after the map.
        total: The factor by which the stream was scaled at earlier gaps; the weights hold the stream divided by it.
    """

    def __init__(self, model: nn.Module, writer: Writer, total: float = 1.0) -> None:
        self.model, self.writer, self.total = model, writer, total

    @abstractmethod
    def add(self, state: State) -> None:
        """Add the states of both models at the gap in one batch."""

    @abstractmethod
    def nbytes(self, tokens: int) -> int:
        """Return the size of what is kept of so many tokens, in bytes."""

    @abstractmethod
    def values(self, factor: float, ridge: float) -> Values:
        """Return new parameters.

        Args:
            factor: The factor by which the stream is scaled at the gap.
            ridge: The ridge.

        Raises:
            NonFiniteError: the fit has no solution.
        """

    @property
    def features(self) -> int:
        """The number of unknowns per output of the map."""
        linear = self.model.get_submodule(self.writer.path)
        return linear.get_parameter("weight").shape[1 if isinstance(linear, nn.Linear) else 0] + self.has_bias

    @property
    def outputs(self) -> int:
        """The number of outputs of the map."""
        weight = self.model.get_submodule(self.writer.path).get_parameter("weight")
        return weight.numel() // (self.features - self.has_bias)

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

    def __init__(self, model: nn.Module, writer: Writer, total: float = 1.0) -> None:
        super().__init__(model, writer, total)
        self._gram = Gram()
        self._solved: dict[float, Tensor] = {}

    def add(self, state: State) -> None:
        """Add the states of both models at the gap in one batch."""
        aims = torch.cat([state.target.double() / self.total, state.stream.double()], dim=1)
        self._gram.add(self.reads(state), aims, 1 / lengths(state.target))

    def nbytes(self, tokens: int) -> int:
        """Return the size of the sums, in bytes."""
        return 8 * self.features * (self.features + 2 * self.outputs)

    def values(self, factor: float, ridge: float) -> Values:
        """Return the map's new parameters."""
        if ridge not in self._solved:
            self._solved[ridge] = self._gram.solve(ridge)
        target, stream = self._solved[ridge].chunk(2)  # the changes that would write y, and x
        return self.map_values((target / factor - stream) / self.writer.scale)


class NormFit(Fit):
    """The fit of a map whose output enters a norm, either alone (sandwich norms) or added to the stream (post-norm).

    The norm's output should be r_t, so its input should point along q_t = (r_t - b) / g, where g and b are the spread
    and the mean of r. The map is fitted to q_t. Each token has the weight w_t rms(q_t)^2, which is the effect of its
    error after the norm. Then the norm's own weight and bias are fitted, channel by channel, to the output of the new
    map. This is one step of iteratively reweighted least squares; further steps add little. The states are stored,
    because the weights depend on the factor, and the fit of the norm depends on the map.
    """

    def __init__(self, model: nn.Module, writer: Writer, total: float = 1.0) -> None:
        super().__init__(model, writer, total)
        self._states: list[State] = []
        self._sums: dict[float, Gram] = {}

    def add(self, state: State) -> None:
        """Add the states of both models at the gap in one batch."""
        self._states.append(state)

    def nbytes(self, tokens: int) -> int:
        """Return the size of the states of so many tokens, in bytes."""
        weight = self.model.get_submodule(self.writer.path).get_parameter("weight")
        return tokens * (self.features + 4 * self.outputs) * weight.element_size()

    def values(self, factor: float, ridge: float) -> Values:
        """Return the new parameters of the map and of the norm."""
        if factor not in self._sums:
            self._sums = {factor: self._sums_of(factor)}
        new_map = self.map_values(self._sums[factor].solve(ridge), relative=self.writer.joined)
        return new_map | self.norm_values(factor, new_map)

    def _sums_of(self, factor: float) -> Gram:
        """Return the sums for the fit of the map."""
        spread, middle = self._spread(factor)
        gram = Gram()
        for state in self._states:
            along = (self.aim(state, factor) - middle) / spread
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
        return gram

    def aim(self, state: State, factor: float) -> Tensor:
        """Return the desired output of the norm [token, hidden], in float64."""
        target = state.target.double() / (factor * self.total)
        if self.writer.joined:
            return target
        assert state.written is not None
        with torch.no_grad():
            added: Tensor = self._norm(state.written)
        return (target - state.stream.double()) / self.writer.scale + added.double()

    def norm_values(self, factor: float, new_map: Values = MappingProxyType({})) -> dict[str, Tensor]:
        """Return the norm's new weight and bias: least squares per channel, given the map's new parameters."""
        sums: list[Any] = [0.0] * 5
        for state in self._states:
            unit, aim = self._unit(self._norm_reads(state, new_map)), self.aim(state, factor)
            weight = 1 / lengths(state.target)[:, None]
            parts = (weight.expand_as(unit), weight * unit, weight * aim, weight * unit * aim, weight * unit.square())
            sums = [total + part.sum(dim=0) for total, part in zip(sums, parts, strict=True)]
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

    def _spread(self, factor: float) -> tuple[Tensor, Tensor]:
        """Return the weighted spread and mean of the norm's desired output, both [hidden].

        For a norm without a bias the mean is 0.
        """
        sums: list[Any] = [0.0] * 3
        for state in self._states:
            weight, aim = 1 / lengths(state.target)[:, None], self.aim(state, factor)
            parts = (weight, weight * aim, weight * aim.square())
            sums = [total + part.sum(dim=0) for total, part in zip(sums, parts, strict=True)]
        count, total, square = sums
        middle = total / count if "bias" in dict(self._norm.named_parameters()) else torch.zeros_like(total)
        return (square / count - middle.square()).clamp_min(TINY).sqrt(), middle


def fit_of(writer: Writer) -> type[PlainFit | NormFit]:
    """Return the kind of fit for the map that writes before a gap."""
    return PlainFit if writer.norm is None else NormFit
