"""Snapshots of a model, which show whether code that may only read the model has changed anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerimp.errors import PluginError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CAPTURING = "transformers.utils.output_capturing"
"""The module whose hooks Transformers registers when it first captures outputs, and keeps."""
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
        for path, module in ((path or "the model", module) for path, module in model.named_modules()):
            hooks = [hook for kind in _HOOKS for hook in vars(module)[kind].values()]
            if others := [hook for hook in hooks if getattr(hook, "__module__", "") != _CAPTURING]:
                facts[_HOOK, path] = others
            if "forward" in vars(module):
                facts[_FORWARD, path] = vars(module)["forward"]
            if module.training:
                facts[_MODE, path] = True
        for path, weight in model.named_parameters():
            version = -1 if weight.is_inference() else weight._version
            facts[_WEIGHT, path] = (id(weight), version, weight.requires_grad)
        return cls(facts | {(_FIELD, f"config.{name}"): value for name, value in model.config.to_dict().items()})

    def changes(self, now: Snapshot, *, weights: bool = True) -> list[_Fact]:
        """Return the facts that differ in the later snapshot `now`, with those on `weights` or without them."""
        changed = [fact for fact in {**self.facts, **now.facts} if self.facts.get(fact) != now.facts.get(fact)]
        return [fact for fact in changed if weights or fact[0] != _WEIGHT]


@contextmanager
def unchanged(model: PreTrainedModel, who: str, *, weights: bool = False) -> Iterator[None]:
    """A context in which code may not change a model.

    Args:
        model: The model.
        who: The name of the code, for the error.
        weights: Whether the code may replace weights.

    Raises:
        PluginError: the code changed the model, or left something behind on it.
    """
    snapshot = Snapshot.of(model)

    def check() -> None:
        if changes := snapshot.changes(Snapshot.of(model), weights=not weights):
            more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
            raise PluginError(f"{who} changed {' '.join(changes[0])}{more}; no number after that could be trusted")

    try:
        yield
    except Exception:  # which others may survive
        check()
        raise
    check()
