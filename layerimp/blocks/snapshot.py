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
        hooks: For each module, by its path, the hooks on it by the name of the list that holds them.
        training: The modules in training mode.
        patched: The modules whose `forward` is not that of their class.
        weights: For each parameter, by its path, which tensor it is, its version, and whether it wants a gradient.
        config: The fields of the configuration.
    """

    hooks: dict[str, dict[str, OrderedDict[int, Any]]]
    training: frozenset[str]
    patched: dict[str, Any]
    weights: dict[str, tuple[int, int, bool]]
    config: dict[str, Any]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Snapshot:
        """The snapshot of a model as it is now."""
        modules = dict(model.named_modules())
        return cls(
            {path: {kind: OrderedDict(vars(module)[kind]) for kind in _HOOKS} for path, module in modules.items()},
            frozenset(path for path, module in modules.items() if module.training),
            {path: vars(module)["forward"] for path, module in modules.items() if "forward" in vars(module)},
            {
                path: (id(weight), -1 if weight.is_inference() else weight._version, weight.requires_grad)
                for path, weight in model.named_parameters()
            },
            model.config.to_dict(),
        )

    def traces(self, now: Snapshot) -> list[str]:
        """What was left behind on the model until `now`, and can be taken away: hooks, patches, modes."""
        found = [
            f"a hook on {_named(path)}"
            for path, hooks in now.hooks.items()
            if any(hooks[kind].keys() != self.hooks.get(path, {}).get(kind, {}).keys() for kind in _HOOKS)
        ]
        found += [
            f"another forward of {_named(path)}"
            for path in sorted(now.patched.keys() | self.patched.keys())
            if now.patched.get(path) is not self.patched.get(path)
        ]
        found += [f"the mode of {_named(path)}" for path in sorted(now.training ^ self.training)]
        return found

    def damage(self, now: Snapshot) -> list[str]:
        """What was changed in the model until `now`, and cannot be taken back: weights, fields of the configuration."""
        paths = sorted(now.weights.keys() | self.weights.keys())
        found = [f"the weight {path}" for path in paths if now.weights.get(path) != self.weights.get(path)]
        fields = sorted(now.config.keys() | self.config.keys())
        found += [f"config.{name}" for name in fields if now.config.get(name) != self.config.get(name)]
        return found

    def restore(self, model: PreTrainedModel) -> None:
        """Take away what was left behind."""
        for path, module in model.named_modules():
            for kind, hooks in self.hooks.get(path, {}).items():
                vars(module)[kind].clear()
                vars(module)[kind].update(hooks)
            module.training = path in self.training
            if path in self.patched:
                vars(module)["forward"] = self.patched[path]
            else:
                vars(module).pop("forward", None)


def _named(path: str) -> str:
    return path or "the model"


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
