"""The checks that third parties run can fail: for each check there is a component that breaks the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import SkipTest

import pytest
import torch
from pydantic import BaseModel, Field
from pydantic import ConfigDict as Settings
from support.broken_healers import WRONG_HEALERS, Idle

import layerimp
from layerimp import Evaluator, Importance, Likelihood, Metric, PrunePlan, Pruner, Scorer
from layerimp.component import Component, Options
from layerimp.errors import ModelError, PluginError
from layerimp.registry.catalog import Registry
from layerimp.registry.loader import PluginHost
from layerimp.stats import Mean
from layerimp.steps import touched_by
from layerimp.sweep import Backward, Forward
from layerimp.testing import (
    ContractError,
    check_evaluator,
    check_healer,
    check_pruner,
    check_scorer,
    checks_of,
    parametrize,
)

ROOT = Path(layerimp.__file__).parents[1]


class Step(Scorer):
    """Mean L2 norm of what the block adds to the residual stream."""

    name = "step"
    sweep = Forward()
    observes = frozenset({"block_in", "block_out"})
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.mean = Mean(num_blocks)

    def update(self, trace: Any) -> None:
        self.mean.add(trace.block, self.norms(trace))

    def norms(self, trace: Any) -> Any:
        return (trace.rows("block_out") - trace.rows("block_in")).norm(dim=-1)

    def merge(self, other: Any) -> None:
        self.mean.merge(other.mean)

    def compute(self) -> Importance:
        return Importance(scores=self.mean.value().tolist())


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
    """Has an option that is another after it was written."""

    class Config(Options):
        """The options."""

        width: Width = Field(Width(), description="How wide.")


class Unpicklable(Step):
    """Holds a function that was made on the spot."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.weigh = lambda value: value


class OneShort(Step):
    """Forgets the last block."""

    def compute(self) -> Importance:
        return Importance(scores=super().compute().scores[:-1])


class Infinite(Step):
    """Divides by zero."""

    def compute(self) -> Importance:
        return Importance(scores=[score / 0.0 if score else 0.0 for score in (torch.tensor(1.0),) * 4])


class Consuming(Step):
    """Adds to its sums whenever it is read."""

    def compute(self) -> Importance:
        self.mean.add(0, torch.full((5,), 100.0))
        return super().compute()


class Noisy(Step):
    """Draws from the global generator."""

    def norms(self, trace: Any) -> Any:
        norms = super().norms(trace)
        return norms + torch.rand_like(norms)


class Shared(Step):
    """All instances count in one place."""

    seen: list[int] = []  # noqa: RUF012

    def norms(self, trace: Any) -> Any:
        self.seen.append(1)
        return super().norms(trace) + len(self.seen)


class PerBatch(Step):
    """A mean of means of batches."""

    def norms(self, trace: Any) -> Any:
        return super().norms(trace).mean()[None]


class Padded(Step):
    """Counts the padding as well."""

    def norms(self, trace: Any) -> Any:
        return (trace.acts["block_out"] - trace.acts["block_in"]).norm(dim=-1).flatten()


class Forgetful(Step):
    """Keeps the other shard only."""

    def merge(self, other: Any) -> None:
        self.mean = other.mean


class Ordered(Step):
    """Relies on blocks coming from the first to the last."""

    def norms(self, trace: Any) -> Any:
        if trace.block == 0:
            self.first = super().norms(trace).mean()
        return super().norms(trace) / getattr(self, "first", 1.0)


class Changing(Step):
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


class KeepingRows(Step):
    """Keeps the rows, which are a view where nothing is padded."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.kept: list[Any] = []

    def update(self, trace: Any) -> None:
        self.kept.append((trace.block, trace.rows("block_out")))

    def compute(self) -> Importance:
        mean = Mean(self.num_blocks)
        for block, rows in self.kept:
            mean.add(block, rows.norm(dim=-1))
        return Importance(scores=mean.value().tolist())


class Hoarding(Step):
    """Keeps copies that it never looks at."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.kept: list[Any] = []

    def update(self, trace: Any) -> None:
        self.kept.append(trace.rows("block_out").clone())
        super().update(trace)


class DividingRows(Step):
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
    """Changes a weight while it looks."""

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


class Reseeds(Step):
    """Sets the global generator."""

    def update(self, trace: Any) -> None:
        torch.manual_seed(7)
        super().update(trace)


