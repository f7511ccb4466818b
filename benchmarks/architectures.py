"""Every architecture of Transformers for text, also with images: is a removal exact, refused, or wrong?

    python benchmarks/architectures.py                      # all types; continues where it was stopped
    python benchmarks/architectures.py --only llama --only bert
    python benchmarks/architectures.py --page               # write docs/reference/architectures.md from the results

Each type runs in a separate process, within limits of time and memory. Results are kept in a JSON file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).parent))

import architecture_page
import removal
import torch
import transformers
import typer
import zoo
from removal import Case, Trial

RESULTS = Path("architectures.json")
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "architectures.md"
MEMORY = 12 << 30


def main(
    only: Annotated[list[str] | None, typer.Option(help="Types to run; default: all.")] = None,
    head: Annotated[list[str] | None, typer.Option(help="causal, classifier, image; default: all.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 1,
    limit: Annotated[int, typer.Option(help="Seconds for one type.")] = 180,
    results: Annotated[Path, typer.Option(help="The file of results.")] = RESULTS,
    again: Annotated[bool, typer.Option(help="Run what is there once more.")] = False,
    scoring: Annotated[bool, typer.Option(help="Try the scorers as well.")] = True,
    page: Annotated[bool, typer.Option(help="Write the page from the results, and run nothing.")] = False,
) -> None:
    """Put architectures on trial."""
    known: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    if page:
        PAGE.write_text(architecture_page.page(known), encoding="utf-8")
        return
    known["measured"] = {
        "date": time.strftime("%Y-%m-%d"),
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }
    todo = [
        (kind, one)
        for one in head or zoo.HEADS
        for kind in zoo.types(one)
        if (not only or kind in only) and (again or only or f"{one}:{kind}" not in known)
    ]
    running: list[tuple[Any, Any, str, str, float]] = []
    context = multiprocessing.get_context("fork")
    while todo or running:
        while todo and len(running) < jobs:
            kind, one = todo.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(kind, one, scoring, sender))
            process.start()
            sender.close()
            running.append((process, receiver, kind, one, time.monotonic()))
        for entry in list(running):
            process, receiver, kind, one, started = entry
            late = time.monotonic() - started > limit
            if not receiver.poll(0.05) and process.is_alive() and not late:
                continue
            trial = _received(receiver, kind, one, f"no answer within {limit} s" if late else "the process died")
            if late:
                process.kill()
            process.join()
            running.remove(entry)
            known[f"{one}:{kind}"] = asdict(trial) | {"outcome": trial.outcome, "seam_outcome": trial.seam_outcome}
            results.write_text(json.dumps(known, indent=1, sort_keys=True))
            print(f"{one:10} {kind:26} {trial.outcome:10} {trial.seam_outcome:10} {_why(trial)}", flush=True)


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
            return Trial(**values | {part: [Case(**case) for case in values[part]] for part in ("cases", "seams")})
    except EOFError:
        pass
    return Trial(kind, head, cases=[Case([], "wrong", otherwise)])


def _why(trial: Trial) -> str:
    told = [f"{case.blocks}: {case.said}" for case in [*trial.cases, *trial.seams] if case.outcome != "exact"]
    told += [f"{name}: {said}" for name, said in trial.scorers.items() if said.startswith("crash")]
    return trial.built or " | ".join(dict.fromkeys(told))


if __name__ == "__main__":
    typer.run(main)
