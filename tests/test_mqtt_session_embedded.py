"""The broker in this process."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest
from support.mosquitto import Peer, free_port
from support.sessions import payloads, running

from edgeq.config.schema import Mqtt
from edgeq.errors import EdgeqError, MissingExtra
from edgeq.mqtt.embedded import EmbeddedBroker, is_embedded


async def test_a_session_with_the_embedded_broker(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with EmbeddedBroker("embedded://") as broker:
            settings = broker.settings(Mqtt(url="embedded://", username="edgeq"))
            assert (settings.version, settings.username) == ("3.1.1", "edgeq")
            async with running(settings.url, {"a/#": 1}, version=settings.version) as rig:
                await rig.ready()
                with await asyncio.to_thread(Peer, broker.port) as peer:
                    await asyncio.to_thread(peer.publish_many, [("a/b", b"%d" % n) for n in range(50)])
                    assert payloads(await rig.take(50)) == [b"%d" % n for n in range(50)]
                    await rig.session.publish("out", b"x")
        await broker.stop()
    assert {record.name for record in caplog.records} <= {"edgeq.session", "asyncio"}


async def test_the_port_one_asks_for() -> None:
    port = free_port()
    async with EmbeddedBroker(f"embedded://127.0.0.1:{port}") as broker:
        assert broker.port == port
        with pytest.raises(EdgeqError, match=f"can't listen on 127.0.0.1:{port}") as caught:
            await EmbeddedBroker(f"embedded://127.0.0.1:{port}").start()
        assert caught.value.hint


@pytest.mark.parametrize(
    "url", ["embedded://0.0.0.0:1883", "embedded://host", "mqtt://127.0.0.1", "embedded://:x", "embedded:///path"]
)
def test_it_listens_nowhere_else(url: str) -> None:
    with pytest.raises(ValueError, match="must be embedded://"):
        EmbeddedBroker(url)


def test_which_url_asks_for_it() -> None:
    assert is_embedded("embedded://")
    assert not is_embedded("mqtt://localhost")


async def test_without_amqtt_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)
    with pytest.raises(MissingExtra, match="demo") as caught:
        await EmbeddedBroker("embedded://").start()
    assert "edgeq[demo]" in caught.value.hint
