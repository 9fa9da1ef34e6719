"""The session on a real mosquitto."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.mosquitto import Mosquitto, Peer, free_port
from support.sessions import Memory, Rig, payloads, running

from edgeq.mqtt.connection import NotConnected, PublishFailed
from edgeq.mqtt.delivery import Delivery
from edgeq.mqtt.inbox import Inbox
from edgeq.mqtt.session import State

versions = pytest.mark.parametrize("version", ["5", "3.1.1"])
KEEPALIVE = 3  # seconds, for as many of which a busy machine may stop before a connection is given up


def numbered(count: int, topic: str = "a/b", start: int = 0) -> list[tuple[str, bytes | str]]:
    return [(topic, b"%d" % number) for number in range(start, start + count)]


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


@versions
async def test_messages_arrive_in_order_and_are_acknowledged(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a/+": 1, "q/+": 0}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, numbered(500))
            await asyncio.to_thread(peer.publish, "q/0", "zero")
        deliveries = await rig.take(501)
        assert payloads(deliveries) == [*numbers(500), b"zero"]
        assert [d.qos for d in deliveries] == [1] * 500 + [0]
        assert {d.topic for d in deliveries} == {"a/b", "q/0"}
        assert rig.session.state is State.CONNECTED
        assert rig.session.reason == ""
        assert rig.session.connected_since is not None
        assert rig.session.last_message_at == deliveries[-1].received_at
        assert rig.metrics.received.total() == 501
        assert rig.metrics.acked.total() == 500
    assert rig.session.state is State.DISCONNECTED
    async with running(broker.url, {"a/+": 1, "q/+": 0}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish, "a/b", "next")
        assert payloads(await rig.take(1)) == [b"next"]  # so nothing acknowledged came again


@versions
async def test_what_is_published_while_away_arrives(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        await rig.ready()
    with Peer(broker.port) as peer:
        peer.publish_many(numbered(100))
    broker.restart()
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        assert payloads(await rig.take(100)) == numbers(100)
        assert rig.session.connections == 1


@versions
async def test_what_was_not_acknowledged_comes_again_in_order(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, numbered(10))
        first = await rig.take(10, ack=False)
        assert rig.session.ack(first[:4]) == 4
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        again = await rig.take(6)
        assert payloads(again) == numbers(6, 4)
        assert all(delivery.dup for delivery in again)


@versions
async def test_an_ack_for_an_earlier_connection_is_not_sent(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, numbered(3))
        early = await rig.take(3, ack=False)
        broker.restart()
        await rig.until(lambda: rig.session.connections == 2)
        late = await rig.take(3, ack=False)
        assert payloads(late) == numbers(3)
        assert rig.session.ack([*early, *late]) == 3
        assert rig.metrics.skipped.values == {"ack_of_an_earlier_connection": 3}


@versions
async def test_acks_go_out_in_the_order_given(mosquitto: Callable[..., Mosquitto], version: str) -> None:
    broker = mosquitto()
    async with running(broker.url, {"a/#": 1}, version=version, receive_maximum=20) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, numbered(20))
        deliveries = await rig.take(20)
        with Peer(broker.port) as peer:  # its own answer comes after what the broker has read from the session
            await rig.session.publish("b", b"")
        acked = [line.split("Mid: ")[1].split(",")[0] for line in broker.log.splitlines() if "PUBACK from" in line]
        assert acked[:20] == [str(delivery.mid) for delivery in deliveries]


@versions
async def test_the_receive_maximum_holds_the_broker_back(mosquitto: Callable[..., Mosquitto], version: str) -> None:
    broker = mosquitto("max_inflight_messages 7" if version == "3.1.1" else "max_inflight_messages 0")
    async with running(broker.url, {"a/#": 1}, version=version, receive_maximum=7) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, numbered(30))
        held = await rig.take(7, ack=False)
        await rig.session.publish("b", b"")  # whatever the broker sent before its answer has arrived by now
        assert len(rig.inbox) == 0
        rig.session.ack(held)
        assert payloads(await rig.take(23)) == numbers(23, 7)


@versions
async def test_filters_no_longer_wanted_are_unsubscribed_at_the_next_start(broker: Mosquitto, version: str) -> None:
    memory = Memory()
    async with running(broker.url, {"a/#": 1, "b/#": 1}, version=version, memory=memory) as rig:
        await rig.ready()
    assert sorted(memory.filters) == ["a/#", "b/#"]
    async with running(broker.url, {"a/#": 1, "c/#": 1}, version=version, memory=memory) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, [("b/1", "b"), ("a/1", "a"), ("c/1", "c")])
        assert payloads(await rig.take(2)) == [b"a", b"c"]
    assert sorted(memory.filters) == ["a/#", "c/#"]


@versions
async def test_a_broker_that_comes_back_without_its_sessions_is_subscribed_to_again(
    broker: Mosquitto, version: str
) -> None:
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        await rig.ready()
        broker.restart()
        await rig.until(lambda: rig.session.connections == 2)
        await rig.ready()
        assert rig.session.disconnected_since is None
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish, "a/1", "a")
        assert payloads(await rig.take(1)) == [b"a"]


@versions
async def test_qos_2_is_never_asked_for(broker: Mosquitto, version: str) -> None:
    """Its state wouldn't be durable."""
    async with running(broker.url, {"a/#": 2}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish, "a/1", "x", qos=2)
        (delivery,) = await rig.take(1)
        assert delivery.qos == 1


