"""For each contract of scorers, a scorer that breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from layerimp_baselines import Perplexity
from layerimp_step import Step
from pydantic import BaseModel, Field
from pydantic import ConfigDict as Settings

from layerimp import Importance, Scorer
from layerimp.component import Options
from layerimp.stats import Mean
from layerimp.sweep import Ablation, Backward, Forward


class Norms(Step):
    """Takes the norms of what a block adds from a method, which subclasses replace."""

    def update(self, trace: Any) -> None:
        self.mean.add(trace.block, self.norms(trace))

    def norms(self, trace: Any) -> Any:
        return (trace.rows("block_out") - trace.rows("block_in")).norm(dim=-1)


class Undescribed(Step):
    class Config(Options):
        """The options."""

        width: int = 3


class AnyOption(Step):
    """Takes anything."""

    class Config(Options):
        """The options."""

        width: Any = Field(3, description="How wide.")


class Careless(Step):
    """Ignores what it does not know."""

    class Config(Options):
        """The options."""

        model_config = Settings(extra="ignore")


class Unfixed(Step):
    """Its options change under way."""

    class Config(Options):
        """The options."""

        model_config = Settings(frozen=False)


class Loose(Step):
    """Has a Config of its own kind."""

    class Config(BaseModel):
        """The options."""

    Config.model_config = Settings(extra="forbid", frozen=True)


class Width(BaseModel):
    """An option that JSON does not bring back as it was."""

    model_config = Settings(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    value: int = 3

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = BaseModel.__hash__


class Unwritable(Step):
    """Has an option whose value changes when it is written."""

    class Config(Options):
        """The options."""

        width: Width = Field(Width(), description="How wide.")


class OneShort(Step):
    """Forgets the last block."""

    def compute(self) -> Importance:
        return Importance(scores=super().compute().scores[:-1])


class OneWindowMore(Step):
    """Scores a window that begins with each block, also with the last one."""

    def compute(self) -> Importance:
        scores = super().compute().scores
        return Importance(scores=scores, spans={2: scores})


class WindowsPerBatch(Step):
    """Weighs windows by the number of batches."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.updates = 0

    def update(self, trace: Any) -> None:
        super().update(trace)
        self.updates += 1

    def compute(self) -> Importance:
        scores = super().compute().scores
        return Importance(scores=scores, spans={2: [score * self.updates for score in scores[1:]]})


class Infinite(Step):
    """Divides by zero."""

    def compute(self) -> Importance:
        return Importance(scores=[score / 0.0 if score else 0.0 for score in (torch.tensor(1.0),) * 4])


class Consuming(Step):
    """Adds to its sums whenever the result is computed."""

    def compute(self) -> Importance:
        self.mean.add(0, torch.full((5,), 100.0))
        return super().compute()


class Noisy(Norms):
    """Draws from the global generator."""

    def norms(self, trace: Any) -> Any:
        norms = super().norms(trace)
        return norms + torch.rand_like(norms)


class Shared(Norms):
    """All instances count in one place."""

    seen: list[int] = []  # noqa: RUF012

    def norms(self, trace: Any) -> Any:
        self.seen.append(1)
        return super().norms(trace) + len(self.seen)


class PerBatch(Norms):
    """A mean of means of batches."""

    def norms(self, trace: Any) -> Any:
        return super().norms(trace).mean()[None]


class Padded(Norms):
    """Counts the padding as well."""

    def norms(self, trace: Any) -> Any:
        return (trace.acts["block_out"] - trace.acts["block_in"]).norm(dim=-1).flatten()


class Ordered(Norms):
    """Relies on blocks coming from the first to the last."""

    def norms(self, trace: Any) -> Any:
        if trace.block == 0:
            self.first = super().norms(trace).mean()
        return super().norms(trace) / getattr(self, "first", 1.0)


class LastBlock(Norms):
    """Takes the last block for the end of a batch, and keeps the largest sum of a batch."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.now, self.most = [0.0] * num_blocks, [0.0] * num_blocks

    def update(self, trace: Any) -> None:
        self.now[trace.block] += float(self.norms(trace).sum())
        if trace.block == self.num_blocks - 1:
            self.most = [max(pair) for pair in zip(self.most, self.now, strict=True)]
            self.now = [0.0] * self.num_blocks

    def compute(self) -> Importance:
        return Importance(scores=list(self.most))


class Changing(Norms):
    """Subtracts in place."""

    def norms(self, trace: Any) -> Any:
        return trace.acts["block_out"].sub_(trace.acts["block_in"])[trace.mask].norm(dim=-1)


class Keeping(Step):
    """Keeps the tensors, and reads them at the end."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.kept: list[Any] = []

    def update(self, trace: Any) -> None:
        self.kept.append((trace.block, trace.acts["block_out"], trace.mask))

    def compute(self) -> Importance:
        mean = Mean(self.num_blocks)
        for block, act, mask in self.kept:
            mean.add(block, act[mask].norm(dim=-1))
        return Importance(scores=mean.value().tolist())


class KeepingRows(Keeping):
    """Keeps the rows, which are a view where nothing is padded."""

    def update(self, trace: Any) -> None:
        self.kept.append((trace.block, trace.rows("block_out"), slice(None)))


