"""How many documents of each task are measured, where a limit is set for a task, a group or a tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerimp.errors import TaskError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def limits_by_task(
    built: Mapping[str, Sequence[Any]], limit: int | None, limits: Mapping[str, int]
) -> dict[str, int | None]:
    """Return the number of documents that are measured of each task; None for all.

    A limit of a group or a tag is spread over its members, and a member that is a group spreads its share. A limit of a
    member itself takes precedence.

    Args:
        built: lm-eval's tasks and groups, by the name in the options that stands for them.
        limit: The limit of tasks without one of their own; None for none.
        limits: Limits by the name of a task, a group or a tag.

    Raises:
        TaskError: a limit is too small for a document of every member.
    """
    shares: dict[str, int | None] = {}
    for spec, items in built.items():
        whole = limits.get(spec) if len(items) > 1 else None  # a tag; the name of anything else is its own
        for item, share in zip(items, _spread(spec, whole, len(items)), strict=True):
            shares |= _shares(item, share, limits)
    return {name: limit if share is None else share for name, share in shares.items()}


def check_names(built: Mapping[str, Sequence[Any]], limits: Mapping[str, int]) -> None:
    """Check that limits are of tasks that are measured.

    Raises:
        UnknownNameError: a limit names something else.
    """
    known = {*built, *(name for items in built.values() for item in items for name in _names(item))}
    for name in limits:
        if name not in known:
            raise unknown_name("task", name, known, of="the limits")


def _names(item: Any) -> Iterator[str]:
    """Yield the name of a task, or those of a group and everything in it."""
    yield name_of(item)
    if not hasattr(item, "task_name"):
        for member in item:
            yield from _names(member)


def name_of(item: Any) -> str:
    """Return the name of a task or a group as lm-eval built it."""
    return str(item.task_name if hasattr(item, "task_name") else item.name)


def _shares(item: Any, inherited: int | None, limits: Mapping[str, int]) -> dict[str, int | None]:
    own = limits.get(name_of(item), inherited)
    if hasattr(item, "task_name"):
        return {name_of(item): own}
    members, shares = list(item), dict[str, int | None]()
    for member, share in zip(members, _spread(name_of(item), own, len(members)), strict=True):
        shares |= _shares(member, share, limits)
    return shares


def _spread(name: str, whole: int | None, members: int) -> list[int | None]:
    """Return the share of each member; the first ones get what is left over."""
    if whole is None:
        return [None] * members
    each, left = divmod(whole, members)
    if not each:
        raise TaskError(f"a limit of {whole} is less than one document for each of the {members} members of {name!r}")
    return [each + (number < left) for number in range(members)]
