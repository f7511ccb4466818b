"""lm-evaluation-harness's own model and layerimp's, on the same model in memory, tasks and local rows.

`lm_eval` is `HFLM`, the class behind `lm_eval --model hf`; `layerimp` is the class with which `layerimp evaluate`
answers the same requests. Both run in lm-eval's `evaluate`, so that prompts, rows and metrics cannot differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from layerimp_harness.deferred import DeferringFactory, load_all
from layerimp_harness.isolation import contained
from layerimp_harness.model import ModelInMemory
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from layerimp.registry.assets import assets

Side = Literal["lm_eval", "layerimp"]

LONGEST = 2048
"""The maximum number of tokens in a row."""


def loaded(data_dir: Path, task: str, shots: int | None = None) -> dict[str, Any]:
    """Return a task or a group with its local rows, ready for lm-eval's `evaluate`."""
    with contained(0):
        manager = TaskManager(include_path=assets().tasks)
        manager._factory = DeferringFactory(meta=manager.metadata)
        held = manager.load([task])
        load_all(held["tasks"].values(), data_dir)
        for member in held["tasks"].values():
            if shots is not None:
                member.set_config("num_fewshot", shots)
    return dict(held)


def results(side: Side, model: Any, tokenizer: Any, tasks: dict[str, Any], limit: int, batch_size: int) -> Any:
    """Return what lm-eval's `evaluate` returns, with samples."""
    with contained(0):
        for task in tasks["tasks"].values():
            task.set_fewshot_seed(1234)  # for each side again, so that both have the same examples
        if side == "lm_eval":
            lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=LONGEST)
        else:
            lm = ModelInMemory(
                model, tokenizer, batch_size=batch_size, max_length=LONGEST, advance=lambda _finished: None
            )
        return evaluate(lm=lm, task_dict=tasks, limit=limit, bootstrap_iters=0, log_samples=True)