class Hoarding(Step):
    """Keeps copies that it never looks at."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.kept: list[Any] = []

    def update(self, trace: Any) -> None:
        self.kept.append(trace.rows("block_out").clone())
        super().update(trace)


class DividingRows(Norms):
    """Divides the rows in place, which are a view where nothing is padded."""

    def norms(self, trace: Any) -> Any:
        rows = trace.rows("block_out")
        rows /= rows.norm()
        return rows.norm(dim=-1)


class Hooking(Forward):
    """Leaves a hook on the model."""

    def drive(self, stack: Any, *args: Any, **kwargs: Any) -> None:
        stack[0].register_forward_hook(lambda *_: None)
        super().drive(stack, *args, **kwargs)


class Writing(Backward):
    """Changes a weight of the model."""

    @contextmanager
    def rules(self, stack: Any) -> Iterator[dict[str, Any]]:
        with torch.no_grad():
            next(stack[0].parameters()).mul_(1.5)
        yield {}


class LeavesAHook(Step):
    """Through its sweep."""

    sweep = Hooking()


class ChangesAWeight(Step):
    """Through its sweep."""

    sweep = Writing()
    identity_scores_least = False


class Unbypassed(Forward):
    """Bypasses nothing."""

    def drive(self, stack: Any, batches: Any, drive: Any) -> None:
        super().drive(stack, batches, replace(drive, removed=()))


class Stale(Ablation):
    """Keeps the predictions before a block is left out, although they depend on what is removed."""

    def drive(self, stack: Any, batches: Any, drive: Any) -> None:
        known = drive.memory.setdefault(self, {})

        def take(taker: Any, trace: Any) -> None:
            before = known.setdefault(trace.batch, trace.acts[self.INTACT].clone())
            taker(replace(trace, acts={**trace.acts, self.INTACT: before}))

        takers = {sites: partial(take, taker) for sites, taker in drive.takers.items()}
        super().drive(stack, batches, replace(drive, takers=takers))


class LeavesNothingOut(Step):
    """Through its sweep."""

    sweep = Unbypassed()


class KeepsTooMuch(Perplexity):
    """Through its sweep."""

    sweep = Stale()


class Reseeds(Step):
    """Sets the global generator."""

    def update(self, trace: Any) -> None:
        torch.manual_seed(7)
        super().update(trace)


class Parochial(Norms):
    """Supports only decoders, and fails on other models."""

    def norms(self, trace: Any) -> Any:
        if trace.rows("block_out").mean(dim=-1).abs().max() < 1e-9:  # it ends in a layer norm
            raise RuntimeError("what is this?")
        return super().norms(trace)


class Depth(Step):
    """Declares that an identity scores least, although only the depth counts."""

    def compute(self) -> Importance:
        return Importance(scores=[float(block + 1) for block in range(self.num_blocks)])


class Shifted(Step):
    """Gives a block that adds nothing more than a harmful one, and not 0."""

    def compute(self) -> Importance:
        *scores, last = super().compute().scores
        return Importance(scores=[*(score + 1e-3 for score in scores), -last])


class Share(Perplexity):
    """The rise of the loss as a share of that of all blocks."""

    name = "share"

    def compute(self) -> Importance:
        scores = super().compute().scores
        return Importance(scores=[score / sum(map(abs, scores)) for score in scores])


WRONG_SCORERS: list[tuple[type[Scorer], str, str]] = [
    (Undescribed, "it is described", "no docstring"),
    (type("Silent", (Step,), {"__doc__": "A doc.", "Config": Undescribed.Config}), "it is described", "'width' has no"),
    (type("Spaced", (Step,), {"__doc__": "A doc.", "name": "my step"}), "it is described", "'my step' cannot be"),
    (Loose, "it is described", "no subclass of layerimp.component.Options"),
    (AnyOption, "options are validated", "anything at all as 'width'"),
    (Careless, "options are validated", "anything at all as 'no_such_option'"),
    (Unfixed, "options are validated", "not frozen"),
    (Unwritable, "options survive a recipe", "the options read"),
    (OneShort, "scores are whole and finite", "3 scores for 4 blocks"),
    (OneWindowMore, "scores are whole and finite", "4 windows of 2 for 4 blocks"),
    (Infinite, "scores are whole and finite", "inf"),
    (Consuming, "computing changes nothing", "where it gave"),
    (Noisy, "runs are repeatable", "in a second run"),
    (Shared, "runs are repeatable", "in a second run"),
    (PerBatch, "batch size changes nothing", "in batches of two"),
    (WindowsPerBatch, "batch size changes nothing", "the span of 2 of block 0 is .* in batches of two"),
    (Padded, "padding changes nothing", "with padding on the left"),
    (Ordered, "order changes nothing", "when the last block comes first"),
    (LastBlock, "offloading changes nothing", "when all batches pass through a block before the next block"),
    (Changing, "borrowed tensors stay as they are", r"changed acts\['block_out'\] of block 0; reduce a copy"),
    (Keeping, "borrowed tensors stay as they are", "it keeps a tensor"),
    (KeepingRows, "borrowed tensors stay as they are", "it keeps a tensor"),
    (Hoarding, "borrowed tensors stay as they are", "it grows by .* bytes with each batch"),
    (DividingRows, "borrowed tensors stay as they are", r"changed acts\['block_out'\] of block 0"),
    (LeavesAHook, "the model stays as it is", "changed a hook on model.layers.0"),
    (ChangesAWeight, "the model stays as it is", "the weight model.layers.0"),
    (Reseeds, "the model stays as it is", "random generator"),
    (Parochial, "other architectures are scored or refused", "failed at block 0"),
    (Share, "some blocks score as among all", "block 0 scores .* among 2 blocks, and .* among all"),
    (LeavesNothingOut, "removed blocks are out", "after block 1 was removed, and .* in a model that never had it"),
    (KeepsTooMuch, "kept memory changes nothing", "in the intact model after earlier scorings, and .* without these"),
    (Shifted, "an identity scores least", "block 0 adds nothing and scores 0.001, block 3 adds something and scores -"),
    (Depth, "an identity scores least", "block 2 adds nothing and scores 3, block 0 adds something and scores 1"),
]
