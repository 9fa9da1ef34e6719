"""A gateway in a barn, with a status page and something in every view of it."""

from __future__ import annotations

import time
from pathlib import Path

from .appliance import Appliance
from .mosquitto import Mosquitto, Peer, free_port

TOKEN = "a-token-for-the-barn"

CONFIGURATION = """
gateway: barn-1
mqtt: {{url: "{url}"}}
app: {{path: ".", modules: [barn]}}
routes:
  - {{topic: "sensors/{{device}}/temperature", emit: temperature.reading, subject: "{{device}}"}}
  - topic: "doors/{{door}}/state"
    emit: {{map: "{{payload.state}}", to: {{open: door.opened, closed: door.closed}}}}
    subject: "{{door}}"
  - {{topic: "meters/{{meter}}/power", emit: power.reading, subject: "{{meter}}", occurred_at: "{{payload.at}}"}}
  - {{topic: "cameras/{{camera}}/snapshot", dispatch: "barn:Snapshot"}}
contracts:
  - {{name: freezer-cold, description: The freezers stay cold., kind: threshold, of: temperature.reading,
     subject: "freezer-*", above: -15, severity: critical}}
channels:
  screen: {{kind: log}}
  siren: {{kind: webhook, url: "http://127.0.0.1:{port}/nowhere"}}
jobs: {{queues: {{default: {{concurrency: 1}}, video: {{concurrency: 1}}}}}}
web: {{listen: "127.0.0.1:{port}"{token}}}
"""

JOBS = """
from edgeq import Dead, Job, JobContext


class Snapshot(Job):
    def handle(self, ctx: JobContext) -> Dead:
        return Dead("the camera is off")
"""


class Barn(Appliance):
    """The gateway; `page` is where its page is. Without a `token`, nobody may change anything."""

    def __init__(self, folder: Path, broker: Mosquitto, *, token: str = TOKEN) -> None:
        port = free_port()
        self.page = f"http://127.0.0.1:{port}"
        self.host = f"127.0.0.1:{port}"
        given = f", token: {token}" if token else ""
        super().__init__(folder, CONFIGURATION.format(url=broker.url, port=port, token=given))
        (self.folder / "barn.py").write_text(JOBS)
        self._broker = broker

    def publish(self, *messages: tuple[str, str | bytes]) -> None:
        """Publish, and return when the gateway has stored what came of it."""
        before, _ = self._routed()
        with Peer(self._broker.port) as peer:
            peer.publish_many(list(messages))
        self.until(lambda: self._routed() >= (before + len(messages), True), "the messages to be stored")

    def fill(self) -> None:
        """Let something happen for each view: readings, a violation that is told, a dead job and a dead letter."""
        self.publish(
            *((f"sensors/freezer-{number}/temperature", f'{{"value": {-20 - number}}}') for number in (1, 2, 3)),
            ("sensors/freezer-2/temperature", '{"value": -11.5, "battery": 80}'),
            ("sensors/freezer-1/temperature", '{"value": -19.5}'),
            ("doors/front/state", '{"state": "ajar"}'),
            *(("meters/pump/power", f'{{"at": {time.time() - 60 * ago}, "watts": {ago}}}') for ago in range(40, 0, -1)),
            ("cameras/yard/snapshot", "{}"),
        )
        self.until(lambda: self.sql("SELECT 1 FROM jobs WHERE state = 'dead'"), "a dead job")
        self.until(lambda: self.sql("SELECT 1 FROM contract_states WHERE state = 'violated'"), "a violation")
        self.until(lambda: self.sql("SELECT 1 FROM notifications WHERE state = 'sent'"), "a notification")
        self.until(lambda: self.sql("SELECT 1 FROM notifications WHERE state = 'dead'"), "one that failed")

    def _routed(self) -> tuple[int, bool]:
        """How many messages routes were given, and whether all of them are stored and acknowledged."""
        status = self.status()
        count = sum(route["messages"] for route in status.get("routes", []))
        return count, not status.get("session", {}).get("in_flight")
