"""Snapshots of a model, which show whether code that may only read the model has changed anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerimp.errors import PluginError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.progress import Progress

_CAPTURING = "transformers.utils.output_capturing"
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

_Fact = tuple[str, str]
"""The kind of a fact, in words, and the path of the module, weight or field that it is about."""
_HOOK, _FORWARD, _MODE = "a hook on", "another forward of", "the mode of"
_WEIGHT, _FIELD = "the weight", "the field"


@dataclass(frozen=True)
class Snapshot:
    """The hooks, modes, patches, weights and configuration of a model at one moment.

    Nothing is copied or computed: a weight is described by the identity of its tensor and the number of writes to it.

    Attributes:
        facts: The hooks of each module that has any, without those of Transformers, each `forward` that is not the one
            of the module's class, the modules in training mode; for each parameter the identity of its tensor, the
            version, and whether it requires grad; and the fields of the configuration.
    """

    facts: Mapping[_Fact, Any]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Snapshot:
        """Take a snapshot of a model."""
        facts: dict[_Fact, Any] = {}
        for path, module in model.named_modules():
            if any((hooks := {kind: _divided(vars(module)[kind])[1] for kind in _HOOKS}).values()):
                facts[_HOOK, path] = hooks
            if "forward" in vars(module):
                facts[_FORWARD, path] = vars(module)["forward"]
            if module.training:
                facts[_MODE, path] = True
        for path, weight in model.named_parameters():
            version = -1 if weight.is_inference() else weight._version
            facts[_WEIGHT, path] = (id(weight), version, weight.requires_grad)
        return cls(facts | {(_FIELD, f"config.{name}"): value for name, value in model.config.to_dict().items()})

    def changed(self, now: Snapshot) -> list[str]:
        """Return the paths of the modules and weights that differ in the later snapshot `now`."""
        return [path for _, path in self._changes(now, _HOOK, _FORWARD, _MODE, _WEIGHT)]

    def traces(self, now: Snapshot) -> list[str]:
        """Describe the changes until `now` that can be undone: hooks, patches, modes."""
        return [f"{kind} {path or 'the model'}" for kind, path in self._changes(now, _HOOK, _FORWARD, _MODE)]

    def damage(self, now: Snapshot, *, weights: bool = True) -> list[str]:
        """Describe the changes until `now` that cannot be undone: `weights`, fields of the configuration."""
        kinds = (_WEIGHT, _FIELD) if weights else (_FIELD,)
        return [f"{kind} {path}" for kind, path in self._changes(now, *kinds)]

    def _changes(self, now: Snapshot, *kinds: str) -> list[_Fact]:
        """Return the facts of some kinds that differ in the later snapshot `now`, kind by kind."""
        changed = [fact for fact in {**self.facts, **now.facts} if self.facts.get(fact) != now.facts.get(fact)]
        return sorted((fact for fact in changed if fact[0] in kinds), key=lambda fact: kinds.index(fact[0]))

    def restore(self, model: PreTrainedModel) -> None:
        """Undo the changes of hooks, patches and modes."""
        for path, module in model.named_modules():
            hooks = self.facts.get((_HOOK, path), {})
            for kind in _HOOKS:
                stock, _ = _divided(vars(module)[kind])
                vars(module)[kind].clear()
                vars(module)[kind].update({**hooks.get(kind, {}), **stock})
            module.training = (_MODE, path) in self.facts
            vars(module).pop("forward", None)
            if (_FORWARD, path) in self.facts:
                vars(module)["forward"] = self.facts[_FORWARD, path]


def _divided(hooks: Mapping[int, Any]) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return the hooks by which Transformers captures outputs, and all others.

    Transformers registers its own when they are first needed, remembers that, and fails without them.
    """
    stock = {number: hook for number, hook in hooks.items() if getattr(hook, "__module__", "") == _CAPTURING}
    return stock, {number: hook for number, hook in hooks.items() if number not in stock}


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
        traces, damage = snapshot.traces(now), snapshot.damage(now, weights=not weights)
        if traces:
            snapshot.restore(model)
            progress.note(f"{who} left {traces[0]} behind{_more(traces)}; taken away")
    if damage:
        raise PluginError(f"{who} changed {damage[0]}{_more(damage)}; no number after that could be trusted")


def _more(changes: list[str]) -> str:
    return f" and {len(changes) - 1} more" if len(changes) > 1 else ""
