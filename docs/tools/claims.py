"""What the AVSS paper claims, and whether the stored choices bear it on the models at hand."""

from __future__ import annotations

import chosen
from choice_tables import Table, shown
from chosen import METHOD, Methods
from titles import NUM_BLOCKS

from layerimp.report.statistics import interval

RIVALS = ("gbis", "lrp", "cim")
CHOICES = (("by AVSS, unhealed", "avss", "unhealed"), ("by the recommended method, healed", METHOD, "healed"))
"""Of whom a quarter is claimed: in words, the method, and the state of the models."""
QUALITY = 0.9
"""What a model retains for whom the removal cost a tenth."""
QUARTER = (0.2, 0.25)
"""The shares of the blocks that count as a quarter."""


def table() -> Table:
    """Return a row for each claim, and for each model a verdict with the figure behind it."""
    models = chosen.largest()
    rows = [
        [f"{who}, a quarter of the blocks costs at most a tenth", *(_quarter(model, method, state) for model in models)]
        for who, method, state in CHOICES
    ]
    for rival in RIVALS:
        verdicts = (_before(methods, rival) for _, methods in models.values())
        rows.append([f"unhealed, AVSS is ahead of `{rival}`", *verdicts])
    return ["claim", *(chosen.title(model, count) for model, (count, _) in models.items())], rows


def _quarter(model: str, method: str, state: str) -> str:
    """Judge what is retained without a quarter by its interval over draws."""
    count, methods = chosen.largest()[model]
    share = count / NUM_BLOCKS[model] if model in NUM_BLOCKS else 0.0
    known = chosen.values(methods.get(method, ()), state, "retained")
    if not QUARTER[0] < share <= QUARTER[1] or not known:
        return "–"
    mean = interval(known)
    if mean.low is None or mean.high is None:
        return f"not decided: {100 * mean.mean:.1f} % retained"
    verdict = "**true**" if mean.low >= QUALITY else "**false**" if mean.high < QUALITY else "not decided"
    ends = dict.fromkeys(f"{100 * end:.0f}" for end in (mean.low, mean.high))
    return f"{verdict}: {' to '.join(ends)} % retained"


def _before(methods: Methods, rival: str) -> str:
    """Judge whether AVSS is ahead of a rival, by the tasks or else by the divergence; corrected for all rivals."""
    for name in ("retained", "divergence"):
        if difference := chosen.contrasts(methods, name, "avss", "unhealed", RIVALS).get(rival):
            verdict = "not decided" if not difference.tells else "**true**" if difference.mean > 0 else "**false**"
            return f"{verdict}: {shown(difference, name)} {'points' if name == 'retained' else 'nats less'}"
    return "–"
