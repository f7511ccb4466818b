"""Finds a model's stack of blocks, in any architecture, and lets the hidden states pass some of them by."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from layerimp.errors import LayerimpError, ModelError, listing
from layerimp.plugins import host, one_line
from layerimp.refusals import refuse_unfit

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_COUNTS_BLOCKS = re.compile(r"(num|n)_(hidden_|decoder_|encoder_)?(layers?|blocks)|(decoder|encoder)_layers|depth")
"""Names of fields that count blocks."""


@dataclass(frozen=True)
class BlockStack(Sequence[nn.Module]):
    """The blocks of a model, in depth order.

    Attributes:
        model: The model that they belong to.
        path: Where they are in it, such as `model.layers`.
        config: The (sub-)configuration that counts them in `num_hidden_layers`.
        backbone: The part of the model that runs from token ids to the last hidden state, without a head.
    """

    model: PreTrainedModel
    path: str
    config: PretrainedConfig
    backbone: nn.Module

    @property
    def modules(self) -> nn.ModuleList:
        """The list that holds the blocks now."""
        modules = self.model.get_submodule(self.path)
        assert isinstance(modules, nn.ModuleList)
        return modules

    def __len__(self) -> int:
        return len(self.modules)

    def __getitem__(self, index: Any) -> Any:
        return self.modules[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.modules)

    @property
    def device(self) -> torch.device:
        """Where token ids have to lie."""
        return self._embedding.device

    @property
    def vocab_size(self) -> int:
        """How many token ids the model has an embedding for."""
        return int(self._embedding.shape[0])

    @property
    def _embedding(self) -> Tensor:
        try:
            return next(self.model.get_input_embeddings().parameters())
        except (NotImplementedError, AttributeError, StopIteration) as error:
            raise ModelError(f"{type(self.model).__name__} has no table of token embeddings") from error


def find_blocks(model: PreTrainedModel) -> BlockStack:
    """Find the stack of blocks of a model.

    A plugin's `layerimp_blocks` is asked first. Otherwise the stack is the one `ModuleList` that is as long as the
    configuration's `num_hidden_layers`, or another field that counts layers, and holds modules; of nested ones the
    outermost, of several the one with the largest blocks: of an encoder and a decoder, the decoder.

    Raises:
        ModelError: the model has none, or its configuration does not say how many blocks there are.
    """
    refuse_unfit(model)
    if stack := _taught(model):
        return stack
    try:
        config = model.config.get_text_config()
    except ValueError as error:
        raise ModelError(f"it is not clear which part of {type(model).__name__} holds its blocks: {error}") from error
    counts = _counts(config)
    kind = type(model).__name__
    if not counts:
        raise ModelError(f"the configuration of {kind} does not say how many blocks it has (num_hidden_layers)")
    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    fitting = {path: module for path, module in lists.items() if len(module) in counts}
    outermost = {
        path: module
        for path, module in fitting.items()
        if not any(path.startswith(f"{other}.") for other in fitting if other != path)
    }
    if not outermost:
        found = ", ".join(f"{path} ({len(module)})" for path, module in lists.items() if ".0." not in path) or "none"
        raise ModelError(
            f"{kind} has no list of {listing(map(str, counts))} blocks (its lists: {found}); "
            "a layerimp_blocks hook can teach it"
        )
    path = max(outermost, key=lambda p: sum(w.numel() for w in outermost[p].parameters()) / len(outermost[p]))
    return BlockStack(model, path, config, _backbone(model, path))


def _taught(model: PreTrainedModel) -> BlockStack | None:
    """The stack that a plugin finds; one whose hook is broken is left out from now on."""
    for implementation in reversed(host().manager.hook.layerimp_blocks.get_hookimpls()):
        plugin = implementation.plugin_name
        try:
            stack = implementation.function(model)
            if isinstance(stack, BlockStack):
                return stack
            if stack is None:
                continue
            cause = f"layerimp_blocks gave {type(stack).__name__}, not a BlockStack"
        except LayerimpError:  # it knows the model, and refuses it
            raise
        except (Exception, SystemExit) as error:
            cause = f"layerimp_blocks: {one_line(error)}"
        host().fail(plugin, cause)
        host().tell_failures()
    return None


def _counts(config: PretrainedConfig) -> list[int]:
    """How many blocks a stack may have: the fields of a configuration that count layers say."""
    main = getattr(config, "num_hidden_layers", None)
    named = [value for name, value in getattr(config, "__dict__", {}).items() if _COUNTS_BLOCKS.fullmatch(name)]
    return list(dict.fromkeys(value for value in (main, *named) if isinstance(value, int) and value > 0))


def _backbone(model: PreTrainedModel, path: str) -> nn.Module:
    """The smallest part that turns token ids into hidden states: the base model, where it holds the blocks."""
    prefix = model.base_model_prefix
    return model.base_model if prefix and path.startswith(f"{prefix}.") else model


def probe_ids(stack: BlockStack, tokens: int) -> Tensor:
    """A row of token ids [1, seq] to try the model on."""
    return torch.arange(1, 1 + tokens, device=stack.device)[None] % stack.vocab_size


def run(backbone: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    """What a backbone puts out for a batch; without padding it gets no mask, and attention can take its fast path."""
    mask = batch["attention_mask"]
    masked = {} if bool(mask.all()) else {"attention_mask": mask}
    return called(backbone, input_ids=batch["input_ids"], **masked, **without_cache(backbone))


def called(module: nn.Module, **inputs: Any) -> Any:
    """What a part of a model puts out.

    Raises:
        ModelError: it cannot; whatever the model says of it in one line.
    """
    try:
        return module(**inputs)
    except (LayerimpError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{type(module).__name__} cannot run on a batch: {one_line(error)}") from error


def without_cache(module: nn.Module) -> dict[str, bool]:
    """What tells a model to do without a cache, where it knows one."""
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}


def hidden_states(output: Any) -> Tensor:
    """The hidden states [batch, seq, hidden] that a block, or a part of one, returned.

    Some architectures return them bare, some first in a tuple or a mapping.
    """
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output
    found: Tensor = next(item for item in items if _is_tensor(item))
    return found


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """A block's output with other hidden states in it."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, Mapping):
        first = next(name for name, item in output.items() if _is_tensor(item))
        return type(output)(**{**output, first: hidden})
    position = next(i for i, item in enumerate(output) if _is_tensor(item))
    items = (*output[:position], hidden, *output[position + 1 :])
    return type(output)(*items) if hasattr(output, "_fields") else items


