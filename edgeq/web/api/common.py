"""What the lists of the interface have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypedDict, TypeVar

from ...events import from_json
from ...store.store import Store, Unit
from ..replies import Refusal

T = TypeVar("T")

WRITE_SECONDS = 10.0


class Numbered(Protocol):
    """A row with an id."""

    @property
    def id(self) -> int:
        """What it is known by."""


R = TypeVar("R", bound=Numbered)


class Done(TypedDict):
    """What was asked for is done, and on disk."""

    done: bool


async def page_of(
    find: Callable[[int], Awaitable[Sequence[R]]], limit: int, shown: Callable[[R], dict[str, Any]]
) -> dict[str, Any]:
    """A page of what `find` finds, which is asked for one more than there is room for."""
    rows = await find(limit + 1)
    items = rows[:limit]
    return {"items": [shown(each) for each in items], "next": items[-1].id if len(rows) > limit else None}


def fields_of(row: Any, *texts: str) -> dict[str, Any]:
    """The fields of a record, those of `texts` decoded from JSON, or as they stand if they aren't."""
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    for name in texts:
        with contextlib.suppress(ValueError):
            fields[name] = None if fields[name] is None else from_json(fields[name])
    return fields


def missing(what: str, hint: str = "") -> Refusal:
    """There is no such thing."""
    return Refusal(404, f"there is no {what}" + (f": {hint}" if hint else ""))


async def saved(store: Store, unit: Unit[T]) -> T:
    """What the unit returned, when it is on disk. Raises what it raises, and StoreUnavailable."""
    return await store.write(unit, timeout_seconds=WRITE_SECONDS)
