"""Several `edgeq run` on one PostgreSQL database, each a process with a gateway's name of its own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from edgeq.clock import Clock
from edgeq.events import NewEvent, to_json
from edgeq.store import events
from edgeq.store.postgres.store import PostgresStore
from edgeq.telemetry.metrics import Metrics

from .appliance import Appliance
from .mosquitto import Mosquitto
from .stores import PostgresDatabase

PROCESSORS = 5
SOON_SECONDS = 60.0
CONFIGURATION = """\
gateway: {name}
mqtt: {{url: "{url}"}}
app: {{path: ., modules: [site_app]}}
processors:
{processors}  courier: {{kind: courier, start: beginning}}
  sentinel: {{kind: sentinel, start: beginning}}
channels:
  out: {{kind: webhook, url: "http://127.0.0.1:{port}/", timeout: 60s}}
contracts:
  - {{name: beats, kind: absence, of: beat, by: subject, every: 4s, severity: warning}}
schedules:
  - {{name: tick, every: 1s, job: "site_app:Tick"}}
"""
APP = """
import os, pathlib, signal
from edgeq import Job, QueueProcessor


class Copy(QueueProcessor):
    types = ("in.*",)

    async def process_item(self, event, ctx):
        ctx.emit("copied", data={"key": ctx.idempotency_key})
        if event.type == "in.freeze":
            ctx.decisions.also.append(freeze)


def freeze(tx):
    frozen = pathlib.Path("../frozen")
    if not frozen.exists():
        frozen.touch()
        os.kill(os.getpid(), signal.SIGSTOP)


class Tick(Job):
    async def handle(self, ctx):
        pass
"""


class Site:
    """Members on `database`, and a target that notes the notifications that it gets."""

    def __init__(self, folder: Path, database: PostgresDatabase, broker: Mosquitto) -> None:
        self.database = database
        self.folder = folder
        self.members: dict[str, Appliance] = {}
        self.told: list[str] = []
        self._broker = broker
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told.append(json.loads(body)["fingerprint"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    def start(self, *names: str) -> None:
        """Start members that weren't there, one after the other; return when the last is connected."""
        for name in names:
            processors = "".join(f"  p{n}: {{kind: 'site_app:Copy', start: beginning}}\n" for n in range(PROCESSORS))
            configuration = CONFIGURATION.format(
                name=name, url=self._broker.url, processors=processors, port=self._server.server_port
            )
            member = self.members[name] = Appliance(self.folder / name, configuration, self.database)
            (member.folder / "site_app.py").write_text(APP)
            member.start()

    def close(self) -> None:
        """End everything."""
        for member in self.members.values():
            member.send(18) if member.process is not None else None
            member.kill()
        self._server.shutdown()
        self._server.server_close()

    def append(self, *types: str, subject: str = "") -> None:
        """Store events, as a further program on the database would."""
        now = Clock().now()
        new = [
            NewEvent(name, subject=subject, data_json=to_json({}), occurred_at=now, recorded_at=now) for name in types
        ]

        async def main() -> None:
            store = PostgresStore(self.database.url, metrics=Metrics(), clock=Clock(), session=False)
            await store.open()
            await store.write(lambda tx: events.append(tx, new))
            await store.close()

        asyncio.run(main())

    def copies(self) -> Counter[str]:
        """How often each event was copied, by processor and event."""
        rows = self.database.sql("SELECT data::json->>'key' FROM events WHERE type = 'copied'")
        return Counter(row[0].partition(":")[2] for row in rows)

    def owner(self, name: str = "processor:p0") -> str | None:
        """Which member owns a name."""

        async def main() -> str | None:
            store = PostgresStore(self.database.url, metrics=Metrics(), clock=Clock(), session=False)
            await store.open()
            try:
                return (await store.ownership.owner_of([name])).get(name)
            finally:
                await store.close()

        return asyncio.run(main())
