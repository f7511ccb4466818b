"""How tables, pages and cards say it: removed blocks, amounts, targets, what healing brought back, and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from layerimp._table import Cell
from layerimp.indices import named, read_blocks, runs_of
from layerimp.pruner import counted
from layerimp.report.results.comparison import Compared, ModelResults
from layerimp.report.results.measures import Interval, Measured, Share
from layerimp.report.results.models import PLAN, Amount, ReachedTarget, RepairedGap, Target
from layerimp.report.results.rows import Level

MINUS = "\N{MINUS SIGN}"
_MOST = 700.0  # of which floating point has an exponential
_NOT_ZERO = re.compile("[1-9]")
_ALIKE = 0.05
"""If the two sides of an interval differ by less than this, they are shown as one number."""
Show = Callable[[float], str]
Ends = tuple[float | None, float | None] | None
"""The ends of an interval, as far as they are known."""


def ranges(blocks: Collection[int]) -> str:
    """List the removed blocks in depth order, with neighbours as a range: `2, 7-9`."""
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs_of(blocks))


def always(plans: Sequence[Sequence[int]]) -> str:
    """List what is removed, if all plans remove the same; else empty."""
    return ranges(plans[0]) if len(set(map(frozenset, plans))) == 1 else ""


def marked(block: int, removed: Sequence[int]) -> str:
    """Return the mark for a block in a table: `✗ 2nd` if a plan removes it second, else empty."""
    return f"✗ {_ordinal(removed.index(block) + 1)}" if block in removed else ""


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def amount(value: float | None) -> str:
    """Show a size, with all digits if it is counted; `-` if it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"


def asked(quantity: str, target: Target) -> str:
    """Show a target, such as `bytes=6GB: at most 6,000,000,000 bytes`."""
    factor = f", {target.asked} of {amount(target.original)}" if target.factor else ""
    limit = amount(math.floor(target.limit) if target.limit >= 1000 else target.limit)
    return f"{quantity}={target.asked}: at most {limit} {target.unit}{factor}"


def beside(quantity: str, target: Target, reached: ReachedTarget) -> str:
    """Show a target, the value reached, and the value with one block less."""
    less = amount(reached.one_less)
    return f"{asked(quantity, target)}; reached {amount(reached.value)}; one block less {less}"


def recovery(loss: Mapping[str, float], accuracy: Mapping[str, float] | None, recovered: float | None) -> str:
    """Return what healing brought back, on text that was used for no choice, and what the model had back before.

    Args:
        loss: The mean loss of each model, as in `Repaired`; `healed_before` is that of a model that was healed already.
        accuracy: The accuracies of the same models; None or empty for language models.
        recovered: The share of the lost quality that came back.
    """
    lost = "accuracy" if accuracy else "loss"
    if recovered is None:
        back = f"pruning did not {'lower the accuracy' if accuracy else 'raise the loss'}"
    elif recovered < 0:
        back = f"healing lost {-recovered:.0%} more of the {lost}"
    else:
        back = f"{recovered:.0%} of the lost {lost} came back"
    costs, earlier = accuracy or loss, ""
    if recovered is not None and "healed_before" in costs:
        share = (costs["pruned"] - costs["healed_before"]) / (costs["pruned"] - costs["intact"])
        same = loss["healed"] == loss["healed_before"]
        effect = ", which changed nothing" if same else ", which made the model worse" if share > recovered else ""
        earlier = f"; {share:.0%} had come back before this healing{effect}"
    losses = ", ".join(f"{_named(model)} {value:.3f}" for model, value in loss.items())
    shares = ", ".join(f"{_named(model)} {value:.1%}" for model, value in (accuracy or {}).items())
    return f"{back} on the held-out rows ({shares and f'accuracy: {shares}; '}nats per prediction: {losses}){earlier}"


def _named(model: str) -> str:
    return model.replace("_", " ")


def gap_line(gap: RepairedGap) -> str:
    """Return what was done at a gap, in one line."""
    numbers = ", ".join(f"{_named(name)} {value:.3g}" for name, value in gap.numbers.items())
    return f"{gap.gap}: {gap.done}{numbers and f' ({numbers})'}{gap.why and f'; {gap.why}'}"


def number(value: float, digits: int = 4) -> str:
    """Show a number with `digits` significant digits."""
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value and not 1e-4 <= abs(value) < 10 ** (digits + 2):
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10 ** (digits - 1) else f"{value:.0f}"


