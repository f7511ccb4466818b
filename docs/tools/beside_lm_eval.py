"""The tables that set layerimp's model beside `lm_eval --model hf`: whether the answers are equal, and the time.

The results are those of `benchmarks/harness_equality.py` and `benchmarks/harness_speed.py`.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import pages

RESULTS = pages.ROOT / "benchmarks" / "results"
MODELS = {"smollm2": "SmolLM2-135M", "gemma": "Gemma 3 270M"}
PANEL = dict.fromkeys(("hellaswag", "arc_easy", "arc_challenge", "winogrande", "boolq", "lambada_openai"), 200) | {
    "blimp": 670
}
"""The tasks of the selection `zero-shot`, and how many documents of each count."""
FILES = {"blimp": 67}
"""How many tasks have so many documents each."""


def results(name: str) -> list[dict[str, Any]]:
    """Return the lines of a file of results."""
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def equality() -> tuple[list[str], list[list[str]]]:
    """Return the table of how far the answers are apart."""
    rows = [
        [
            MODELS[line["model"]],
            line["dtype"],
            f"`{line['name']}`" + (f", {line['shots']} examples" if line["shots"] else ""),
            str(line["documents"]),
            f"{line['greatest']:.1e}" if line["requests"] else "",
            _per_token(line),
            str(line["other_answers"] + line["other_texts"]),
        ]
        for line in sorted(results("harness_equality"), key=_place)
    ]
    head = ["model", "dtype", "task", "documents", "greatest difference", "per token", "other answers"]
    return head, rows


def _place(line: dict[str, Any]) -> tuple[int, bool, int, int]:
    name = line["name"]
    at = list(PANEL).index(name) if name in PANEL else len(PANEL)
    return list(MODELS).index(line["model"]), line["dtype"] != "float32", at, line["shots"] or 0


def _per_token(line: dict[str, Any]) -> str:
    """Show the greatest difference over the number of tokens, among the requests that differ most."""
    apart = [abs(request["lm_eval"] - request["layerimp"]) / request["tokens"] for request in line.get("worst", ())]
    return f"{max(apart):.1e}" if apart else ""


def speed() -> tuple[list[str], list[list[str]]]:
    """Return the table of CPU seconds; the last row of a model is the whole selection."""
    rows = []
    lines = results("harness_speed")
    for model, title in MODELS.items():
        known = {line["task"]: line for line in lines if line["model"] == model}
        whole = {"lm_eval": 0.0, "layerimp": 0.0}
        for task in (name for name in PANEL if name in known):
            count = known[task]["documents"] * FILES.get(task, 1)
            taken = {side: statistics.median(known[task][side]) for side in whole}
            rows.append([title, f"`{task}`", str(count), *_times(taken)])
            for side in whole:
                whole[side] += taken[side] / count * PANEL[task]
        if known.keys() >= PANEL.keys():
            rows.append([title, "`zero-shot`, by arithmetic", str(sum(PANEL.values())), *_times(whole)])
    return ["model", "task", "documents", "lm_eval", "layerimp", "ratio"], rows


def _times(taken: dict[str, float]) -> list[str]:
    return [*(f"{seconds:.1f}" for seconds in taken.values()), f"{taken['layerimp'] / taken['lm_eval']:.2f}"]