class StatelessPickle(Step):
    """Forgets what it has seen on the way to another process."""

    def __getstate__(self) -> dict[str, Any]:
        mean = Mean(self.num_blocks)
        for block in range(self.num_blocks):
            mean.add(block, torch.ones(1))
        return vars(self) | {"mean": mean}


class Parochial(Step):
    """Supports only decoders, and fails on other models."""

    def norms(self, trace: Any) -> Any:
        if trace.rows("block_out").mean(dim=-1).abs().max() < 1e-9:  # it ends in a layer norm
            raise RuntimeError("what is this?")
        return super().norms(trace)


class Depth(Step):
    """Declares that an identity scores least, although only the depth counts."""

    def compute(self) -> Importance:
        return Importance(scores=[float(block + 1) for block in range(self.num_blocks)])


class Indexed(Step):
    """Weighs a block by its index, which a seam does not have."""

    def norms(self, trace: Any) -> Any:
        return super().norms(trace) * (1 + self.steps[trace.block])  # type: ignore[operator]


class Deepest(Pruner):
    """Removes the deepest blocks that may go."""

    name = "deepest"
    nested = True

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        scoring(())
        free = [b for b in reversed(range(budget.num_blocks)) if b not in budget.protected | set(budget.forced)]
        blocks = [*budget.forced, *free][: budget.count]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=blocks)


class Spendthrift(Deepest):
    """Removes a block more than it may."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        plan = super().plan(scoring, budget)
        free = [block for block in range(budget.num_blocks) if block not in plan.blocks]
        return plan.model_copy(update={"blocks": [*plan.blocks, free[0]]})


class Reckless(Deepest):
    """Ignores protected blocks."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        return super().plan(scoring, type(budget)(budget.num_blocks, budget.count, frozenset(), budget.forced))


class Numeric(Deepest):
    """Takes every step for the index of a block."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        plan = super().plan(scoring, budget)
        return plan.model_copy(update={"blocks": [int(block) for block in plan.blocks]})


class Seamless(Deepest):
    """Takes the blocks that a forced seam lies between in its place."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        forced = [int(str(step).partition("/")[0]) for step in budget.forced]
        blocks = [*forced, *(block for block in reversed(range(budget.num_blocks)) if block not in budget.protected)]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(dict.fromkeys(blocks))[: budget.count])


class Planless(Deepest):
    """Gives a list of blocks."""

    def plan(self, scoring: Any, budget: Any) -> Any:
        return super().plan(scoring, budget).blocks


class Moody(Deepest):
    """Plans something else each time."""

    turn: Literal[0, 1] = 0

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        Moody.turn = 1 - Moody.turn
        plan = super().plan(scoring, budget)
        return plan.model_copy(update={"blocks": plan.blocks[:: 1 if Moody.turn else -1], "reason": str(Moody.turn)})


class Sorting(Deepest):
    """Sorts the scores that it was given."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        scoring(()).scores.sort()
        return super().plan(scoring, budget)


class Asking(Deepest):
    """Asks for scores without a protected block."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        scoring((0, 5))
        return super().plan(scoring, budget)


class Fickle(Deepest):
    """Declares nested plans, but reverses them."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        plan = super().plan(scoring, budget)
        return plan.model_copy(update={"blocks": plan.blocks[::-1]})


class Overlapping(Deepest):
    """Takes the weakest steps of one scoring, even if they overlap."""

    cuts_seams = True

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        weakest = [step for step in scoring(()).weakest_first() if budget.protected.isdisjoint(touched_by([step]))]
        blocks = list(dict.fromkeys([*budget.forced, *weakest]))[: budget.count]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=blocks)


class Seams(Deepest):
    """Asks what comes next, and takes the deepest."""

    name = "seams"
    cuts_seams = True

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        taken = list(budget.forced)
        while len(taken) < budget.count:
            taken.append([s for s in scoring(taken).blocks if budget.protected.isdisjoint(touched_by([s]))][-1])
        return PrunePlan(num_blocks=budget.num_blocks, blocks=taken)


class Parameters(Evaluator):
    """Counts the parameters."""

    name = "parameters"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "parameters", sum(p.numel() for p in model.parameters()), higher_is_better=False)]


class Empty(Parameters):
    """Measures nothing."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return []


class Numbers(Parameters):
    """Gives bare numbers."""

    def evaluate(self, model: Any, tokenizer: Any) -> Any:
        return [metric.value for metric in super().evaluate(model, tokenizer)]


