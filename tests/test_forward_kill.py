"""The site has each event of the gateway once, whenever the gateway is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from support.appliance import Appliance
from support.forwarding import add
from support.mosquitto import Mosquitto, free_port
from support.postgres import Postgres
from support.stores import PostgresDatabase
from support.targets import Answer, HttpTarget, Request, closing

from edgeq.clock import Clock
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics

TOKEN = "a-token-of-some-length"
EVENTS = 60
GATEWAY = """
gateway: gw
mqtt: {{url: "mqtt://127.0.0.1:1"}}
store: {{url: edgeq.db}}
processors:
  cloud:
    kind: forward
    to: "{to}"
    start: beginning
    batch_size: 7
    newest_first: [alarm]
    on_error: {{backoff: 100ms..200ms}}
    {keys}
"""
SITE = """
gateway: site
mqtt: {{url: "mqtt://127.0.0.1:{broker}"}}
store: {{url: edgeq.db}}
routes: [{{topic: "site/{{gateway}}/events", receive: events}}]
web: {{listen: "127.0.0.1:{web}", token: {token}}}
"""


class Site(Protocol):
    to: str
    keys: str

    def known(self) -> list[str]:
        """The keys of its events."""


class Away(Site):
    """An appliance: by HTTP, or by MQTT."""

    def __init__(self, edgeq: Appliance, to: str, keys: str) -> None:
        self.edgeq, self.to, self.keys = edgeq, to, keys

    def known(self) -> list[str]:
        return [row[0] for row in self.edgeq.sql("SELECT idempotency_key FROM events")]


class Database(Site):
    """A PostgreSQL database."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database, self.to, self.keys = database, database.url, ""

    def known(self) -> list[str]:
        return [row[0] for row in self.database.sql("SELECT idempotency_key FROM events")]


@pytest.fixture(params=["http", "mqtt", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        database = PostgresDatabase.on(server)
        yield Database(database)
        database.drop()
        return
    broker: Mosquitto = request.getfixturevalue("broker")
    web = free_port()
    edgeq = Appliance(tmp_path / "site", SITE.format(broker=broker.port, web=web, token=TOKEN))
    edgeq.start()
    if request.param == "http":
        yield Away(edgeq, f"http://127.0.0.1:{web}/api/events", f"token: {TOKEN}\n    gzip: true")
    else:
        yield Away(edgeq, broker.url, "gzip: true")
    edgeq.kill()


def gateway(folder: Path, to: str, keys: str) -> Appliance:
    """One with events of two kinds in its store."""
    made = Appliance(folder / "gateway", GATEWAY.format(to=to, keys=keys))

    async def fill() -> None:
        store = SqliteStore(str(made.database), metrics=Metrics(), clock=Clock())
        await store.open()
        for _ in range(EVENTS // 10):
            await add(store, 7)
            await add(store, 3, "alarm")
        await store.close()

    asyncio.run(fill())
    return made


def expected(edgeq: Appliance) -> list[str]:
    [(store,)] = edgeq.sql("SELECT value FROM meta WHERE key = 'store_id'")
    return sorted(f"{store}:{number}" for number in range(1, EVENTS + 1))


@pytest.mark.timeout(400)
def test_killed_before_and_after_the_site_has_confirmed(site: Site, tmp_path: Path) -> None:
    edgeq = gateway(tmp_path, site.to, site.keys)
    try:
        for place in ("forward.sending:1", "forward.confirmed:2", "processor.handled:1", "forward.confirmed:1"):
            edgeq.spawn(EDGEQ_FAILPOINT=place)
            assert edgeq.ended() == -signal.SIGKILL, edgeq.log
        edgeq.spawn()
        edgeq.until(lambda: len(site.known()) >= EVENTS, "all to arrive", seconds=120)
        edgeq.until(lambda: edgeq.sql("SELECT last_consumed_id FROM cursors") == [(EVENTS,)], "the cursor")
    finally:
        edgeq.kill()
    assert sorted(site.known()) == expected(edgeq)


@pytest.mark.timeout(300)
def test_killed_while_the_answer_is_on_its_way(tmp_path: Path) -> None:
    edgeq: list[Appliance] = []
    killed: list[int] = []
    one_at_a_time = threading.Lock()

    class Killer(HttpTarget):
        """Kills who sends, when it has got everything: each of three once, though it may have sent more."""

        def answer(self, request: Request) -> Answer:
            with one_at_a_time:
                process = edgeq[0].process
                if len(self.requests) > 1 and len(killed) < 3 and process is not None and process.pid not in killed:
                    killed.append(process.pid)
                    os.kill(process.pid, signal.SIGKILL)
            return Answer()

    with closing(Killer()) as server:
        edgeq.append(gateway(tmp_path, server.url, ""))
        try:
            for _ in range(3):
                edgeq[0].spawn()
                assert edgeq[0].ended() == -signal.SIGKILL
            edgeq[0].spawn()
            edgeq[0].until(
                lambda: edgeq[0].sql("SELECT last_consumed_id FROM cursors") == [(EVENTS,)], "all to be sent"
            )
        finally:
            edgeq[0].kill()
    seen: dict[str, set[str]] = {}
    for request in server.requests:
        for event in json.loads(request.body)["events"]:
            seen.setdefault(event["idempotency_key"], set()).add(json.dumps(event, sort_keys=True))
    assert sorted(seen) == expected(edgeq[0])
    assert all(len(forms) == 1 for forms in seen.values()), "a key stands for one event"
