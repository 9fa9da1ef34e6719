"""What the verbs find, where the two databases have different words for it."""

from __future__ import annotations

import pytest
from support.stores import Database

from edgeq.events import NewEvent
from edgeq.store import events

NAMES = ("a.b", "a.B", "a%b", "a_b", "a[b", "a?b", "a\\b", "ab", "axyzb", "b.a")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a*b", [name for name in NAMES if name not in ("a.B", "b.a")]),
        ("a%*", ["a%b"]),
        ("a_b", ["a_b"]),
        ("*[b", ["a[b"]),
        ("a?b", ["a?b"]),
        ("a\\*", ["a\\b"]),
        ("*", list(NAMES)),
        ("A*", []),
    ],
)
async def test_only_the_star_has_a_meaning_in_a_pattern(database: Database, pattern: str, found: list[str]) -> None:
    rows = [NewEvent(name, occurred_at=0, recorded_at=0, tags=(name,)) for name in NAMES]
    async with database.opened() as store:
        await store.write(lambda tx: events.append(tx, rows))
        assert [event.type for event in await events.recent(store, limit=100, type_pattern=pattern)] == found
        tagged = [event for name in NAMES for event in await events.recent(store, limit=100, tag=name)]
        assert [event.type for event in tagged] == list(NAMES)
