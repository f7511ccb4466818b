"""lm-eval's own tasks are found without its index, as its index has them."""

from __future__ import annotations

import pytest
from layerimp_harness import builtin, tasks
from layerimp_harness.tasks import whole_index


def all_of(name: str, registry: builtin.Registry) -> set[str]:
    """The names that an entry leads to, itself among them."""
    entry = registry[name]
    names = {name, *(entry.tags if entry.kind.name == "TAG" else ())}
    listed = builtin.members(entry.cfg)
    for member in listed if isinstance(listed, list) else ():
        inner = member if isinstance(member, dict) else {}
        below = str(inner.get("group") or inner.get("task") or member)
        if below in registry and below not in names:
            names |= all_of(below, registry)
    return names


@pytest.mark.parametrize(
    "name",
    [
        "hellaswag",
        "wikitext",
        "mmlu",
        "leaderboard",
        "glue",
        "super-glue-lm-eval-v1",
        "bbh_zeroshot",
        "belebele",
        "ai2_arc",
    ],
)
@pytest.mark.slow
def test_an_entry_is_that_of_the_whole_index(name: str) -> None:
    entries, whole = builtin.entries([name]), whole_index()
    names = all_of(name, whole)
    assert all_of(name, entries) == names
    for member in names:
        ours, theirs = entries[member], whole[member]
        assert (ours.kind, ours.yaml_path, ours.cfg) == (theirs.kind, theirs.yaml_path, theirs.cfg)
        assert ours.tags == theirs.tags or member != name  # a tag beside the one asked for may have more tasks


def test_several_names_and_none() -> None:
    assert {"hellaswag", "wikitext"} <= builtin.entries(["hellaswag", "wikitext", "no_such_task"]).keys()
    assert not builtin.entries(["no_such_task"])
    assert not builtin.entries([])


def test_a_group_of_lm_evals_tasks_needs_no_index(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "whole_index", lambda: pytest.fail("the whole index was read"))
    (tmp_path / "both.yaml").write_text("group: both\ntask: [hellaswag, ai2_arc]\n")
    for name in ("mmlu", str(tmp_path / "both.yaml")):
        entry, registry = tasks._find(name, {}, None)
        assert entry.name in ("mmlu", "both")
        assert not list(builtin.missing(entry.cfg, registry))