def changed(value: float, *, factor: bool) -> str:
    """Show a difference with its sign; if it is the logarithm of a factor, the factor."""
    if factor and not math.isnan(value):
        return f"×{number(math.exp(value), 3)}" if value < _MOST else "×∞"
    return ("+" if value > 0 else "") + number(value).replace("-", MINUS)


def two_digits(value: float) -> str:
    """Show an error, with two significant digits."""
    return number(value, 2)


def percentage(value: float) -> str:
    """Show a share in percent."""
    return "−∞" if value == -math.inf else f"{value:.1%}"


def to_either_side(value: float, ends: Ends, show: Show) -> str:
    """Show how far an interval reaches to either side: `± 3`, or `+40 −30`.

    Empty if an end is not known or infinite, or if the interval has no visible width.
    """
    low, high = ends or (None, None)
    if low is None or high is None or not all(map(math.isfinite, (value, low, high))):
        return ""
    up, down = high - value, value - low
    if abs(up - down) <= _ALIKE * max(up, down):
        both = show((up + down) / 2)
        return f"± {both}" if _NOT_ZERO.search(both) else ""
    sides = f"+{show(up)} −{show(down)}"
    return sides if _NOT_ZERO.search(sides) else ""


def share_cell(share: Share | None) -> Cell:
    """Show what is retained, with its standard error over the documents."""
    if share is None:
        return Cell(text="-")
    ends = None if share.stderr is None else (share.mean - share.stderr, share.mean + share.stderr)
    return Cell(share.mean, percentage(share.mean), to_either_side(share.mean, ends, percentage), share.stderr)


def measured(metric: Measured) -> str:
    """Show a metric with its standard error, if it has one; that of a perplexity has two sides."""
    return f"{number(metric.value)} {to_either_side(metric.value, metric.ends, two_digits)}".rstrip()


def plus_minus(value: Interval) -> str:
    """Show a mean and its interval."""
    return f"{number(value.mean)} {to_either_side(value.mean, (value.low, value.high), two_digits)}".rstrip()


def percent(value: Interval) -> str:
    """Show a mean share and its interval."""
    return f"{percentage(value.mean)} {to_either_side(value.mean, (value.low, value.high), percentage)}".rstrip()


def removable_at(level: Level) -> str:
    """Show how many blocks may be removed at a level, with the interval over the repeats; a lower bound has none."""
    mean = level.mean.mean
    if level.at_least:
        return f"≥ {mean:.3g}"
    return f"{mean:.3g} {to_either_side(mean, (level.mean.low, level.mean.high), '{:.2g}'.format)}".rstrip()


def amount_name(amount: Amount) -> str:
    """Show an amount, such as `25%`, `3 blocks`, `blocks 2, 5`, `blocks of the plan` or `bytes=6GB`."""
    if amount == PLAN:
        return "blocks of the plan"
    if isinstance(amount, str):
        return named(read_blocks(amount.removeprefix("blocks="))) if amount.startswith("blocks=") else amount
    if isinstance(amount, int):
        return counted(amount)
    return f"{amount * 100:.4g}%"


def amount_asked(amount: Amount) -> str:
    """Show an amount as a part of the model, such as `25% of blocks`."""
    return amount_name(amount) + (" of blocks" if isinstance(amount, float) else "")


def without(amount: Amount) -> str:
    """Say what models lack: `without 25% of blocks`, `without the blocks of the plan`; at a size, `at bytes=6GB`."""
    asked = amount_asked(amount)
    if isinstance(amount, str) and "=" in asked:
        return f"at {asked}"
    return f"without {'the ' * (amount == PLAN)}{asked}"


def between(low: float, high: float) -> str:
    """Show a share, or a range of shares if its ends look different."""
    return " to ".join(dict.fromkeys((f"{low:.1%}", f"{high:.1%}")))


def gib(size: int) -> str:
    """Show a number of bytes in GiB."""
    return f"{size / 2**30:.2f} GiB"


def parameters(ends: Iterable[float]) -> str:
    """Show the share of the parameters that is removed, or the range of shares."""
    shares = list(ends)
    return f"{between(min(shares), max(shares))} of parameters"


def amounts_asked(compared: Compared) -> list[str]:
    """Show everything that is asked for, each with the share of the parameters of all models that goes by it."""
    texts = []
    for amount in compared.design.amounts:
        ends = [end for _, row in compared.everything if row.amount == amount for end in row.removed_parameters]
        texts.append(amount_asked(amount) + (f" ({parameters(ends)})" if ends else ""))
    return texts


def measured_on(model: ModelResults) -> str:
    """List the tasks of a model, with their numbers of documents."""
    return ", ".join(task if n is None else f"{task} (n = {n:,})" for task, n in model.documents.items())
