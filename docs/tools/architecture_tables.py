"""The tables of the architectures that `benchmarks/architectures.py` tried, from its stored results.

A line of `benchmarks/results/architectures.jsonl` is one type with one head. Its `blocks` hold the outcome, the
number of removals that were tried, the number that were exact, and the reasons of the others: each reason with the
removals that it concerns. Its `scorers` hold the reason of each scorer that refuses; null means that scorers
were not tried. Its `inputs` tell of what the type takes beside text whether it was made up.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import Any

import pages

DATA = pages.ROOT / "benchmarks" / "results" / "architectures.jsonl"
OUTCOMES = ("exact", "in part", "refused", "wrong", "not built")
HEADS = {"causal": "causal language models", "classifier": "sequence classifiers", "image": "image and text"}


def results() -> list[dict[str, Any]]:
    """Return what was found for each type, as it was written."""
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def conditions() -> str:
    """Return when the types were tried, and with which versions."""
    lines = results()
    dates = sorted({line["date"] for line in lines})
    versions = (" and ".join(sorted({line[name] for line in lines})) for name in ("transformers", "torch"))
    when = f"on {dates[0]}" if len(dates) == 1 else f"from {dates[0]} to {dates[-1]}"
    return "Tried {} with Transformers {} and torch {}. {}".format(when, *versions, _beside_images())


def _beside_images() -> str:
    """Return of how many types a video and audio were made up, and of which that take them they were not."""
    tried, untried = Counter[str](), []
    for line in results():
        inputs = line.get("inputs", {})
        tried.update(name for name, known in inputs.items() if known)
        untried += [f"`{line['type']}` ({name})" for name, known in inputs.items() if inputs["image"] and not known]
    without = f", not for {', '.join(untried)}" if untried else ""
    return f"A video was made up for {tried['video']} types, audio for {tried['audio']}{without}."


def counts() -> tuple[list[str], list[list[str]]]:
    """Return the table of how many types have each outcome, by head."""
    rows = []
    for head, title in HEADS.items():
        lines = [line for line in results() if line["head"] == head]
        counted = Counter(line["blocks"]["outcome"] for line in lines)
        rows.append([title, *(str(counted[outcome]) for outcome in OUTCOMES), str(len(lines))])
    return ["", *OUTCOMES, "tried"], rows


def exact(head: str) -> str:
    """Return the types of which every removal is exact, as a sentence."""
    types = [f"`{line['type']}`" for line in results() if line["head"] == head and _all_exact(line)]
    return f"Every removal is exact ({len(types)} types): {', '.join(types)}."


def others(head: str) -> tuple[list[str], list[list[str]]]:
    """Return the table of the other types, with the reasons."""
    rows = [
        [f"`{line['type']}`", _outcome(line["blocks"]), _reason(line)]
        for line in results()
        if line["head"] == head and not _all_exact(line)
    ]
    return ["type", "blocks", "why"], rows


def scorers() -> tuple[list[str], list[list[str]]]:
    """Return the table of the scorers that refuse, by reason, with the types."""
    heads: dict[str, set[str]] = defaultdict(set)
    refusing: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for line in results():
        if line["scorers"] is not None:
            heads[line["type"]].add(line["head"])
        for name, reason in (line["scorers"] or {}).items():
            refusing[_general(reason)][name].append((line["type"], line["head"]))
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for reason, names in refusing.items():
        for concerned in {tuple(types) for types in names.values()}:
            alike = ", ".join(sorted(f"`{name}`" for name, types in names.items() if tuple(types) == concerned))
            by_type: dict[str, set[str]] = defaultdict(set)
            for kind, head in concerned:
                by_type[kind].add(head)
            rows[alike, _plain(reason)] += [
                f"`{kind}`" if refused == heads[kind] else f"`{kind}` ({', '.join(sorted(refused))})"
                for kind, refused in sorted(by_type.items())
            ]
    return ["scorers", "reason", "types"], [[*key, ", ".join(types)] for key, types in sorted(rows.items())]


def _all_exact(line: dict[str, Any]) -> bool:
    return bool(line["blocks"]["outcome"] == "exact")


def _outcome(part: dict[str, Any]) -> str:
    return f"{part['exact']} of {part['tried']} exact" if part["outcome"] == "in part" else part["outcome"]


def _reason(line: dict[str, Any]) -> str:
    """Return why no model was built, or the first reason against a removal."""
    return _plain(line["built"] or next(map(_general, line["blocks"]["reasons"]), ""))


def _general(reason: str) -> str:
    """Return a reason without the names of classes, the numbers, and the removal that it speaks of."""
    reason = re.sub(r"^.* cannot be removed: ", "", reason)
    reason = re.sub(r"(this )?\b\w*(For[A-Z]\w+|Model\w*|LMHead\w*|Wrapper)\b", "the model", reason)
    reason = re.sub(r"(without|past) (blocks? )?[\d…/, ]+( than|:)", r"\1 some\3", reason)
    reason = re.sub(r" ?\([A-Za-z0-9_]+\)| ?\([\d.e+…]+ roundings off\)", "", reason)
    return re.sub(r"\[[\d, ]+\]|\b\d[\d.e+%-]*", "…", reason)


def _plain(text: str) -> str:
    """Escape text for Markdown."""
    return re.sub(r"([*_<>\[\]`])", r"\\\1", " ".join(text.split()))
