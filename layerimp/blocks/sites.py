"""Finds where, inside a block, the attention and the MLP add to the residual stream.

Nothing is known by name. One trial on a few tokens records what every submodule of a block reads and puts out; a
submodule's output is an *addition* when a residual value plus it (times a constant, in models that scale their
branches) is, element by element, what a later submodule reads or what the block puts out. The first addition is the
attention's (`attn_out`), the last one the MLP's (`mlp_out`); `attn_act` and `mlp_act` are the inputs of the linear maps
whose outputs become them. Sandwich norms, post-norm encoders, parallel branches and modules that add the residual
themselves all come out right, because only the numbers count; a block that computes otherwise simply has no such
site.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.func import functional_call
from torch.utils._pytree import tree_map, tree_map_only

from layerimp.blocks.forward import block_input, called, computing, hidden_states, with_hidden, without_cache
from layerimp.blocks.stack import probe_ids
from layerimp.errors import LayerimpError, NonFiniteError
from layerimp.stats import working_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

TRIAL_TOKENS = 8


@dataclass(frozen=True)
class Tap:
    """Where to read a site.

    Attributes:
        path: The submodule, relative to its block.
        side: Which end of it.
        scale: What the tensor is multiplied with before it is added to the residual stream.
        overwritten: Whether the block later changes the tensor in place, so that it has to be copied.
    """

    path: str
    side: Literal["input", "output"]
    scale: float = 1.0
    overwritten: bool = False


Taps = dict[str, Tap]
"""The taps of one block, by site."""


def find_taps(stack: BlockStack) -> list[Taps]:
    """The taps of every block of `stack`.

    One block of each structure is tried, and the pass ends when all are known. A block whose branches put out
    nothing (all zeros) shows no additions; the next one of its structure is tried in its place.

    Raises:
        NonFiniteError: a block puts out a NaN or an infinity, so that nothing can be told.
    """
    structures = {block: _structure(block) for block in stack}
    found: dict[_Structure, Taps] = {}
    # Mostly a block reads nothing of those before it but the hidden states; then none has to run but in the trial.
    with suppress(LayerimpError):
        _trial(stack, structures, found, passing=True)
    if found.keys() != set(structures.values()):
        _trial(stack, structures, found, passing=False)
    return [found.get(structures[block], {}) for block in stack]


def _trial(
    stack: BlockStack, structures: Mapping[nn.Module, _Structure], found: dict[_Structure, Taps], *, passing: bool
) -> None:
    """Add to `found` the taps of each structure in one pass through the backbone, which ends when all are known.

    With `passing`, the hidden states pass by the blocks unchanged.
    """
    shown: dict[_Structure, Any] = {}
    trying = False

    def step(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal trying
        structure = structures[block]
        if not trying and structure not in found:  # the trial runs the block itself
            trying, finite = True, True
            try:
                taps, output = _taps_of(block, args, kwargs)
                finite = bool(hidden_states(output).isfinite().all())
                shown[structure] = output
            except Exception:  # whatever a block makes of running twice; then nothing is known of its inside
                taps = {}
            finally:
                trying = False
            if not finite:
                which = f"block {list(stack).index(block)}"
                raise NonFiniteError(f"{which} puts out a NaN or an infinity in the trial before batch 0")
            if taps:
                found[structure] = taps
            if found.keys() == set(structures.values()):
                raise _AllKnownError
        if passing and not trying and structure in shown:
            return with_hidden(shown[structure], block_input(args, kwargs))
        return forward(*args, **kwargs)

    ids = probe_ids(stack, TRIAL_TOKENS)
    with ExitStack() as undo, torch.no_grad(), suppress(_AllKnownError):
        for block in structures:
            undo.enter_context(computing(block, partial(step, block, block.forward)))
        called(stack.backbone, input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(stack.backbone))


class _AllKnownError(LayerimpError):
    """Ends a trial early."""


_Structure = tuple[tuple[object, ...], ...]
_Call = tuple[tuple[Any, ...], dict[str, Any]]


def _structure(block: nn.Module) -> _Structure:
    """What decides how a block computes: the classes of its modules, and their switches, kinds and factors."""
    return tuple(
        (path, type(module), *sorted((k, v) for k, v in vars(module).items() if isinstance(v, bool | float | str)))
        for path, module in block.named_modules()
    )


def _taps_of(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Taps, Any]:
    """The taps of one block, and its output. A half-precision block is run in float32: small branches do not vanish."""
    # What a block reads may still lie on the device of the one before it.
    device = next(block.parameters()).device
    call: _Call = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device, copy=True), (args, kwargs))
    tensors = dict(chain(block.named_parameters(), block.named_buffers()))
    try:
        return _record(block, tree_map_only(torch.Tensor, _widened, call), tree_map(_widened, tensors))
    except RuntimeError:  # an attention kernel that knows only half precision
        return _record(block, call, {})


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(working_dtype(tensor.dtype)) if tensor.is_floating_point() else tensor


def _record(block: nn.Module, call: _Call, tensors: dict[str, Tensor]) -> tuple[Taps, Any]:
    """The taps of a block that computes with other `tensors` in place of its own, and its output."""
    events: list[_Event] = []

    def note(path: str, module: nn.Module, side: Literal["input", "output"], values: Iterable[Any]) -> None:
        value = next((v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()), None)
        if value is not None and value.numel() == TRIAL_TOKENS * value.shape[-1]:
            rows = value.detach().reshape(TRIAL_TOKENS, -1).clone()
            events.append(_Event(path, module, side, rows, value, value._version))

    def enter(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note(path, module, "input", (*args, *kwargs.values()))

    def leave(path: str, module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        note(path, module, "output", output if isinstance(output, tuple | list) else (output,))

    with ExitStack() as hooks, torch.no_grad():
        for path, module in block.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(partial(enter, path), with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(partial(leave, path)))
        output = functional_call(block, tensors, *call)
    return _resolve(events), output


@dataclass
class _Event:
    """A tensor that a submodule read or put out: a copy [token, feature], and the tensor itself."""

    path: str
    module: nn.Module
    side: Literal["input", "output"]
    rows: Tensor
    borrowed: Tensor
    version: int

    @property
    def overwritten(self) -> bool:
        return self.borrowed._version != self.version


def _resolve(events: list[_Event]) -> Taps:
    """The taps of a block from its events, in order: the first is its input, the last its output."""
    start, end = events[0], events[-1]
    residuals = [start.rows]
    outputs: list[_Event] = []
    additions: list[tuple[_Event, float]] = []
    inputs = {start.path: start}
    for event in events[1:]:
        if event.rows.shape[1] == start.rows.shape[1]:
            if event.side == "input" or event is end:
                _match(event.rows, residuals, outputs, additions)
            elif _is_norm(event.module) and any(torch.equal(inputs[event.path].rows, r) for r in residuals):
                residuals.append(event.rows)
            else:
                outputs.append(event)
        if event.side == "input":
            inputs[event.path] = event
    if not additions:
        additions = _match_parallel(end.rows, start.rows, outputs)
    if len(additions) < 2:
        return {}
    (attention, attention_scale), (mlp, mlp_scale) = additions[0], additions[-1]
    taps = {
        "attn_out": Tap(attention.path, "output", attention_scale, attention.overwritten),
        "mlp_out": Tap(mlp.path, "output", mlp_scale, mlp.overwritten),
    }
    before = 0
    for site, addition in (("attn_act", attention), ("mlp_act", mlp)):
        until = outputs.index(addition) + 1
        if last := _last_linear(outputs[before:until], addition, inputs):
            taps[site] = Tap(last.path, "input", 1.0, inputs[last.path].overwritten)
        before = until
    return taps


def _last_linear(outputs: list[_Event], addition: _Event, inputs: Mapping[str, _Event]) -> _Event | None:
    """The output of the linear map that becomes an addition, as it is or through one more module such as a norm."""
    for event in reversed(outputs):
        becomes_it = torch.equal(event.rows, addition.rows) or torch.equal(event.rows, inputs[addition.path].rows)
        if becomes_it and _is_linear(event.module):
            return event
    return None


def _match(
    target: Tensor, residuals: list[Tensor], outputs: list[_Event], additions: list[tuple[_Event, float]]
) -> None:
    """Note the addition that leads from a known residual value to `target`, if one does."""
    if any(torch.equal(target, known) for known in residuals):
        return
    pairs = [(residual, output) for residual in reversed(residuals) for output in outputs]
    for scale_of in (_plain, _scaled):
        for residual, output in pairs:
            if scale := scale_of(target, residual, output.rows):
                additions.append((output, scale))
                residuals.append(target)
                return


def _match_parallel(end: Tensor, start: Tensor, outputs: list[_Event]) -> list[tuple[_Event, float]]:
    """The two outputs that together lead from the block's input to its output, if two do."""
    for first, second in combinations(outputs, 2):
        error = (end - start - first.rows - second.rows).abs()
        if _explains(error, end, start, first.rows, second.rows) and not torch.equal(first.rows, second.rows):
            return [(first, 1.0), (second, 1.0)]
    return []


def _plain(target: Tensor, residual: Tensor, output: Tensor) -> float:
    """1 where residual + output == target, else 0."""
    return float(_explains((target - residual - output).abs(), target, residual, output))


def _scaled(target: Tensor, residual: Tensor, output: Tensor) -> float:
    """The constant c with residual + c x output == target, or 0 where there is none."""
    step, branch = (target - residual).double(), output.double()
    scale = float((step * branch).sum() / branch.square().sum().clamp_min(1e-300))
    return scale if _explains((step - scale * branch).abs(), target, residual, scale * output) else 0.0


def _explains(error: Tensor, target: Tensor, residual: Tensor, *branches: Tensor) -> bool:
    """Whether `error` is rounding alone, while the branches are more than rounding."""
    rounding = 4 * torch.finfo(target.dtype).eps * (target.abs() + residual.abs() + sum(b.abs() for b in branches))
    if not (error <= rounding).all():
        return False
    visible = (target - residual).abs() > rounding
    return float(visible.double().mean()) > 0.5


def _is_norm(module: nn.Module) -> bool:
    return not any(True for _ in module.children()) and all(p.ndim < 2 for p in module.parameters())


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 2
