"""Snapshots of a model, which show whether code that may only read the model has changed anything."""

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

    Nothing is copied or computed: a weight is described by the identity of its tensor and the number of writes to it.

    Attributes:
        hooks: For each module with hooks, by path, the hooks by the name of the list that holds them.
        training: The modules in training mode.
        patches: Each `forward` that is not the one of the module's class, by path.
        weights: For each parameter, by path, the identity of its tensor, the version, and whether it requires grad.
        config: The fields of the configuration.
    """

    hooks: dict[str, dict[str, OrderedDict[int, Any]]]
    training: frozenset[str]
    patches: dict[str, Any]
    weights: dict[str, tuple[int, int, bool]]
    config: dict[str, Any]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Snapshot:
        """Take a snapshot of a model."""
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
        """Return the paths of the modules and weights that differ in the later snapshot `now`."""
        pairs = ((self.hooks, now.hooks), (self.patches, now.patches), (self.weights, now.weights))
        return [*(path for pair in pairs for path in _changed(*pair)), *sorted(self.training ^ now.training)]

    def traces(self, now: Snapshot) -> list[str]:
        """Describe the changes until `now` that can be undone: hooks, patches, modes."""
        return [
            *(f"a hook on {path or 'the model'}" for path in _changed(self.hooks, now.hooks)),
            *(f"another forward of {path or 'the model'}" for path in _changed(self.patches, now.patches)),
            *(f"the mode of {path or 'the model'}" for path in sorted(self.training ^ now.training)),
        ]

    def damage(self, now: Snapshot) -> list[str]:
        """Describe the changes until `now` that cannot be undone: weights, fields of the configuration."""
        return [
            *(f"the weight {path}" for path in _changed(self.weights, now.weights)),
            *(f"config.{name}" for name in _changed(self.config, now.config)),
        ]

    def restore(self, model: PreTrainedModel) -> None:
        """Undo the changes of hooks, patches and modes."""
        for path, module in model.named_modules():
            for kind in _HOOKS:
                vars(module)[kind].clear()
                vars(module)[kind].update(self.hooks.get(path, {}).get(kind, {}))
            module.training = path in self.training
            vars(module).pop("forward", None)
            if path in self.patches:
                vars(module)["forward"] = self.patches[path]


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the keys for which two mappings differ."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


@contextmanager
def leaving_no_trace(model: PreTrainedModel, progress: Progress, who: str, *, weights: bool = False) -> Iterator[None]:
    """Undo changes that code in this context leaves behind on a model, and report them.

    Args:
        model: The model.
        progress: Where to report what was undone.
        who: The name of the code, for the report.
        weights: Whether the code may replace weights.

    Raises:
        PluginError: the code changed a weight or the configuration, which cannot be undone.
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


def _more(changes: list[str]) -> str:
    return f" and {len(changes) - 1} more" if len(changes) > 1 else ""
