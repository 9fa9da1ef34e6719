"""docs/small.md: what it has one type works, and its defaults are the defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.pruned import DAY
from support.readme import PAGES, Terminals, followed, steps

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.config.schema import Retention
from edgeq.events import NewEvent
from edgeq.store import events
from edgeq.store.sqlite import LOG_BYTES_KEPT, SqliteStore
from edgeq.telemetry.metrics import Metrics

SMALL = followed(PAGES["docs/small.md"])


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


async def _fill(path: Path) -> None:
    store = SqliteStore(str(path), metrics=Metrics(), clock=Clock())
    await store.open()
    now = Clock().now()
    new = [NewEvent("t", now - days * DAY, now - days * DAY) for days in (40, 35, 20, 1)]
    await store.write(lambda tx: events.append(tx, new))
    await store.close()


def test_what_one_types_works(terminals: Terminals) -> None:
    asyncio.run(_fill(terminals.folder / "edgeq.db"))
    said = [terminals.type(line) for line, _ in steps(SMALL, terminals.folder)]
    assert ["would be deleted" in said[0], "events: 2 deleted" in said[1], "events: 1 deleted" in said[2]] == [True] * 3
    assert "given back to the disk" in said[3]
    assert "retention   events 30d" in terminals.type("edgeq check")
    assert "taken of 2GiB, the oldest event" in terminals.type("edgeq status")


def test_the_defaults_are_as_shown(terminals: Terminals, monkeypatch: pytest.MonkeyPatch) -> None:
    list(steps(SMALL, terminals.folder))
    monkeypatch.chdir(terminals.folder)
    loaded = load("edgeq.yaml").config
    shown, kept = loaded.store.retention, Retention()
    assert msgspec.structs.replace(shown, jobs=kept.jobs) == kept
    assert shown.by_state() == kept.by_state()
    assert [route.keep for route in loaded.routes] == ["low", "high"]
    assert LOG_BYTES_KEPT == 16 * 2**20