@versions
async def test_the_memory_is_only_written_when_it_changes(broker: Mosquitto, version: str) -> None:
    memory = Memory()
    for _ in range(2):
        async with running(broker.url, {"a/#": 1}, version=version, memory=memory) as rig:
            await rig.ready()
    assert memory.saves == 1


@versions
async def test_overlapping_filters_bring_each_message_once(broker: Mosquitto, version: str) -> None:
    filters = {"a/+/c": 1, "a/b/#": 1, "x/#": 0, "x/y": 1, "z": 1}
    async with running(broker.url, filters, version=version) as rig:
        await rig.ready()
        topics = ["a/b/c", "a/1/c", "a/b/1/2", "x", "x/y", "z"]
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, [(topic, topic) for topic in topics])
            await asyncio.to_thread(peer.publish, "z", "end")
        assert payloads(await rig.take(7)) == [*[topic.encode() for topic in topics], b"end"]


@versions
async def test_many_filters(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {f"t/{number}": 1 for number in range(100)}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, [(f"t/{number}", str(number)) for number in range(100)])
        assert payloads(await rig.take(100)) == numbers(100)


@versions
async def test_two_sessions_share_a_subscription(broker: Mosquitto, version: str) -> None:
    async with (
        running(broker.url, {"a/#": 1}, version=version, group="site", gateway="one") as one,
        running(broker.url, {"a/#": 1}, version=version, group="site", gateway="two") as two,
    ):
        await one.ready()
        await two.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, numbered(40))
        await one.until(lambda: one.metrics.received.total() + two.metrics.received.total() >= 40)
        assert len(one.inbox) > 0
        assert len(two.inbox) > 0
        both = await one.take(len(one.inbox)) + await two.take(len(two.inbox))
        assert sorted(payloads(both)) == sorted(numbers(40))
        assert one.memory.filters == ["$share/site/a/#"]


@versions
async def test_what_is_private_comes_to_each_of_a_group_once(broker: Mosquitto, version: str) -> None:
    options: dict[str, Any] = {"version": version, "group": "site", "private": ["born/status", "a/b"]}
    filters = {"born/status": 1, "a/#": 1, "a/b": 1}
    async with (
        running(broker.url, filters, gateway="one", **options) as one,
        running(broker.url, filters, gateway="two", **options) as two,
    ):
        await one.ready()
        await two.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, [("a/b", "shared"), ("born/status", "online")])
        found = [[delivery.topic async for delivery in until_born(rig)] for rig in (one, two)]
        assert sorted(found, key=len) == [["born/status"], ["a/b", "born/status"]], "what overlaps is shared after all"


async def until_born(rig: Rig) -> AsyncIterator[Delivery]:
    """What comes until Home Assistant is born, and that."""
    while True:
        (delivery,) = await rig.take(1)
        yield delivery
        if delivery.topic == "born/status":
            return


@versions
async def test_a_retained_message_is_marked(broker: Mosquitto, version: str) -> None:
    with Peer(broker.port) as peer:
        peer.publish("a/kept", "old", retain=True)
        async with running(broker.url, {"a/#": 1}, version=version) as rig:
            (kept,) = await rig.take(1)
            assert (kept.payload, kept.retain) == (b"old", True)
            await asyncio.to_thread(peer.publish, "a/kept", "new", retain=True)
            (live,) = await rig.take(1)
            assert (live.payload, live.retain) == (b"new", False)


