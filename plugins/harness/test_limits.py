"""A limit holds for a task or a group, and is spread over the members of a group."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from layerimp_harness.limits import check_names, limits_by_task
from support.lm_tasks import CHOICE, harness, write_task

from layerimp.errors import TaskError, UnknownNameError


class Group(list[Any]):
    """What is used of a group of lm-eval."""

    def __init__(self, name: str, *members: Any) -> None:
        super().__init__(members)
        self.name = name


def task(name: str) -> Any:
    return SimpleNamespace(task_name=name)


PANEL = Group("panel", task("one"), Group("many", *map(task, "abc")), task("two"))


@pytest.mark.parametrize(
    ("limit", "limits", "expected"),
    [
        (None, {}, {"one": None, "a": None, "b": None, "c": None, "two": None}),
        (5, {}, {"one": 5, "a": 5, "b": 5, "c": 5, "two": 5}),
        (5, {"many": 7}, {"one": 5, "a": 3, "b": 2, "c": 2, "two": 5}),
        (5, {"many": 7, "b": 9}, {"one": 5, "a": 3, "b": 9, "c": 2, "two": 5}),
        (5, {"panel": 10}, {"one": 4, "a": 1, "b": 1, "c": 1, "two": 3}),
        (None, {"panel": 30, "many": 3}, {"one": 10, "a": 1, "b": 1, "c": 1, "two": 10}),
        (None, {"tag": 5}, {"one": None, "a": None, "b": None, "c": None, "two": None, "d": 3, "e": 2}),
    ],
)
def test_a_limit_is_spread_over_the_members(
    limit: int | None, limits: dict[str, int], expected: dict[str, int | None]
) -> None:
    built: dict[str, list[Any]] = {"panel": [PANEL]}
    if "tag" in limits:
        built["tag"] = [task("d"), task("e")]
    assert limits_by_task(built, limit, limits) == expected


def test_a_limit_has_a_document_for_each_member() -> None:
    with pytest.raises(TaskError, match="a limit of 2 is less than one document for each of the 3 members of 'many'"):
        limits_by_task({"panel": [PANEL]}, None, {"many": 2})


def test_a_limit_is_of_something_that_is_measured() -> None:
    check_names({"panel": [PANEL]}, {"panel": 9, "many": 3, "a": 1})
    with pytest.raises(UnknownNameError, match=r"mani.*'many'"):
        check_names({"panel": [PANEL]}, {"mani": 3})


def test_documents_are_measured_up_to_the_limit_of_their_task(folder: Any, model: Any, tokenizer: Any) -> None:
    write_task(folder, "again", CHOICE)
    (folder / "both.yaml").write_text("group: both\ntask: [choice, again]\n")
    measured = harness(folder, "both", "rolling", limit=4, limits={"both": 5})
    counts = {(metric.task, metric.count) for metric in measured.evaluate(model, tokenizer) if metric.count}
    assert counts == {("choice", 3), ("again", 2), ("rolling", 4)}
    assert measured.reading(model, tokenizer, 8, 16).documents == 9
    alone = harness(folder, "choice", limit=3)
    assert [metric.value for metric in alone.evaluate(model, tokenizer)] == [
        metric.value for metric in measured.evaluate(model, tokenizer) if metric.task == "choice"
    ]
    with pytest.raises(UnknownNameError, match="chioce"):
        harness(folder, "both", limits={"chioce": 5}).prepare()
