#!/usr/bin/env python3
"""Compares all numbers of the working tree with those of a fixed commit: python tools/same_numbers.py [--model DIR].

Both sides run the commands of `same_numbers.toml` on the same inputs, each from sources, an installation and a cache of
its own, with one thread. What they print and the checkpoints that they write become records; a record of the fixed
commit that is missing or differs is an error, unless the list in that file names it with a reason. The fixed commit
runs twice: where it differs from itself, that difference is allowed. Times and speeds are not compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BASE = "92465767"
"""The commit whose numbers count."""
TIMES = {"seconds", "minutes", "speeds", "cost", "latency_ms", "tokens_per_second", "memory"}
ABOUT = {"schema_version", "design", "request", "recipe", "versions", "output", "checkpoint", "notes", "reason"}
"""Fields of documents that hold no number of a model."""
BY_TASK = {"metrics", "differences", "flips"}
"""Fields whose keys are tasks."""
NAMED_BY = (
    ("scorer", "healer", "pruner", "amount"),
    ("task", "metric", "pruner", "amount"),
    ("task", "metric"),
    ("scorers",),
    ("label",),
    ("gap",),
    ("draw",),
)
"""What names an entry of a list: the first of these whose fields it has."""
Value = float | int | str | bool | None


class Key(NamedTuple):
    """What a value is about."""

    case: str
    model: str = ""
    plan: str = ""
    text: str = ""
    task: str = ""
    metric: str = ""

    def __str__(self) -> str:
        return " | ".join(self)


Records = dict[Key, Value]


def records_of(case: str, document: Mapping[str, Any]) -> Records:
    """Turn a JSON document of a command into records."""
    return dict(_walk(document, Key(case), ()))


def _walk(node: Any, key: Key, path: tuple[str, ...]) -> Iterator[tuple[Key, Value]]:
    """Yield the values in a part of a document."""
    if isinstance(node, dict):
        key = _placed(node, key)
        for name, value in node.items():
            if name in TIMES | ABOUT:
                continue
            if name == "models" and isinstance(value, dict):
                for model, part in value.items():
                    yield from _walk(part, key._replace(model=model), path)
            elif name in BY_TASK and isinstance(value, dict):
                for task, part in value.items():
                    yield from _walk(part, key._replace(task=task), (*path, name))
            elif name == "scored" and isinstance(value, dict):
                for label, part in value.items():
                    yield from _walk(_by_unit(label, part), key, (*path, name, _without_part(label)))
            else:
                yield from _walk(value, key, (*path, name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(value, key, (*path, _name_of(value, index)))
    else:
        yield key._replace(metric=".".join(path)), node


def _by_unit(label: str, scored: Mapping[str, Any]) -> dict[str, Any]:
    """Give the numbers of a scoring the names of their units: blocks such as 7, attentions and MLPs such as 7.mlp."""
    part = label.removeprefix(_without_part(label))
    units = [f"{unit}{part}" for unit in scored.get("steps") or scored["blocks"]]
    named = {
        "scores": {
            str(repeat): dict(zip(units, values, strict=True)) for repeat, values in enumerate(scored["scores"])
        },
        "means": dict(zip(units, scored["means"], strict=True)),
        "columns": {name: dict(zip(units, values, strict=True)) for name, values in scored["columns"].items()},
    }
    return {name: value for name, value in scored.items() if name not in ("steps", "blocks")} | named


def _without_part(label: str) -> str:
    """Return the label of a scorer without the part of the blocks that it scores."""
    return label.removesuffix(".attn").removesuffix(".mlp")


def _placed(node: Mapping[str, Any], key: Key) -> Key:
    """Add to a key the plan and the text that a part of a document names."""
    plan, text = node.get("plan"), node.get("calibration") or node.get("text")
    if isinstance(plan, dict):
        key = key._replace(plan=",".join(map(str, plan["blocks"])))
    if isinstance(text, dict) and "fingerprint" in text:
        key = key._replace(text=text["fingerprint"])
    return key


def _name_of(entry: Any, index: int) -> str:
    """Name an entry of a list by what it is about; by its place if nothing else names it."""
    for fields in NAMED_BY:
        if isinstance(entry, dict) and all(field in entry for field in fields):
            return "+".join(str(entry[field]) for field in fields)
    return str(index)


def checkpoint_records(folder: Path) -> Records:
    """Return the hash of every tensor in the checkpoints below a folder."""
    from safetensors import safe_open

    records: Records = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (the file is no mapping)
                tensor = tensors.get_tensor(name).contiguous()
                content = str(tensor.dtype).encode() + bytes(tensor.flatten().view(dtype=_byte()).numpy())
                where = str(file.parent.relative_to(folder))
                records[Key("checkpoint", model=where, metric=name)] = sha256(content).hexdigest()
    return records


def _byte() -> Any:
    import torch

    return torch.uint8


class Side:
    """The sources of one side, installed in an environment of their own.

    Args:
        folder: The folder of the side.
        commit: The commit; None for the working tree.
    """

    def __init__(self, folder: Path, commit: str | None) -> None:
        self.folder, self.sources, self.environment = folder, folder / "sources", folder / "environment"
        self._commit = commit

    @property
    def python(self) -> Path:
        """The interpreter that imports these sources."""
        return self.environment / "bin" / "python"

    def install(self) -> None:
        """Lay the sources out, and install them unless the same requirements are installed already."""
        shutil.rmtree(self.sources, ignore_errors=True)
        self.sources.mkdir(parents=True)
        if self._commit:
            archive = subprocess.run(["git", "archive", self._commit], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x"], cwd=self.sources, input=archive, check=True)
        else:
            listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
            names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
            for name in filter(None, names.split("\0")):
                if (ROOT / name).is_file():
                    (self.sources / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, self.sources / name)
        requirements = sha256((self.sources / "pyproject.toml").read_bytes()).hexdigest()
        installed = self.environment / "requirements"
        if not installed.exists() or installed.read_text() != requirements:
            subprocess.run([sys.executable, "-m", "venv", "--clear", self.environment], check=True)
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", "-e", self.sources], check=True)
            installed.write_text(requirements)

    def run(self, cases: Mapping[str, list[str]], inputs: Path, work: Path) -> Records:
        """Run commands one after the other in an empty folder, and return their records.

        Raises:
            SystemExit: a command fails.
        """
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        cache = {"LAYERIMP_CACHE": str(work / "cache")}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        records: Records = {}
        for case, arguments in cases.items():
            print(f"{self.folder.name}: {case}", file=sys.stderr)
            command = [str(self.python), "-m", "layerimp", *arguments, "--json"]
            done = subprocess.run(
                [part.replace("INPUTS", str(inputs)) for part in command],
                cwd=work,
                env=environment | offline | threads | cache,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                sys.exit(
                    f"{self.folder.name}: {case} ended with {done.returncode}:\n{done.stderr}{done.stdout[-2000:]}"
                )
            records |= records_of(case, json.loads(done.stdout))
        return records | checkpoint_records(work)


def make_inputs(folder: Path) -> None:
    """Make a text with labels, a task, a tiny classifier, and a tiny Falcon whose branches are parallel."""
    import random

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from layerimp.testing import tiny_tokenizer
    from layerimp.testing.tiny import WORDS, grown

    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    rows = [{"text": " ".join(draw.choices(WORDS[4:], k=24)), "label": draw.randrange(2)} for _ in range(48)]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "mood",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "text.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_target": "label",
        "doc_to_choice": ["bad", "good"],
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "mood.yaml").write_text(json.dumps(task))
    common = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    bert = common | {"intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}
    made: dict[str, tuple[Any, Any]] = {
        "falcon": (AutoModelForCausalLM, AutoConfig.for_model("falcon", **common)),
        "classifier": (AutoModelForSequenceClassification, AutoConfig.for_model("bert", **bert)),
    }
    for name, (loader, config) in made.items():
        grown(loader, config, torch.float32).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)


def differences(base: Records, again: Records, here: Records) -> Iterator[tuple[Key, str]]:
    """Yield the records of the fixed commit that the working tree lacks or has otherwise, and what is wrong."""
    for key, value in base.items():
        if key not in here:
            yield key, f"is missing, was {value}"
        elif not _same(value, again.get(key), here[key]):
            yield key, f"is {here[key]}, was {value}"


def _same(value: Value, again: Value, here: Value) -> bool:
    """Whether a value equals that of the fixed commit, up to the difference between its two runs."""
    if value == here:
        return True
    numbers = [each for each in (value, again, here) if isinstance(each, float | int) and not isinstance(each, bool)]
    if len(numbers) < 3:
        return False
    if math.isnan(numbers[0]) and math.isnan(numbers[2]):
        return True
    return abs(numbers[2] - numbers[0]) <= abs(numbers[1] - numbers[0])


def compare(cases: Mapping[str, list[str]], known: list[dict[str, str]], folder: Path) -> int:
    """Run both sides, and print what differs.

    Returns:
        The exit code: 1 if a record differs that is not known.
    """
    base, here, inputs = Side(folder / "base", BASE), Side(folder / "here", None), folder / "inputs"
    name = sha256(json.dumps(cases).encode()).hexdigest()[:12]
    stored = [folder / f"{name}-{run}.json" for run in (1, 2)]
    if not all(file.exists() for file in stored):
        base.install()
        if not inputs.exists():
            subprocess.run([base.python, __file__, "--make-inputs", inputs], check=True)
        for file in stored:
            records = base.run(cases, inputs, base.folder / "work")
            file.write_text(json.dumps([[*key, value] for key, value in records.items()]))
    first, second = ({Key(*row[:-1]): row[-1] for row in json.loads(file.read_text())} for file in stored)
    here.install()
    found = list(differences(first, second, here.run(cases, inputs, here.folder / "work")))
    explained = {key: entry for key, _ in found for entry in known if fnmatchcase(str(key), entry["records"])}
    for key, what in found:
        if key not in explained:
            print(f"{key}: {what}")
    for entry in known:
        if count := sum(reason is entry for reason in explained.values()):
            print(f"{count} known: {entry['records']}: {entry['reason']}")
    unknown = len(found) - len(explained)
    print(f"{len(first)} records of {len(cases)} commands compared: {unknown} missing or different")
    return int(unknown > 0)


def main() -> None:
    """Compare, or make the inputs of a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="A checkpoint of a real language model, for the short commands.")
    parser.add_argument("--only", action="append", help="Compare this command alone; repeatable.")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".cache" / "same_numbers", help="Where both sides are kept."
    )
    parser.add_argument("--make-inputs", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make_inputs:
        return make_inputs(given.make_inputs)
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    cases = dict(listed["cases"])
    if given.model:
        cases = {name: [*case, "--model", str(given.model.resolve())] for name, case in listed["real"].items()}
    if given.only:
        cases = {name: case for name, case in cases.items() if name in given.only}
    sys.exit(compare(cases, listed.get("known", []), given.folder.resolve()))


if __name__ == "__main__":
    main()
