"""docs/machines.md: what it has one type works, and what it claims is true."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mosquitto import Mosquitto
from support.postgres import Postgres
from support.readme import PAGES, Terminals, files, followed, section, steps

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.store import events
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics

SITE = followed(PAGES["docs/machines.md"])
STATEMENTS = SITE.partition("```sql\n")[2].partition("```")[0]
MOVING = section("## Moving to PostgreSQL", SITE)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    made.environment |= {"SITE_PASSWORD": "a%20good%20one", "RUNTIME_DIRECTORY": str(tmp_path)}
    yield made
    made.kill()


def test_a_store_moves_to_a_server_and_a_member_runs_on_it(
    terminals: Terminals, own_postgres: Callable[..., Postgres], broker: Mosquitto
) -> None:
    server = own_postgres(max_connections="12")
    for statement in STATEMENTS.strip().splitlines():
        server.sql(server.url, statement)
    here = {"db.example.net": f"127.0.0.1:{server.port}", "mqtt://broker.example.net": broker.url}

    def written(text: str) -> str:
        return re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], text)

    asyncio.run(_an_event(terminals.folder / "edgeq.db"))
    for line, _ in steps(MOVING, terminals.folder):
        assert "complete: database site at" in terminals.type(written(line))
    (terminals.folder / "edgeq.yaml").write_text(written(files(SITE)["edgeq.yaml"]))
    assert "store       database site at" in terminals.type("edgeq check")
    assert "good" not in terminals.type("edgeq check") + terminals.complaints
    terminals.type("edgeq run")
    terminals.until("edgeq status", "database site at")
    assert "moved" in terminals.type("edgeq events list")
    [(connections,)] = server.sql(
        server.url, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'edgeq barn-1 run%'"
    )
    assert 2 <= connections <= 3, "as the page says"
    terminals.stop()


async def _an_event(path: Path) -> None:
    store = SqliteStore(str(path), metrics=Metrics(), clock=Clock())
    await store.open()
    await store.write(lambda tx: events.append(tx, [NewEvent("moved", 1, 1)]))
    await store.close()
