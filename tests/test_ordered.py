"""Routes with `ordered: true` in a group: one member at a time takes their messages in, in order, whoever dies."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.intake import table_of
from support.mosquitto import Mosquitto, Peer
from support.sessions import Memory
from support.stores import Database, PostgresDatabase

from edgeq.clock import Clock
from edgeq.config.schema import Mqtt, Route
from edgeq.errors import StoreUnavailable
from edgeq.ordered import OrderedIntake
from edgeq.store import events
from edgeq.store.store import Store, Unit
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until

ROUTES = [
    Route(topic="pumps/{pump}", emit="pump", subject="{pump}", ordered=True),
    Route(topic="sensors/+", emit="reading"),
]


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with database.opened() as made:
        yield made


class Members:
    """Members of one group on one store. Only the memory of subscriptions is each its own."""

    def __init__(self, broker: Mosquitto, store: Store) -> None:
        self._mqtt = Mqtt(url=broker.url, group="site", client_id="mine", receive_maximum=20)
        self._store = store
        self._made: list[OrderedIntake] = []

    async def start(self) -> OrderedIntake:
        """One more, which runs."""
        member = OrderedIntake(
            table_of(ROUTES).part(ordered=True),
            self._mqtt,
            self._store,
            Metrics(),
            Clock(),
            packet_bytes_max=400_000,
            filters=lambda client_id: Memory(),
        )
        self._made.append(member)
        await member.start()
        return member

    async def end(self) -> None:
        for member in self._made:
            await member.stop()


@pytest.fixture
async def members(broker: Mosquitto, store: Store) -> AsyncIterator[Members]:
    made = Members(broker, store)
    yield made
    await made.end()


async def connected(member: OrderedIntake) -> None:
    await until(lambda: member.session is not None, "a session")
    assert member.session is not None
    await member.session.wait_ready()


def _busy(member: OrderedIntake) -> bool:
    return member.intake is not None and member.intake.landed > 20


async def numbers(store: Store) -> dict[str, list[int]]:
    """What was said on each topic, in the order in which it was stored, without what was sent again."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in await events.after(store, 0, 100_000):
        said = event.data["value"]
        if not found[event.subject] or found[event.subject][-1] != said:
            found[event.subject].append(said)
    return found


async def test_members_that_follow_each_other_take_everything_in_order(
    members: Members, store: Store, broker: Mosquitto
) -> None:
    total = 0
    with Peer(broker.port) as peer:
        member = await members.start()
        await connected(member)
        for _ in range(4):
            batch: list[tuple[str, bytes | str]] = [
                (f"pumps/{number % 3}", str(total + number)) for number in range(300)
            ]
            total += len(batch)
            publishing = asyncio.create_task(asyncio.to_thread(peer.publish_many, batch))
            await until(functools.partial(_busy, member), "some messages")
            await member.stop(0.0)  # in the midst of them
            member = await members.start()
            await publishing
        await connected(member)

        async def all_there() -> bool:
            return sum(len(set(each)) for each in (await numbers(store)).values()) == total

        await until(all_there, "all messages", store=store)
    for said in (await numbers(store)).values():
        firsts = list(dict.fromkeys(said))
        assert firsts == sorted(firsts)


async def test_only_the_ordered_routes_are_its_own(members: Members, store: Store, broker: Mosquitto) -> None:
    member = await members.start()
    await connected(member)
    assert member.session is not None
    assert member.session.client_id == "edgeq-site-ordered"
    with Peer(broker.port) as peer:
        peer.publish_many([("sensors/1", "1"), ("pumps/1", "2")])

    async def there() -> bool:
        return await events.head(store) > 0

    await until(there, "the event", store=store)
    assert [event.type for event in await events.after(store, 0, 10)] == ["pump"]


async def test_a_member_that_was_overtaken_commits_nothing_more(
    members: Members, store: Store, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = await members.start()
    await connected(slow)
    assert slow.intake is not None
    held: list[tuple[Unit[object], asyncio.Future[object]]] = []
    submit = type(store).submit

    def late(self: Store, unit: Unit[object], *, shared: bool = False) -> asyncio.Future[object]:
        future = asyncio.get_running_loop().create_future()
        held.append((unit, future))
        return future

    with Peer(broker.port) as peer:
        monkeypatch.setattr(type(store), "submit", late)
        peer.publish("pumps/1", "1")
        await until(lambda: bool(held), "a commit that is under way", store=store)
        monkeypatch.setattr(type(store), "submit", submit)
        other = await members.start()
        await connected(other)

        async def there() -> bool:
            return await events.head(store) > 0

        await until(there, "the message at the other", store=store)
        unit, future = held[0]
        with pytest.raises(StoreUnavailable, match="another member has taken over"):
            await store.submit(unit)
        future.set_exception(StoreUnavailable("as it would have been"))
    assert len(await events.after(store, 0, 10)) == 1


# Whole appliances

CONFIGURATION = """
gateway: {gateway}
mqtt: {{url: "{url}", group: site, receive_maximum: 20}}
routes:
  - {{topic: "pumps/{{pump}}", emit: pump, subject: "{{pump}}", ordered: true}}
  - {{topic: "sensors/{{sensor}}", emit: reading, subject: "{{sensor}}"}}
"""


async def test_one_that_loses_its_turn_leaves_no_session_behind(members: Members) -> None:
    member = await members.start()
    await connected(member)
    session, intake = member.session, member.intake
    assert session is not None
    assert intake is not None
    await member.stop(0.0)
    async with asyncio.timeout(60):
        await session.ended()
        await intake.ended()


def test_another_member_takes_the_ordered_routes_over(tmp_path: Path, broker: Mosquitto, postgres_url: str) -> None:
    site = PostgresDatabase(postgres_url)
    members = {
        name: Appliance(tmp_path / name, CONFIGURATION.format(gateway=name, url=broker.url), on=site)
        for name in ("a", "b")
    }
    first = members["a"]

    def stored() -> list[int]:
        rows = first.sql("SELECT data FROM events WHERE type = 'pump' ORDER BY id")
        return [json.loads(data)["value"] for (data,) in rows]

    try:
        first.start()
        first.until(lambda: "ordered:site: is this process's to do now" in first.log, "the ordered routes")
        members["b"].start()  # not before: it could be the quicker one
        with Peer(broker.port) as peer:
            peer.publish_many([("pumps/1", str(number)) for number in range(500)])
            first.until(lambda: len(stored()) > 50, "some messages")
            first.kill()
            peer.publish_many([("pumps/1", str(number)) for number in range(500, 600)])
            members["b"].until(lambda: len(set(stored())) == 600, "all messages")
            found = stored()
            assert list(dict.fromkeys(found)) == list(range(600))
            assert len(found) <= 600 + 20  # no more than what was not acknowledged yet
            assert [events for events in members["b"].status()["routes"] if events["topic"] == "pumps/{pump}"]
    finally:
        for member in members.values():
            member.kill()


def test_a_group_without_a_common_store_has_no_ordered_routes(tmp_path: Path) -> None:
    lone = Appliance(tmp_path, CONFIGURATION.format(gateway="a", url="mqtt://127.0.0.1:1"))
    told = lone.cli("check")
    assert told.returncode == 78
    assert "mqtt.group: a group with ordered routes needs one store for all its members" in told.stderr + told.stdout
