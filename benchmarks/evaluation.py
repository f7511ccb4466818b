"""The time of evaluation beside lm-evaluation-harness, on the same model in memory and with the same batch size.

    python benchmarks/evaluation.py --model DIR

Both sides run the same two tasks, whose text is cut from the text `prose` that layerimp ships: multiple choice, where
the correct one of four options continues the passage and the others continue other passages; and the perplexity of
longer texts. `lm_eval` is `simple_evaluate` with `HFLM` on the loaded model; `layerimp` is the evaluator `harness`, a
new one in each round, so that nothing is stored between rounds. The times of both include loading the tasks and reading
their data. After a warm-up the two sides alternate; the time is CPU time of the process with all threads.

Values have to be equal to the printed digits; they differ by rounding, as between batch sizes. Perplexities differ only
if a tokenizer itself puts BOS before a text: lm-eval then adds a second BOS and scores the first (see the README of
layerimp-harness).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from layerimp_harness import Harness
from layerimp_harness.isolation import contained
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import layerimp
from layerimp.registry.assets import located

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--model", required=True)
PARSER.add_argument("--questions", type=int, default=40)
PARSER.add_argument("--context-words", type=int, default=60)
PARSER.add_argument("--option-words", type=int, default=4)
PARSER.add_argument("--texts", type=int, default=12)
PARSER.add_argument("--text-words", type=int, default=300)
PARSER.add_argument("--batch-size", type=int, default=8)
PARSER.add_argument("--rounds", type=int, default=3)
PARSER.add_argument("--threads", type=int, default=1)
PARSER.add_argument("--dtype", default="float32")

OPTIONS = 4

YAML: dict[str, dict[str, Any]] = {
    "options": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}, {"metric": "brier_score"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}],
    },
}


def write_tasks(args: argparse.Namespace, folder: Path) -> None:
    """The tasks and their documents, cut from the words of the shipped text one after the other."""
    lines = Path(located("texts", "prose")).read_text(encoding="utf-8").splitlines()
    words = " ".join(json.loads(line)["text"] for line in lines).split()
    position = 0

    def cut(count: int) -> str:
        nonlocal position
        position += count
        return " ".join(words[(position - count + n) % len(words)] for n in range(count))

    passages = [(cut(args.context_words), cut(args.option_words)) for _ in range(args.questions)]
    questions = []
    for number, (text, _ending) in enumerate(passages):
        options = [passages[(number + 7 * other) % len(passages)][1] for other in range(OPTIONS)]
        shift = number % OPTIONS
        label = (OPTIONS - shift) % OPTIONS
        questions.append({"text": text, "options": options[shift:] + options[:shift], "label": label})
    rows = {"options": questions, "texts": [{"text": cut(args.text_words)} for _ in range(args.texts)]}
    for name, task in YAML.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]), encoding="utf-8")
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        config = {"task": f"bench_{name}", **source, **task}
        (folder / f"{name}.yaml").write_text(json.dumps(config), encoding="utf-8")


def sides(args: argparse.Namespace, folder: Path) -> dict[str, Callable[[str], dict[str, float]]]:
    """The two ways to evaluate a task; each takes its name and returns metrics by name."""
    model, tokenizer = layerimp.load(args.model, dtype=args.dtype)

    def theirs(task: str) -> dict[str, float]:
        with contained(0):
            results = simple_evaluate(
                HFLM(pretrained=model, tokenizer=tokenizer, batch_size=args.batch_size),
                tasks=[f"bench_{task}"],
                task_manager=TaskManager(include_defaults=False, include_path=str(folder)),
                bootstrap_iters=0,
            )
        figures = results["results"][f"bench_{task}"]
        return {
            key.split(",")[0]: value
            for key, value in figures.items()
            if isinstance(value, float) and not key.startswith("bits") and "stderr" not in key
        }

    def ours(task: str) -> dict[str, float]:
        config = Harness.Config(tasks=(str(folder / f"{task}.yaml"),), batch_size=args.batch_size)
        return {metric.name: metric.value for metric in Harness(config).evaluate(model, tokenizer)}

    return {"lm_eval": theirs, "layerimp": ours}


def main() -> None:
    """Measure and print."""
    args = PARSER.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(args, folder)
        ways = sides(args, folder)
        values = {task: {side: way(task) for side, way in ways.items()} for task in YAML}  # the warm-up
        seconds: dict[str, dict[str, list[float]]] = {task: {side: [] for side in ways} for task in YAML}
        for round_ in range(args.rounds):
            for task in YAML:
                for side in list(ways)[:: -1 if round_ % 2 else 1]:
                    start = time.process_time()
                    ways[side](task)
                    seconds[task][side].append(time.process_time() - start)
    print(f"{args.model}, {args.dtype}, batch size {args.batch_size}, {args.threads} threads, {args.rounds} rounds")
    for task in YAML:
        report(task, values[task], seconds[task])


def report(task: str, values: dict[str, dict[str, float]], seconds: dict[str, list[float]]) -> None:
    """Print one task: the values, the times, and the ratios of neighbouring runs."""
    print(f"\n{task}")
    for side, taken in seconds.items():
        metrics = "  ".join(f"{name} {value:.5g}" for name, value in sorted(values[side].items()))
        print(f"  {side:9} CPU s {spread(taken)}   {metrics}")
    theirs = values["lm_eval"]
    apart = max(abs(value / theirs[name] - 1) for name, value in values["layerimp"].items() if name in theirs)
    print(f"  greatest relative difference of the values: {apart:.1e}")
    ratios = [ours / theirs for ours, theirs in zip(seconds["layerimp"], seconds["lm_eval"], strict=True)]
    print(f"  ratio           {spread(ratios)}")


def spread(numbers: list[float]) -> str:
    """Least, median and greatest."""
    return "  ".join(
        f"{name} {value:.3g}"
        for name, value in (("min", min(numbers)), ("median", statistics.median(numbers)), ("max", max(numbers)))
    )


if __name__ == "__main__":
    main()
