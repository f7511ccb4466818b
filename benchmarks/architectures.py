"""Every architecture of Transformers for text, also with images: is a removal exact, refused, or wrong?

    python benchmarks/architectures.py                      # all types; continues where it was stopped
    python benchmarks/architectures.py --only llama --only bert

Each type runs in a separate process, within limits of time and memory. Each result is a line of
`benchmarks/results/architectures.jsonl`, from which docs/reference/architectures.md takes its tables.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).parent))

import removal
import torch
import transformers
import typer
import zoo
from removal import Case, Trial

RESULTS = Path(__file__).parent / "results" / "architectures.jsonl"
MEMORY = 12 << 30


def main(
    only: Annotated[list[str] | None, typer.Option(help="Types to run; default: all.")] = None,
    head: Annotated[list[str] | None, typer.Option(help="causal, classifier, image; default: all.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 1,
    limit: Annotated[int, typer.Option(help="Seconds for one type.")] = 180,
    results: Annotated[Path, typer.Option(help="The file of results.")] = RESULTS,
    again: Annotated[bool, typer.Option(help="Run what is there once more.")] = False,
    scoring: Annotated[bool, typer.Option(help="Try the scorers as well.")] = True,
) -> None:
    """Put architectures on trial."""
    known = _read(results)
    todo = [
        (kind, head_name)
        for head_name in head or zoo.HEADS
        for kind in zoo.types(head_name)
        if (not only or kind in only) and (again or only or (head_name, kind) not in known)
    ]
    running: list[tuple[Any, Any, str, str, float]] = []
    context = multiprocessing.get_context("fork")
    while todo or running:
        while todo and len(running) < jobs:
            kind, head_name = todo.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(kind, head_name, scoring, sender))
            process.start()
            sender.close()
            running.append((process, receiver, kind, head_name, time.monotonic()))
        for entry in list(running):
            process, receiver, kind, head_name, started = entry
            late = time.monotonic() - started > limit
            if not receiver.poll(0.05) and process.is_alive() and not late:
                continue
            trial = _received(receiver, kind, head_name, f"no answer within {limit} s" if late else "the process died")
            if late:
                process.kill()
            process.join()
            running.remove(entry)
            if not late:  # a type that takes long, as on a busy machine, is tried again
                known[head_name, kind] = _line(trial, known.get((head_name, kind)), scoring)
                _write(results, known)
            print(f"{head_name:10} {kind:26} {trial.outcome:10} {_why(trial)}", flush=True)


def _read(results: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the lines of the file, by head and type."""
    lines = map(json.loads, results.read_text(encoding="utf-8").splitlines() if results.exists() else [])
    return {(line["head"], line["type"]): line for line in lines}


def _write(results: Path, known: dict[tuple[str, str], dict[str, Any]]) -> None:
    heads = list(zoo.HEADS)
    lines = [known[key] for key in sorted(known, key=lambda key: (heads.index(key[0]), key[1]))]
    results.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _line(trial: Trial, before: dict[str, Any] | None, scoring: bool) -> dict[str, Any]:
    """Return what is kept of a trial; what scorers said before, if they were not tried this time."""
    said = {name: text.removeprefix("refuses: ") for name, text in trial.scorers.items() if _fails(text)}
    return {
        "type": trial.kind,
        "head": trial.head,
        "date": time.strftime("%Y-%m-%d"),
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "built": trial.built,
        "blocks": _part(trial.outcome, trial.cases),
        **({"inputs": trial.inputs} if trial.inputs else {}),
        "scorers": said if scoring and not trial.built else (before or {}).get("scorers"),
    }


def _fails(said: str) -> bool:
    return said.startswith(("refuses", "crash"))


def _part(outcome: str, cases: list[Case]) -> dict[str, Any]:
    """Return the outcome, and each reason with its removals; of reasons that differ only in numbers, the first."""
    reasons: dict[str, tuple[str, list[str]]] = {}
    for case in cases:
        if case.outcome != "exact":
            general = re.sub(r"\bblocks? \d+(, \d+)*|\d[\d.e+-]*", "…", case.said)
            removal = "-".join(map(str, case.blocks))
            reasons.setdefault(general, (case.said, []))[1].extend([removal] if removal else [])
    exact = sum(case.outcome == "exact" for case in cases)
    tried = sum(bool(case.blocks) for case in cases)
    return {"outcome": outcome, "exact": exact, "tried": tried, "reasons": dict(reasons.values())}


def _child(kind: str, head: str, scoring: bool, sender: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    os.chdir("/")
    sender.send(asdict(removal.try_all(kind, head, scorers=None if scoring else [])))


def _received(receiver: Any, kind: str, head: str, otherwise: str) -> Trial:
    try:
        if receiver.poll():
            values = receiver.recv()
            return Trial(**values | {"cases": [Case(**case) for case in values["cases"]]})
    except EOFError:
        pass
    return Trial(kind, head, cases=[Case([], "wrong", otherwise)])


def _why(trial: Trial) -> str:
    reasons = [f"{case.blocks}: {case.said}" for case in trial.cases if case.outcome != "exact"]
    reasons += [f"{name}: {said}" for name, said in trial.scorers.items() if said.startswith("crash")]
    return trial.built or " | ".join(dict.fromkeys(reasons))


if __name__ == "__main__":
    typer.run(main)
