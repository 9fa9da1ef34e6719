"""The demo's configuration and its made-up sensors.

The sensors speak real MQTT to the broker in the process. Everything that can go wrong goes wrong within a minute: a
freezer warms up and cools down again, a door is left open and closed late, a sensor falls silent and comes back, and
one sends garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random

from ..clock import Clock
from ..config.schema import Mqtt
from ..events import to_json
from ..mqtt.connection import PublishFailed
from ..mqtt.inbox import Inbox
from ..mqtt.session import Session
from ..service import Service
from ..telemetry.metrics import Metrics

CYCLE_SECONDS = 50.0

CONFIGURATION = """\
gateway: demo
mqtt:
  url: embedded://
  version: 3.1.1
store:
  url: edgeq.db
routes:
  - topic: cold-store/{device}/temperature
    emit: temperature.reading
    subject: "{device}"
    tags: [reading]
  - topic: cold-store/{door}/state
    emit: {map: "{payload.state}", to: {open: door.opened, closed: door.closed}}
    subject: "{door}"
contracts:
  - name: freezer-cold
    description: The freezers stay cold.
    kind: threshold
    of: temperature.reading
    subject: "freezer-*"
    above: -15
    for: 4s
    clear: {below: -16}
    severity: critical
  - name: door-closes
    description: Whoever opens a door closes it again.
    kind: deadline
    after: door.opened
    expect: door.closed
    within: 8s
  - name: sensors-report
    description: Every sensor reports.
    kind: absence
    of: temperature.reading
    subject: "*"
    every: 4s
    grace: 2s
processors:
  sentinel: {kind: sentinel}
  courier: {kind: courier}
channels:
  screen: {kind: log}
log:
  level: error
"""


class Sensors(Service):
    """Publishes what the sensors of the cold store would, for ever."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__("sensors", clock)
        self.sent = 0
        self._session = Session(
            Mqtt(url=url, version="3.1.1", client_id="demo-sensors", status_topic="demo-sensors"),
            "demo-sensors",
            {},
            Inbox(),
            Metrics(),
            clock,
            packet_bytes_max=65536,
            known_filters=_NoMemory(),
        )

    async def run(self) -> None:
        """Publishes until it is stopped."""
        await self._session.start()
        await self._session.wait_ready()
        began = self.clock.monotonic()
        second = 0
        try:
            while not self.stopping.is_set():
                for topic, payload in messages(second):
                    with contextlib.suppress(PublishFailed):
                        await self._session.publish(topic, payload)
                        self.sent += 1
                second += 1
                await self.pause(began + second - self.clock.monotonic())
        finally:
            await self._session.stop(2.0)


def messages(second: int) -> list[tuple[str, bytes]]:
    """What the sensors publish in that second since they were switched on: topic and payload."""
    moment = second % CYCLE_SECONDS
    found = [_temperature("freezer-1", _freezer(moment)), _temperature("freezer-2", -20 + random.uniform(-0.3, 0.3))]  # noqa: S311
    if not 12 <= moment < 27:  # falls silent
        found.append(_temperature("fridge-3", 4 + math.sin(second / 9)))
    if moment == 3:
        found.append(_door("front-door", "open"))
    elif moment == 22:  # should have been closed at 11
        found.append(_door("front-door", "closed"))
    elif moment in (8, 11, 31, 34):
        found.append(_door("back-door", "open" if moment in (8, 31) else "closed"))
    if moment % 10 == 7:
        found.append(("cold-store/fridge-9/temperature", b"\\x02ERR\xff\xfe temp="))
    if moment == 15:
        found.append(_door("front-door", "ajar"))
    return found


def _freezer(moment: float) -> float:
    """Degrees Celsius: warms up from -20 to -11 and is repaired."""
    if moment < 10:
        return -20 + random.uniform(-0.3, 0.3)  # noqa: S311
    if moment < 28:
        return min(-11.0, -20 + (moment - 10) * 0.8)
    return max(-20.0, -11 - (moment - 28) * 0.9)


def _temperature(device: str, value: float) -> tuple[str, bytes]:
    return f"cold-store/{device}/temperature", to_json({"value": round(value, 1), "unit": "C"}).encode()


def _door(door: str, state: str) -> tuple[str, bytes]:
    return f"cold-store/{door}/state", to_json({"state": state}).encode()


class _NoMemory:
    async def load(self) -> list[str]:
        return []

    async def save(self, filters: list[str]) -> None:
        await asyncio.sleep(0)
