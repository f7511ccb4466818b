"""Turns the results of `architectures.py` into a page of the docs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

OUTCOMES = ("exact", "in part", "refused", "wrong", "not built")
TITLES = {
    "causal": "Causal language models",
    "classifier": "Sequence classifiers",
    "image": "Image and text",
}
OPENING = """# Architectures

This page lists every type that Transformers has for causal language modelling, for sequence classification, and for
text with images, as tried by `python benchmarks/architectures.py` on {date} with Transformers {transformers} and torch
{torch}. A causal language model whose class also reads images is listed under image and text alone. For each type a
tiny random model of about six blocks is built. Its weights, biases, norms and buffers differ from their initial values,
and its windows are shorter than the text. All scorers that come with layerimp score the model. Then blocks are removed:
the first, a middle one, the last, these three together, all but one. After that seams are removed: the first, two that
touch in the middle, the last one together with a block. Each result is saved, loaded back with the stock class, and
compared with a computation without layerimp: the original model with the hidden states led past the removed blocks, or
for a seam past the MLP of one block and the attention of the next. Logits, keys, generation with and without a cache,
and the configuration must agree. For types that read images, all this is compared for text alone, for text with one
image, and for text with two.

*Exact*: all removals are exact. *In part*: some are exact, and the others are refused. *Refused*: all are refused,
with the reason below. *Wrong*: something differs, and layerimp did not notice. *Not built*: there is no tiny model to
try.

