"""A disk of 16 MiB for the database, filled by edgeq itself and by somebody else: nothing is acknowledged that isn't
stored, what is oldest goes when there is need, and edgeq goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer
from support.power import Disk, NoDiskError, fill_up

DISK_BYTES = 16 * 2**20
TEXT = "x" * 500
COUNT = 64_000
pytestmark = pytest.mark.timeout(700)

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: disk/edgeq.db}}
routes:
  - {{topic: "a/{{n:int}}", emit: a}}
processors:
  courier: {{kind: courier}}
"""


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url))
    made.database = made.folder / "disk" / "edgeq.db"
    made.database.parent.mkdir()
    try:
        with Disk(made.folder, DISK_BYTES):
            yield made
            made.kill()
    except NoDiskError as error:
        pytest.skip(str(error))


def send(peer: Peer, first: int, count: int) -> None:
    peer.publish_many([(f"a/{n}", f'{{"text": "{TEXT}"}}') for n in range(first, first + count)])


def numbers(edgeq: Appliance) -> list[int]:
    topics = edgeq.sql("SELECT topic FROM events WHERE type = 'a' ORDER BY id")
    return [int(topic.partition("/")[2]) for (topic,) in topics]


def acknowledged(edgeq: Appliance) -> int:
    return int(sum(edgeq.status()["counters"]["edgeq_messages_acked_total"].values()))


def test_twice_as_much_as_the_disk_can_take_goes_through_it(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        for first in range(0, COUNT, 500):
            send(peer, first, 500)
            edgeq.until(lambda least=first: acknowledged(edgeq) >= least, "the messages before", seconds=300)  # type: ignore[misc]
    edgeq.until(lambda: acknowledged(edgeq) == COUNT, "the last message", seconds=300)
    assert edgeq.stop() == 0
    found = numbers(edgeq)
    assert found == [*range(found[0], COUNT)], "something between the oldest and the newest is missing"
    assert len(found) * len(TEXT) > DISK_BYTES / 4, "more was deleted than was needed"
    assert edgeq.sql("PRAGMA integrity_check") == [("ok",)]
    assert "rows were deleted for want of room (min_free_disk)" in edgeq.log
    assert len(edgeq.log.splitlines()) < 40, edgeq.log


def test_somebody_else_fills_the_disk_and_makes_room_again(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        send(peer, 0, 100)
        edgeq.until(lambda: acknowledged(edgeq) == 100, "the first messages")
        filler = fill_up(edgeq.database.parent, 0)
        send(peer, 100, 100)
        edgeq.until(lambda: "the disk is full" in edgeq.status()["store"]["reason"], "the full disk to be told of")
        assert acknowledged(edgeq) == 100
        filler.unlink()
        edgeq.until(lambda: acknowledged(edgeq) == 200, "the rest")
    assert edgeq.stop() == 0
    assert numbers(edgeq) == [*range(200)]
