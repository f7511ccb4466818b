"""Two simulated devices: tensors that know where they are, and that fail if they are combined.

They compute on the CPU. Streams, and autograd's threads for each GPU, are not simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import dispatch_model
from accelerate.utils import set_module_tensor_to_device
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from layerimp.models.discovery import find_blocks

FIRST, SECOND = torch.device("cpu", 0), torch.device("cpu", 1)
CPU = torch.device("cpu")
"""A third place, for plain tensors, which cannot be combined with tensors on a device, as in reality."""

_COPIES = (torch.ops.aten.copy_.default,)
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


class Placed(torch.Tensor):
    """A tensor on one of the two devices; its numbers are in `held`."""

    held: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> Placed:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        with torch.inference_mode(held.is_inference()):  # a view of a normal tensor is not an inference tensor
            made = torch.Tensor._make_wrapper_subclass(cls, held.size(), **layout, device="cpu", dispatch_device=True)
        made.held, made.place = held, place
        return made

    def __repr__(self, **_options: Any) -> str:
        return f"{self.held} on {self.place}"

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Computing(TorchDispatchMode):
    """Functions that create tensors accept one of the two devices."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Making(TorchFunctionMode):
    """`torch.tensor` does not pass on the device on which to create the tensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.tensor or kwargs is None:
            return func(*args, **(kwargs or {}))
        place = kwargs.get("device")
        made = func(*args, **{name: value for name, value in kwargs.items() if name != "device"})
        return made if place is None else made.to(place)


@contextmanager
def two_devices() -> Iterator[None]:
    """A context in which the two devices exist."""
    with _Making(), _Computing():
        yield


def _place(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, Placed) else CPU


def _compute(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if func is torch.ops.prim.device.default:
        return _place(args[0])
    tensors: list[Tensor] = []
    asked: list[torch.device] = []

    def bare(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
            return leaf.held if isinstance(leaf, Placed) else leaf
        if isinstance(leaf, torch.device):
            asked.append(leaf)
            return CPU
        return leaf

    held_args, held_kwargs = _mapped(bare, args), _mapped(bare, kwargs)

    def binds(tensor: Tensor) -> bool:
        """Numbers and indices on the CPU can be combined with any tensor; copies work between all devices."""
        index = func in _INDEXING and tensor is not tensors[0]
        return isinstance(tensor, Placed) or not (tensor.ndim == 0 or index)

    places = {_place(tensor) for tensor in tensors[: 1 if func in _COPIES else None] if binds(tensor)}
    if len(places) > 1:
        raise RuntimeError(f"{func} of tensors on several devices: {', '.join(sorted(map(str, places)))}")
    place = asked[0] if asked else next(iter(places), CPU)
    if place.type != "cpu":
        return func(*args, **kwargs)
    owners = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, Placed)}

    def placed(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        owner = owners.get(id(leaf))
        if owner is not None and owner.place == place:
            return owner  # changed in place
        leaf = leaf if owner is None else leaf.clone()
        return leaf if place.index is None else Placed(leaf, place)

    return _mapped(placed, func(*held_args, **held_kwargs))


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Change each leaf of what a function of torch takes or returns; torch's own `tree_map` is much slower."""
    if isinstance(value, tuple | list):
        items = [_mapped(change, item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {name: _mapped(change, item) for name, item in value.items()}
    return change(value)


def spread(model: PreTrainedModel, first: int) -> PreTrainedModel:
    """The model with its `first` blocks, and all before them, on the first device, and the rest on the second."""
    stack = find_blocks(model)
    blocks = {f"{stack.path}.{index}": FIRST if index < first else SECOND for index in range(len(stack))}
    places: dict[str, torch.device] = {}
    homes: dict[int, torch.device] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{block}.") for block in blocks)
        if name not in blocks and (inside or any(True for _ in module.children())):
            continue
        place = SECOND if blocks.keys() & places.keys() else FIRST
        place = next((homes[id(p)] for p in module.parameters() if id(p) in homes), place)  # tied weights stay together
        places[name] = blocks.get(name, place)
        homes |= dict.fromkeys(map(id, module.parameters()), places[name])
    return dispatch_model(model, places, main_device=FIRST)


def placed(model: PreTrainedModel, place: torch.device) -> PreTrainedModel:
    """The whole model on one of the devices, without hooks that bring its inputs there."""
    for name, _ in [*model.named_parameters(), *model.named_buffers()]:
        set_module_tensor_to_device(model, name, place)
    model.tie_weights()
    return model