class NotANumber(Parameters):
    """Gives NaN."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "parameters", float("nan"))]


class Twice(Parameters):
    """Gives everything twice."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return super().evaluate(model, tokenizer) * 2


class Training(Parameters):
    """Leaves the model in training mode."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        model.train()
        return super().evaluate(model, tokenizer)


class Rounding(Parameters):
    """Rounds the weights."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
        return super().evaluate(model, tokenizer)


class OtherDocuments(Parameters):
    """Keeps documents whose mean is another number."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "acc", 0.5, documents=(1.0, 1.0, 0.0))]


class OtherUnits(Parameters):
    """Keeps a likelihood in another unit than that of the metric."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "ppl", 2.0, None, False, likelihood=Likelihood((-1.0, -2.0), (4.0, 4.0)))]


class Ragged(Parameters):
    """Keeps fewer units than documents."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "ppl", 2.0, None, False, likelihood=Likelihood((-1.0, -2.0), (4.0,)))]


class PerBlock(Parameters):
    """Has a metric for each block."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric(f"block {index}", "size", 1.0) for index, _ in enumerate(model.model.layers)]


class Guessing(Parameters):
    """Draws its number."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "luck", float(torch.rand(1, generator=torch.Generator().manual_seed(id(self) % 999))))]


class Unprintable(Parameters):
    """Has a fingerprint that is no text."""

    def fingerprint(self) -> Any:
        return object()


class Tokenizing(Parameters):
    """Needs a tokenizer."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        len(tokenizer)
        return super().evaluate(model, tokenizer)


def louder(self: Step, trace: Any) -> Any:
    """Ten times as much for a seam."""
    return Step.norms(self, trace) * (10 if self.scores_seams else 1)


WRONG: list[tuple[type[Component], str, str]] = [
    (Undescribed, "it is described", "no docstring"),
    (type("Silent", (Step,), {"__doc__": "A doc.", "Config": Undescribed.Config}), "it is described", "'width' has no"),
    (type("Spaced", (Step,), {"__doc__": "A doc.", "name": "my step"}), "it is described", "'my step' cannot be"),
    (Loose, "it is described", "no subclass of layerimp.component.Options"),
    (AnyOption, "options are validated", "anything at all as 'width'"),
    (Careless, "options are validated", "anything at all as 'no_such_option'"),
    (Unfixed, "options are validated", "not frozen"),
    (Unwritable, "options survive a recipe", "the options read"),
    (Unpicklable, "it pickles", "pickle"),
    (OneShort, "scores are whole and finite", "3 scores for 4 blocks"),
    (Infinite, "scores are whole and finite", "inf"),
    (Consuming, "computing changes nothing", "where it gave"),
    (Noisy, "runs are repeatable", "in a second run"),
    (Shared, "runs are repeatable", "in a second run"),
    (PerBatch, "batch size changes nothing", "in batches of two"),
    (Padded, "padding changes nothing", "with padding on the left"),
    (Forgetful, "shards merge", "merged from two shards"),
    (Ordered, "order changes nothing", "when the last block comes first"),
    (Changing, "borrowed tensors stay as they are", r"changed acts\['block_out'\] of block 0; reduce a copy"),
    (Keeping, "borrowed tensors stay as they are", "it keeps a tensor"),
    (KeepingRows, "borrowed tensors stay as they are", "it keeps a tensor"),
    (Hoarding, "borrowed tensors stay as they are", "it grows by .* bytes with each batch"),
    (DividingRows, "borrowed tensors stay as they are", r"changed acts\['block_out'\] of block 0"),
    (LeavesAHook, "the model stays as it is", "left a hook on model.layers.0 behind"),
    (ChangesAWeight, "the model stays as it is", "the weight model.layers.0"),
    (Reseeds, "the model stays as it is", "random generator"),
    (StatelessPickle, "it pickles with what it has seen", "after pickling"),
    (Parochial, "other architectures are scored or refused", "failed at block 0"),
    (Indexed, "seams are scored like blocks", "failed at seam 1/2"),
    (
        type("Louder", (Step,), {"__doc__": "A doc.", "norms": louder}),
        "seams are scored like blocks",
        "as the seam that",
    ),
    (Depth, "an identity scores least", "block 2 adds nothing and scores 3, block 0 adds something and scores 1"),
    (Spendthrift, "the budget is kept", "2 blocks go where the budget says 1"),
    (Reckless, "the budget is kept", "a block goes that the budget protects"),
    (Numeric, "the budget is kept", "ValueError.*'1/2'"),
    (Seamless, "the budget is kept", "a block goes that the budget protects: .1, 5, 4."),
    (Planless, "the budget is kept", "gives list, not a PrunePlan"),
    (Moody, "plans are repeatable", "it plans"),
    (Sorting, "scores stay as they are", "have become"),
    (Asking, "scoring is asked soundly", "without a protected block"),
    (Fickle, "plans are nested", "does not begin with"),
    (Overlapping, "seams are cut", "refuses to remove 2 of 6 blocks: .* both remove"),
    (Empty, "metrics are sound", "no metrics"),
    (Numbers, "metrics are sound", "a list with float in it, not Metric"),
    (NotANumber, "metrics are sound", "parameters of model is NaN"),
    (Twice, "metrics are sound", "measures parameters of model twice"),
    (Training, "the model stays as it is", "the mode of"),
    (Rounding, "the model stays as it is", "the value of"),
    (OtherDocuments, "metrics are sound", "acc of model is 0.5, its documents' mean 0.66"),
    (OtherUnits, "metrics are sound", "ppl of model is 2.0, its likelihood says 1.45"),
    (Ragged, "metrics are sound", "the arrays of ppl of model have .2, 1, 2. documents"),
    (PerBlock, "pruned models are measured", "of a pruned model"),
    (Guessing, "quality is repeatable", "after"),
    (Unprintable, "the fingerprint is stable", "not text"),
    (Tokenizing, "a missing tokenizer is handled", "TypeError"),
    *WRONG_HEALERS,
]


