"""What a model is like in all that somebody who only looks at it must leave alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from layerimp.errors import PluginError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.progress import Progress

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@dataclass(frozen=True)
class Snapshot:
    """The hooks, modes, patches and weights of a model at one moment.

    That costs no copy and no arithmetic: of a weight it is known which tensor it is, and how often it was written to.

    Attributes:
        hooks: For each module with hooks, by its path, those on it by the name of the list that holds them.
        training: The modules in training mode.
        patches: Each `forward` that is not that of its module's class, by path.
        weights: For each parameter, by its path, which tensor it is, its version, and whether it wants a gradient.
        config: The fields of the configuration.
    """

    hooks: dict[str, dict[str, OrderedDict[int, Any]]]
    training: frozenset[str]
    patches: dict[str, Any]
    weights: dict[str, tuple[int, int, bool]]
    config: dict[str, Any]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Snapshot:
        """The snapshot of a model as it is now."""
        modules = dict(model.named_modules())
        return cls(
            {
                path: {kind: OrderedDict(vars(module)[kind]) for kind in _HOOKS}
                for path, module in modules.items()
                if any(vars(module)[kind] for kind in _HOOKS)
            },
            frozenset(path for path, module in modules.items() if module.training),
            {path: vars(module)["forward"] for path, module in modules.items() if "forward" in vars(module)},
            {
                path: (id(weight), -1 if weight.is_inference() else weight._version, weight.requires_grad)
                for path, weight in model.named_parameters()
            },
            model.config.to_dict(),
        )

    def changed(self, now: Snapshot) -> list[str]:
        """The modules and weights that are not now what they were, by their paths."""
        pairs = ((self.hooks, now.hooks), (self.patches, now.patches), (self.weights, now.weights))
        return [*(path for pair in pairs for path in _changed(*pair)), *sorted(self.training ^ now.training)]

    def traces(self, now: Snapshot) -> list[str]:
        """What was left behind on the model until `now`, and can be taken away: hooks, patches, modes."""
        return [
            *(f"a hook on {path or 'the model'}" for path in _changed(self.hooks, now.hooks)),
            *(f"another forward of {path or 'the model'}" for path in _changed(self.patches, now.patches)),
            *(f"the mode of {path or 'the model'}" for path in sorted(self.training ^ now.training)),
        ]

    def damage(self, now: Snapshot) -> list[str]:
        """What was changed in the model until `now`, and cannot be taken back: weights, fields of the configuration."""
        return [
            *(f"the weight {path}" for path in _changed(self.weights, now.weights)),
            *(f"config.{name}" for name in _changed(self.config, now.config)),
        ]

    def restore(self, model: PreTrainedModel) -> None:
        """Take away what was left behind."""
        for path, module in model.named_modules():
            for kind in _HOOKS:
                vars(module)[kind].clear()
                vars(module)[kind].update(self.hooks.get(path, {}).get(kind, {}))
            module.training = path in self.training
            vars(module).pop("forward", None)
            if path in self.patches:
                vars(module)["forward"] = self.patches[path]


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names under which two mappings do not hold the same."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


@contextmanager
def leaving_no_trace(model: PreTrainedModel, progress: Progress, who: str, *, weights: bool = False) -> Iterator[None]:
    """Take away what somebody leaves behind on a model in here, and say so.

    Args:
        model: The model.
        progress: Where it is said.
        who: Of whom.
        weights: Whether they may put other weights in place.

    Raises:
        PluginError: they changed a weight, or the configuration, which cannot be taken back.
    """
    snapshot = Snapshot.of(model)
    try:
        yield
    finally:
        now = Snapshot.of(model)
        if weights:
            now = replace(now, weights=snapshot.weights)
        traces, damage = snapshot.traces(now), snapshot.damage(now)
        if traces:
            snapshot.restore(model)
            progress.note(f"{who} left {traces[0]} behind{_more(traces)}; taken away")
    if damage:
        raise PluginError(f"{who} changed {damage[0]}{_more(damage)}; no number after that could be trusted")


def _more(found: list[str]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""
