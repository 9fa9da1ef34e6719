"""A stream of numbered messages, a processor that echoes each, and the audit of what came of them."""

from __future__ import annotations

from collections import Counter

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from .appliance import DEADLINE_SECONDS, Appliance

WINDOW = 100  # the receive maximum that the appliance is given
ROUTE = """\
  - topic: load/{sender}/{number:int}
    emit: load.received
    subject: "{sender}"
"""

ECHO = """\
from edgeq import Context, Event, QueueProcessor


class Echo(QueueProcessor):
    types = ("load.received",)

    async def process_item(self, event: Event, ctx: Context) -> None:
        ctx.emit("load.echoed", subject=event.subject, data={"of": event.id})
"""


class Load:
    """Publishes numbered messages at QoS 1 and knows which ones the broker has acknowledged."""

    def __init__(self, port: int, sender: str) -> None:
        self.acknowledged: set[int] = set()
        self.sender = sender
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(200)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, count: int) -> None:
        """Publish `count` more and return when the broker has acknowledged them."""
        first = len(self.acknowledged)
        for number in range(first, first + count):
            info = self._client.publish(f"load/{self.sender}/{number}", b'{"value": 1}', qos=1)
        info.wait_for_publish(DEADLINE_SECONDS)  # the last one: a broker acknowledges in order
        assert info.is_published(), "the broker doesn't acknowledge"
        self.acknowledged.update(range(first, first + count))

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def stored(appliance: Appliance, load: Load) -> Counter[int]:
    """How often each number is there as an event."""
    topics = appliance.sql("SELECT topic FROM events WHERE type = 'load.received' AND subject = ?", load.sender)
    return Counter(int(topic.rpartition("/")[2]) for (topic,) in topics)


def echoed(appliance: Appliance) -> bool:
    """Whether the processor is through with all that was received."""
    counts = dict(appliance.sql("SELECT type, count(*) FROM events GROUP BY type"))
    return int(counts.get("load.echoed", 0)) >= int(counts.get("load.received", 0))


def audit(appliance: Appliance, load: Load, kills: int) -> None:
    """Fails unless the database is whole, no more messages are there twice than that many kills may double, and the
    processor, which is through, has echoed each event once.
    """
    numbers = stored(appliance, load)
    doubled = sum(numbers.values()) - len(numbers)
    # edgeq has at most WINDOW messages committed and not acknowledged; as many acknowledgements again may be lost in
    # the socket of a killed process, because mosquitto 2.0.11 sends more than the receive maximum after a reconnect.
    assert doubled <= kills * 2 * WINDOW, f"{doubled} messages came twice in {kills} kills"
    echoes = Counter(
        of for (of,) in appliance.sql("SELECT json_extract(data, '$.of') FROM events WHERE type = 'load.echoed'")
    )
    received = {row[0] for row in appliance.sql("SELECT id FROM events WHERE type = 'load.received'")}
    assert set(echoes) == received, "the processor passed over an event"
    assert set(echoes.values()) <= {1}, "the processor's decision was committed twice"
    ahead = "SELECT processor FROM cursors WHERE last_consumed_id > (SELECT max(id) FROM events)"
    assert appliance.sql(ahead) == [], "a cursor is ahead of the events"
    assert appliance.sql("PRAGMA integrity_check") == [("ok",)]
    assert appliance.sql("SELECT count(*) FROM dead_letters WHERE source != 'channel:out'") == [(0,)]