def block_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states [batch, seq, hidden] that a block was called with."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    if isinstance(hidden := kwargs.get("hidden_states"), Tensor):
        return hidden
    return next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point())


@contextmanager
def computing(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let `module` compute `forward` in place of its own; its hooks stay, and on leaving it is as it was."""
    own = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = own


@contextmanager
def giving_back(outputs: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Let blocks give back what they gave in an earlier pass, without computing it again; their hooks are called."""
    with ExitStack() as undo:
        for block, output in outputs.items():
            undo.enter_context(computing(block, partial(_constant, output)))
        yield


def _constant(output: Any, *_args: Any, **_kwargs: Any) -> Any:
    return output


@contextmanager
def bypassed(stack: BlockStack, blocks: Sequence[int], *, idle: bool = False) -> Iterator[None]:
    """Let the hidden states pass by `blocks` unchanged; nothing is removed, and all others keep their index.

    Args:
        stack: The model's blocks.
        blocks: Those to bypass.
        idle: Whether they do not even run, but once to show the form of their output. Only for models whose other
            blocks read nothing of them beside the hidden states.
    """
    with ExitStack() as undo:
        for block in blocks:
            undo.enter_context(computing(stack[block], _passing_by(stack[block].forward, idle)))
        yield


def _passing_by(forward: Callable[..., Any], idle: bool) -> Callable[..., Any]:
    """What returns the hidden states as they came, in the form in which `forward` returns others."""
    shown: list[Any] = []

    def passing(*args: Any, **kwargs: Any) -> Any:
        hidden = block_input(args, kwargs)
        if not (shown and idle):
            shown[:] = [with_hidden(forward(*args, **kwargs), hidden.new_empty(0))]
        return with_hidden(shown[0], hidden)

    return passing
