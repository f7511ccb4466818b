"""What the plugin uses of lm-eval is all in one file, and this version of lm-eval has all of it."""

from __future__ import annotations

import ast
import dataclasses
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from layerimp_harness import lm_eval_names
from layerimp_harness.lm_eval_names import HOMES

PACKAGE = Path(__file__).parent / "layerimp_harness"
ADAPTER = "layerimp_harness.lm_eval_names"

MEMBERS = {
    "ConfigurableTask": ("download", "eval_docs", "fewshot_context", "fewshot_docs"),
    "Entry": ("cfg", "kind", "name", "yaml_path"),
    "HFLM": (
        "_encode_pair",
        "_loglikelihood_tokens",
        "generate_until",
        "loglikelihood",
        "loglikelihood_rolling",
        "tok_batch_encode",
        "tok_decode",
        "tok_encode",
    ),
    "Kind": ("GROUP", "TASK"),
    "LM": ("generate_until", "loglikelihood", "loglikelihood_rolling"),
    "TaskFactory": ("_load_full_config", "build"),
    "TaskIndex": ("_kind_of", "process_cfg"),
    "TaskManager": ("load", "task_index"),
    "_factory": ("ConfigurableTask",),
    "metrics": (
        "acc_all",
        "acc_all_stderr",
        "bits_per_byte",
        "mean",
        "mean_stderr",
        "perplexity",
        "weighted_mean",
        "weighted_perplexity",
    ),
    "utils": ("env",),
}
"""The members of these names that the plugin calls, overrides or replaces."""


def imports(source: str) -> list[tuple[str, str]]:
    """What a source imports, as pairs of a module and a name in it; the name is empty for a whole module."""
    pairs = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            pairs += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            pairs += [(alias.name, "") for alias in node.names]
    return pairs


IMPORTED = [(file.name, *pair) for file in sorted(PACKAGE.glob("*.py")) for pair in imports(file.read_text())]
USERS = {
    name: list(dict.fromkeys(file for file, module, used in IMPORTED if (module, used) == (ADAPTER, name)))
    for name in HOMES
}


def has(owner: Any, member: str) -> bool:
    """Whether a module or a class has a member, be it a field without a default."""
    fields = {field.name for field in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else set()
    return member in fields or hasattr(owner, member)


def missing(name: str) -> str:
    """What this version of lm-eval lacks of a name, and which files use it; empty where it lacks nothing."""
    try:
        owner = getattr(lm_eval_names, name)
    except ImportError as error:
        return f"{error} (used by {', '.join(USERS[name])})"
    lacking = [member for member in MEMBERS.get(name, ()) if not has(owner, member)]
    return f"{HOMES[name]}.{name} has no {', '.join(lacking)} (used by {', '.join(USERS[name])})" if lacking else ""


@pytest.mark.parametrize("name", HOMES)
def test_this_version_of_lm_eval_has_the_name(name: str) -> None:
    assert not missing(name)


def test_no_other_file_imports_lm_eval() -> None:
    assert not [(file, module) for file, module, _ in IMPORTED if module.partition(".")[0] == "lm_eval"]
    assert ("lm_eval.tasks", "TaskManager") in imports("def f():\n    from lm_eval.tasks import TaskManager\n")


def test_every_name_is_used_and_known() -> None:
    assert {used for _, module, used in IMPORTED if module == ADAPTER} == set(HOMES)
    assert set(MEMBERS) <= set(HOMES)


def test_every_member_is_used() -> None:
    words = {
        getattr(node, "attr", None) or getattr(node, "name", None) or getattr(node, "arg", None)
        for file in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute | ast.FunctionDef | ast.keyword)
    }
    # What is replaced by `patch.object` is named by a text.
    assert {member for members in MEMBERS.values() for member in members} - words <= {"env", "ConfigurableTask"}


@pytest.mark.parametrize("home", ["lm_eval.no_such_module", "lm_eval.utils", "lm_eval.api"])
def test_a_name_that_moved_is_told_with_its_users(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setitem(HOMES, "TaskFactory", home)
    monkeypatch.delitem(vars(lm_eval_names), "TaskFactory", raising=False)
    message = missing("TaskFactory")
    assert message.startswith("lm-eval 0.")
    assert f"has no {home}.TaskFactory" in message
    assert message.endswith("(used by deferred.py)")


def test_a_member_that_is_gone_is_told_with_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(lm_eval_names), "TaskManager", SimpleNamespace(load=None))
    assert missing("TaskManager") == "lm_eval.tasks.TaskManager has no task_index (used by tasks.py)"


def test_a_library_that_lm_eval_lacks_is_told_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        if name == "lm_eval.evaluator":
            raise ModuleNotFoundError("No module named 'sacrebleu'", name="sacrebleu")
        return import_module(name)

    monkeypatch.setattr(lm_eval_names, "import_module", broken)
    monkeypatch.delitem(vars(lm_eval_names), "evaluate", raising=False)
    with pytest.raises(ModuleNotFoundError, match="sacrebleu"):
        _ = lm_eval_names.evaluate


def test_other_names_are_none_of_the_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'simple_evaluate'"):
        _ = lm_eval_names.simple_evaluate