@pytest.mark.parametrize(("component", "contract", "said"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_contract_is_told(component: type[Component], contract: str, said: str) -> None:
    (check,) = [check for check in checks_of(component) if check.name == contract]
    with pytest.raises(ContractError, match=f"breaks the contract '{contract}': .*{said}.* \\({check.where}\\)"):
        check()


@parametrize(Step, Deepest, Seams, Idle, Parameters)
def test_what_is_right_passes(check: Any) -> None:
    check()


def test_every_check_can_fail_and_is_explained() -> None:
    names = {check.name for good in (Step, Seams, Idle, Parameters) for check in checks_of(good)}
    assert {contract for _, contract, _ in WRONG} == names
    page = (ROOT / "docs" / "reference" / "testing.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^### (.*)$", page, re.MULTILINE)}
    assert headings == {name.lower() for name in names}


def test_all_checks_at_once() -> None:
    check_scorer(Step)
    check_pruner(Deepest)
    check_healer(Idle)
    check_evaluator(Parameters)
    with pytest.raises(ContractError, match="'shards merge'"):
        check_scorer(Forgetful)
    with pytest.raises(ContractError, match="'the budget is kept'"):
        check_pruner(Spendthrift())
    with pytest.raises(ContractError, match="'metrics are sound'"):
        check_evaluator(Empty())


def test_what_cannot_run_is_told_once() -> None:
    base, *others = [check for check in checks_of(OneShort) if check.base or check.name.startswith("scores are whole")]
    with pytest.raises(ContractError, match="3 scores for 4 blocks"):
        base()
    for check in others:
        with pytest.raises(
            SkipTest, match="not checked, since 'step' breaks the contract 'scores are whole and finite'"
        ):
            check()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": ""}, "Fault has no name"),
        ({"compute": Scorer.compute}, "Fault lacks compute"),
        ({"sweep": Forward}, r"Fault.sweep is a class; write Forward\(\)"),
        ({"observes": "block_in"}, r"Fault.observes is a text; write frozenset\(\{'block_in'\}\)"),
        (
            {"observes": {"blok_in"}},
            r"Fault observes 'blok_in', which the sweep Forward does not offer, did you mean 'block_in'",
        ),
    ],
)
def test_a_class_that_is_not_whole_is_told_at_once(body: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        checks_of(type("Fault", (Step,), body))
    with pytest.raises(PluginError, match=said):
        Registry(PluginHost([], blocked=()))._checked("scorer", Scorer, [type("Fault", (Step,), body)])


def test_a_refusal_is_no_breach() -> None:
    class Choosy(Step):
        """Refuses encoders."""

        def update(self, trace: Any) -> None:
            if not trace.acts["block_in"].is_floating_point():
                raise AssertionError
            super().update(trace)

        def end_sweep(self) -> None:
            raise ModelError("no encoders, please")

    check = next(check for check in checks_of(Choosy) if check.name.startswith("other architectures"))
    check()