async def test_a_retained_message_comes_once_per_subscription(broker: Mosquitto) -> None:
    with Peer(broker.port) as peer:
        peer.publish("a/kept", "old", retain=True)
        for expected in ([b"old", b"end"], [b"end"]):  # the second time, the session has the subscription already
            async with running(broker.url, {"a/#": 1}, version="5") as rig:
                await rig.ready()
                await asyncio.to_thread(peer.publish, "a/1", "end")
                assert payloads(await rig.take(len(expected))) == expected


@versions
async def test_the_presence_is_online_then_offline(broker: Mosquitto, version: str) -> None:
    with Peer(broker.port, "site/+/state") as peer:
        async with running(broker.url, {"a": 1}, version=version, status_topic="site/{gateway}"):
            await asyncio.to_thread(peer.wait, lambda: len(peer.messages) == 1)
        await asyncio.to_thread(peer.wait, lambda: len(peer.messages) == 2)
    assert peer.seen == [("site/gw/state", b"online"), ("site/gw/state", b"offline")]
    with Peer(broker.port, "site/+/state") as late:
        late.wait(lambda: len(late.messages) == 1)
        assert late.messages[0].retain


@versions
async def test_the_will_says_offline_when_edgeq_is_killed(broker: Mosquitto, version: str) -> None:
    program = f"""
import asyncio
from support.sessions import Rig
async def main():
    rig = Rig({broker.url!r}, {{"a": 1}}, version={version!r})
    await rig.session.start()
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with Peer(broker.port, "edgeq/gw/state") as peer:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env={"PYTHONPATH": str(Path(__file__).parent)}
        )
        await asyncio.to_thread(peer.wait, lambda: peer.seen == [("edgeq/gw/state", b"online")])
        process.kill()
        await process.wait()
        await asyncio.to_thread(peer.wait, lambda: len(peer.messages) == 2)
    assert peer.seen[1] == ("edgeq/gw/state", b"offline")


@versions
async def test_a_clean_stop_keeps_the_session_on_the_broker(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a": 1}, version=version) as rig:
        await rig.ready()
    async with running(broker.url, {"a": 1}, version=version) as rig:
        await rig.ready()
        assert rig.session._connection is not None
        assert rig.session._connection.welcome.session_present


@versions
async def test_publishing_waits_for_the_broker(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"in": 1}, version=version) as rig:
        with pytest.raises(NotConnected, match="not connected"):
            await rig.session.publish("out", b"early")
        await rig.ready()
        with Peer(broker.port, "out") as peer:
            await asyncio.gather(*[rig.session.publish("out", payload) for payload in numbers(100)])
            await rig.session.publish("out", b"zero", qos=0)
            await rig.session.publish("out", b"kept", retain=True)
            await asyncio.to_thread(peer.wait, lambda: len(peer.messages) == 102)
            assert [payload for _, payload in peer.seen] == [*numbers(100), b"zero", b"kept"]
        with Peer(broker.port, "out") as late:
            await asyncio.to_thread(late.wait, lambda: late.seen == [("out", b"kept")])
        with pytest.raises(ValueError, match="wildcard"):
            await rig.session.publish("out/#", b"")
        await rig.session.publish("large", b"x" * 20_000_000)  # more than the socket takes at once
        assert rig.session.connections == 1


async def test_publishing_more_than_the_broker_takes_fails(mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto("max_packet_size 1000")
    async with running(broker.url, {"in": 1}) as rig:
        await rig.ready()
        with pytest.raises(PublishFailed, match="more than the broker takes"):
            await rig.session.publish("out", b"x" * 1000)
        await rig.session.publish("out", b"x" * 500)
        assert rig.session.connections == 1


async def test_a_message_that_the_broker_refuses(mosquitto: Callable[..., Mosquitto], tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite edgeq/#\n")
    acl.chmod(0o644)
    async with running(mosquitto(f"acl_file {acl}").url, {"a": 1}, version="5") as rig:
        await rig.ready()
        with pytest.raises(PublishFailed, match="Not authorized"):
            await rig.session.publish("out", b"")


@versions
async def test_the_broker_may_be_absent_at_start(mosquitto: Callable[..., Mosquitto], version: str) -> None:
    port = free_port()
    async with running(f"mqtt://127.0.0.1:{port}", {"a": 1}, version=version) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("unreachable", 0) >= 3)
        assert rig.session.reason == f"nothing listens at 127.0.0.1:{port}"
        assert rig.session.state is not State.CONNECTED
        mosquitto(port=port)
        await rig.ready()
        assert rig.session.reason == ""


@versions
async def test_the_broker_may_restart(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        await rig.ready()
        broker.kill()
        await rig.until(lambda: rig.session.state is not State.CONNECTED)
        assert rig.session.reason != ""
        assert rig.session.connected_since is None
        assert rig.session.disconnected_since is not None
        with pytest.raises(NotConnected):
            await rig.session.publish("out", b"")
        broker.start()
        await rig.until(lambda: rig.session.connections == 2)
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish, "a/1", "back")
        assert payloads(await rig.take(1)) == [b"back"]


async def test_a_reason_that_stays_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running(f"mqtt://127.0.0.1:{free_port()}", {"a": 1}) as rig:
        await rig.until(lambda: rig.metrics.connects.total() >= 5)
    assert [record.getMessage() for record in caplog.records if "nothing listens" in record.getMessage()] == [
        f"not connected: nothing listens at {rig.session.address}"
    ]


@versions
async def test_user_and_password(mosquitto: Callable[..., Mosquitto], tmp_path: Path, version: str) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch()
    subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
        ["mosquitto_passwd", "-b", str(passwords), "edgeq", "right"], check=True, capture_output=True
    )
    passwords.chmod(0o644)
    broker = mosquitto(f"password_file {passwords}", "allow_anonymous false")
    async with running(broker.url, {"a": 1}, version=version, username="edgeq", password="wrong") as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("refused", 0) >= 2)
        assert rig.session.reason.startswith("the broker refused the connection: ")
        assert "uthori" in rig.session.reason
        assert "wrong" not in rig.session.reason
    async with running(broker.url, {"a": 1}, version=version, username="edgeq", password="right") as rig:
        await rig.ready()


@versions
async def test_another_client_with_our_id(broker: Mosquitto, version: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(broker.url, {"a": 1}, version=version) as rig:
        for number in (1, 2, 3):
            await rig.ready()
            assert rig.session.connections == number
            with Peer(broker.port, client_id="edgeq-gw"):
                await rig.until(lambda: rig.session.state is not State.CONNECTED)
        again = "the broker closed the connection again and again: does another client use our client id 'edgeq-gw'?"
        await rig.until(lambda: f"not connected: {again}" in caplog.messages)


@versions
async def test_an_inbox_that_is_full_stops_the_reading_and_nothing_is_lost(
    mosquitto: Callable[..., Mosquitto], version: str
) -> None:
    broker = mosquitto("max_queued_messages 0", "max_inflight_messages 0")
    inbox = Inbox(capacity=10)
    async with running(broker.url, {"a/#": 1}, version=version, inbox=inbox, keepalive=KEEPALIVE) as rig:
        await rig.ready()
        filler = b"x" * 20_000
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, [("a/b", b"%d %s" % (n, filler)) for n in range(200)])
        await rig.until(lambda: inbox.full)
        waiting = len(inbox)
        assert waiting < 20
        heard = broker.log.count("Received PINGREQ from edgeq-gw")
        await rig.until(lambda: broker.log.count("Received PINGREQ from edgeq-gw") >= heard + 2)
        assert len(inbox) == waiting
        assert rig.session.state is State.CONNECTED
        deliveries = await rig.take(200)
        assert [payload.split()[0] for payload in payloads(deliveries)] == numbers(200)
        assert rig.session.connections == 1


@versions
async def test_a_quiet_connection_outlives_its_keepalive(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a/#": 1}, version=version, keepalive=KEEPALIVE) as rig:
        await rig.ready()
        await rig.until(lambda: broker.log.count("PINGRESP to edgeq-gw") >= 2)
        assert rig.session.connections == 1
        assert rig.session.state is State.CONNECTED


@versions
async def test_stopping_in_two_steps(broker: Mosquitto, version: str) -> None:
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, numbered(5))
            taken = await rig.take(5, ack=False)
            rig.session.stop_reading()
            assert await rig.inbox.get_batch(10) == []
            await asyncio.to_thread(peer.publish, "a/b", "late")
        await rig.session.publish("out", b"still")  # the late message has been read by now
        assert len(rig.inbox) == 0
        assert rig.session.ack(taken) == 5
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        assert payloads(await rig.take(1)) == [b"late"]


def test_settings_that_cannot_work_are_refused() -> None:
    for url in ("http://host", "mqtt://", "mqtt://user:secret@host", "mqtt://host/path", "mqtt://host:99999"):
        with pytest.raises(ValueError, match=r"mqtt|URL") as caught:
            Rig(url, {})
        assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="wildcard"):
        Rig("mqtt://host", {}, status_topic="a/#")
    assert str(Rig("mqtt://[::1]", {}).session.address) == "[::1]:1883"
    assert Rig("mqtts://host", {}).session.address.port == 8883
