"""Counts what reads the weights of a model outside of its passes."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class WeightReads(TorchDispatchMode):
    """A context that counts the operations that read a parameter while no module computes.

    Args:
        model: The model.

    Attributes:
        by_path: How many operations read each parameter, by its path.
        by_name: The same for all parameters together, by the name of the operation.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._paths = {parameter.untyped_storage().data_ptr(): path for path, parameter in model.named_parameters()}
        self._computing = 0
        self._hooks = ExitStack()
        self.by_path: Counter[str] = Counter()
        self.by_name: Counter[str] = Counter()

    def __enter__(self) -> WeightReads:
        self._hooks.callback(register_module_forward_pre_hook(lambda *_: self._count(1)).remove)
        self._hooks.callback(register_module_forward_hook(lambda *_: self._count(-1), always_call=True).remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()

    def _count(self, step: int) -> None:
        self._computing += step

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._computing and not func.is_view:
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, torch.Tensor) and (path := self._paths.get(value.untyped_storage().data_ptr())):
                    self.by_path[path] += 1
                    self.by_name[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))