To find where the attention ends in a block, the trial follows the arithmetic and not the names of modules: a block is
a chain of additions, and an operand of each addition is the sum before it, or the layer norm of that sum. For
`deberta`, `ibert` and `minimax`, whose norms are of another kind, the script names the module whose output is the
stream after the attention.
"""
NOTES = """
A refusal is one line and leaves the model as it was. A few refusals come only when the checkpoint is loaded back;
then nothing is left on the disk. The most frequent reason is that a block's position decides what the block does: it
is the first or the last one, its depth is a constant in its code, or it makes the keys and values of other blocks. A
hybrid that is left without any attention block is refused because Transformers then cannot count the tokens in its
cache (the hybrids here have two attention blocks). [How removal stays exact](../extend/exactness.md) explains
how this is found out.
"""


def page(results: dict[str, Any]) -> str:
    """The page."""
    measured = results["measured"]
    trials = [trial for name, trial in sorted(results.items()) if name != "measured"]
    heads = {head: [trial for trial in trials if trial["head"] == head] for head in TITLES}
    lines = [OPENING.format(**measured), _counts(heads), NOTES]
    for head, ours in heads.items():
        lines += [f"## {TITLES[head]}\n", _table(ours), ""]
        lines += [f"### {TITLES[head]}: what is refused\n", _refusals(ours), ""]
        lines += [f"### {TITLES[head]}: seams that are refused\n", _seam_refusals(ours), ""]
    lines += ["## What scorers say\n", _scorers(trials), ""]
    return "\n".join(lines)


def counts(trials: list[dict[str, Any]], what: str = "outcome") -> Counter[str]:
    """Count the trials by outcome; with `seam_outcome`, the trials of seams."""
    return Counter(trial[what] for trial in trials)


def _counts(heads: dict[str, list[dict[str, Any]]]) -> str:
    rows = ["| | " + " | ".join(OUTCOMES) + " | types |", "|---|" + "---:|" * (len(OUTCOMES) + 1)]
    for head, trials in heads.items():
        for removed, what in (("blocks", "outcome"), ("seams", "seam_outcome")):
            found = counts(trials, what)
            numbers = " | ".join(str(found[outcome]) for outcome in OUTCOMES)
            rows.append(f"| {TITLES[head].lower()}, {removed} | {numbers} | {len(trials)} |")
    return "\n".join(rows)


def _table(trials: list[dict[str, Any]]) -> str:
    """Write the types that are exact and scored by all scorers as one list, and the rest as a table."""
    whole, rest = [], ["| type | blocks | seams | scorers that refuse |", "|---|---|---|---|"]
    for trial in trials:
        refusing = ", ".join(name for name, said in sorted(trial["scorers"].items()) if said.startswith("refuses"))
        if trial["outcome"] == trial["seam_outcome"] == "exact" and not refusing:
            whole.append(f"`{trial['kind']}`")
            continue
        blocks, seams = _tried(trial["outcome"], trial["cases"]), _tried(trial["seam_outcome"], trial["seams"])
        rest.append(f"| `{trial['kind']}` | {blocks} | {seams} | {refusing} |")
    told = f"All removals, of seams too, are exact, and no scorer refuses ({len(whole)} types): {', '.join(whole)}."
    return "\n".join([told, "", f"The other {len(trials) - len(whole)}:", "", *rest])


def _tried(outcome: str, cases: list[dict[str, Any]]) -> str:
    """Describe the outcome of removals, with the number of exact ones if some are exact."""
    tried = [case for case in cases if case["blocks"]]
    exact = sum(case["outcome"] == "exact" for case in tried)
    return f"{outcome}, {exact} of {len(tried)} exact" if outcome == "in part" else outcome


def _refusals(trials: list[dict[str, Any]]) -> str:
    """Return the reasons of each type; of reasons that differ only in numbers, the first."""
    lines = ["If several reasons of a type differ only in their numbers, the first one is shown.\n"]
    for trial in trials:
        if trial["built"]:
            lines.append(f"- `{trial['kind']}`, not built: {_plain(trial['built'])}")
        told: dict[str, str] = {}
        without: dict[str, list[str]] = defaultdict(list)
        for case in trial["cases"]:
            if case["outcome"] != "exact":
                general = re.sub(r"\bblocks? \d+(, \d+)*|\d[\d.e+-]*", "…", case["said"])
                told.setdefault(general, case["said"])
                without[general].append("-".join(map(str, case["blocks"])))
        for general, said in told.items():
            which = f" without {', '.join(without[general])}" if any(without[general]) else ""
            lines.append(f"- `{trial['kind']}`{which}: {_plain(said)}")
    return "\n".join(lines)


def _seam_refusals(trials: list[dict[str, Any]]) -> str:
    """Each reason once, with the types that give it; class names and numbers left out."""
    told: dict[str, set[str]] = defaultdict(set)
    for trial in trials:
        for case in trial["seams"]:
            if case["outcome"] != "exact":
                said = re.sub(
                    r"^.* cannot be removed: (block \d+ of \w+ cannot be divided into \w+ and \w+: )?", "", case["said"]
                )
                told[_plain(_general(said))].add(trial["kind"])
    if not told:
        return "None, but where blocks are refused as well."
    return "\n".join(
        f"- {said}\n  ({', '.join(f'`{kind}`' for kind in sorted(kinds))})" for said, kinds in sorted(told.items())
    )


def _general(said: str) -> str:
    """Return a reason without class names and numbers."""
    said = re.sub(r"(this )?\b\w*(For[A-Z]\w+|Model\w*|LMHead\w*|Wrapper)\b", "the model", said)
    said = re.sub(r" ?\([A-Za-z0-9_]+\)", "", said)
    return re.sub(r"\[[\d, ]+\]|\b\d[\d.e+%-]*", "…", said)


def _scorers(trials: list[dict[str, Any]]) -> str:
    """Each reason once, with the types that give it; class names and numbers left out."""
    told: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for trial in trials:
        for name, said in trial["scorers"].items():
            told[_plain(_general(said))][name].add(trial["kind"])
    lines = []
    for said, names in sorted(told.items()):
        kinds = sorted(set().union(*names.values()))
        lines.append(f"- {', '.join(sorted(names))}: {said}\n  ({', '.join(f'`{kind}`' for kind in kinds)})")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape text for Markdown."""
    return re.sub(r"([*_<>|\[\]`])", r"\\\1", " ".join(text.split()))
