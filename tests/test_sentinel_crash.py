"""Kill -9 of `edgeq run` while deadlines are pending: each verdict is told exactly once, with its own time, and what
waits at the broker is heard before anything is declared absent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer

WITHIN_SECONDS = 3
LONG_SECONDS = 10  # enough for whatever a test does meanwhile, also on a busy machine
CONFIGURATION = """\
gateway: crash
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db}}
routes:
  - topic: doors/{{door}}/{{what}}
    emit: "door.{{what}}"
    subject: "{{door}}"
    occurred_at: "{{payload.ts}}"
    dedup: "{{door}}:{{what}}"
  - topic: sensors/{{sensor}}
    emit: reading
    subject: "{{sensor}}"
    occurred_at: "{{payload.ts}}"
    dedup: "{{sensor}}:{{payload.ts}}"
processors:
  sentinel: {{kind: sentinel, start: beginning}}
contracts:
  - {{name: closes, kind: deadline, after: door.opened, expect: door.closed, within: {within}s, lateness: 5s}}
  - {{name: reports, kind: absence, of: reading, every: {within}s}}
log: {{level: info}}
"""


@pytest.fixture
def gateway(tmp_path: Path, broker: Mosquitto) -> Iterator[tuple[Appliance, Peer]]:
    configuration = CONFIGURATION.format(url=broker.url, within=WITHIN_SECONDS)
    made = Appliance(tmp_path / "gateway", configuration)
    with Peer(broker.port) as peer:
        yield made, peer
    made.kill()


def publish(peer: Peer, topic: str) -> float:
    """Have something happen now; when that is, in seconds since 1970."""
    now = round(time.time(), 3)
    peer.publish(topic, json.dumps({"ts": round(now * 1000)}))
    return now


def verdicts(edgeq: Appliance) -> list[tuple[str, str, str, float]]:
    """Contract, subject, what was told, and when it became so in seconds since 1970."""
    rows = edgeq.sql(
        "SELECT json_extract(data, '$.contract'), subject, substr(type, 10), occurred_at / 1e6 FROM events "
        "WHERE type LIKE 'contract.%' ORDER BY id"
    )
    return sorted((contract, subject, what, round(at, 3)) for contract, subject, what, at in rows)


def stored(edgeq: Appliance) -> int:
    """How many events are there that nobody decided on."""
    rows = edgeq.sql("SELECT count(*) FROM events WHERE type NOT LIKE 'contract.%'")
    return int(rows[0][0]) if rows else 0


def wait_until(moment: float) -> None:
    """Let it become that many seconds since 1970."""
    time.sleep(max(0.0, moment - time.time()))


def test_what_was_due_while_it_was_dead_is_told_once_and_what_waits_at_the_broker_is_heard_first(
    gateway: tuple[Appliance, Peer],
) -> None:
    edgeq, peer = gateway
    configuration = (edgeq.folder / "edgeq.yaml").read_text()
    edgeq.configure(configuration.replace(f": {WITHIN_SECONDS}s", f": {LONG_SECONDS}s"))
    edgeq.start()
    opened = {door: publish(peer, f"doors/{door}/opened") for door in ("left", "in-time", "late", "at-the-end")}
    reported = {sensor: publish(peer, f"sensors/{sensor}") for sensor in ("silent", "alive")}
    edgeq.until(lambda: stored(edgeq) == 6, "what happened to be stored")
    edgeq.kill()
    assert verdicts(edgeq) == []
    publish(peer, "doors/in-time/closed")
    deadline = max(opened.values()) + LONG_SECONDS
    while time.time() < deadline + 1.5:
        wait_until(time.time() + 0.5)
        alive = publish(peer, "sensors/alive")
    closed = publish(peer, "doors/late/closed")
    expected = [
        ("closes", "at-the-end", "violated", round(opened["at-the-end"] + LONG_SECONDS, 3)),
        ("closes", "late", "resolved", closed),
        ("closes", "late", "violated", round(opened["late"] + LONG_SECONDS, 3)),
        ("closes", "left", "violated", round(opened["left"] + LONG_SECONDS, 3)),
        ("reports", "silent", "violated", round(reported["silent"] + LONG_SECONDS, 3)),
    ]
    edgeq.start()
    edgeq.until(lambda: set(expected) <= set(verdicts(edgeq)), "the verdicts")
    edgeq.kill()
    found = verdicts(edgeq)
    again = ("reports", "alive", "violated", round(alive + LONG_SECONDS, 3))  # since it was started
    assert [each for each in found if each != again] == expected
    edgeq.start()
    edgeq.until(lambda: again in verdicts(edgeq), "the end of the other sensor")
    closed = publish(peer, "doors/at-the-end/closed")
    edgeq.until(lambda: ("closes", "at-the-end", "resolved", closed) in verdicts(edgeq), "the door to be closed")
    assert edgeq.stop() == 0
    assert verdicts(edgeq) == sorted([*expected, again, ("closes", "at-the-end", "resolved", closed)])


@pytest.mark.parametrize(("name", "counts"), [("processor.handled", (1, 10)), ("processor.committed", (2,))])
def test_killed_at_a_failpoint_each_verdict_is_told_once(
    gateway: tuple[Appliance, Peer], name: str, counts: tuple[int, ...]
) -> None:
    edgeq, peer = gateway
    edgeq.start()
    assert edgeq.stop() == 0  # the session exists from now on: the broker keeps what comes
    opened: dict[str, float] = {}
    closed: dict[str, float] = {}

    def open_one() -> None:
        """A door is opened; one in three is closed at once."""
        door = str(len(opened))
        opened[door] = publish(peer, f"doors/{door}/opened")
        if int(door) % 3 == 0:
            closed[door] = publish(peer, f"doors/{door}/closed")

    def close_late() -> None:
        """One in three is closed when it is too late."""
        for door in [each for each in opened if int(each) % 3 == 1 and each not in closed]:
            if opened[door] + WITHIN_SECONDS + 0.5 < time.time():
                closed[door] = publish(peer, f"doors/{door}/closed")

    for count in counts:
        process = edgeq.spawn(EDGEQ_FAILPOINT=f"{name}:{count}")
        limit = time.monotonic() + 60
        while process.poll() is None:
            assert time.monotonic() < limit, f"the failpoint {name}:{count} was not reached:\n{edgeq.log}"
            open_one()
            close_late()
            time.sleep(0.1)
        assert process.wait() == -9
    wait_until(max(opened.values()) + WITHIN_SECONDS + 0.6)
    close_late()
    expected = []
    for door, at in opened.items():
        due = round(at + WITHIN_SECONDS, 3)
        if closed.get(door, due + 1) > due:
            expected.append(("closes", door, "violated", due))
            if door in closed:
                expected.append(("closes", door, "resolved", closed[door]))
    edgeq.start()
    edgeq.until(lambda: len(verdicts(edgeq)) >= len(expected), "the verdicts", seconds=120)
    assert edgeq.stop() == 0
    assert verdicts(edgeq) == sorted(expected)
    assert len(closed) > len({what for _, _, what, _ in expected}) == 2
