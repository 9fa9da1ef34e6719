"""TLS, with a certificate authority of the test's own."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from support.authority import Authority
from support.fakebroker import FakeBroker, Line
from support.mosquitto import Mosquitto, free_port
from support.packets import publish
from support.sessions import payloads, running

from edgeq.config.schema import Tls
from edgeq.mqtt.client import Client
from edgeq.mqtt.inbox import Inbox
from edgeq.mqtt.session import State

versions = pytest.mark.parametrize("version", ["5", "3.1.1"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl isn't installed: apt-get install openssl")
    return Authority(tmp_path / "ca")


@pytest.fixture
def tls_broker(mosquitto: Callable[..., Mosquitto], authority: Authority) -> Mosquitto:
    cert, key = authority.certificate("broker", "DNS:localhost,IP:127.0.0.1")
    return mosquitto(
        f"cafile {authority.ca}",
        f"certfile {cert}",
        f"keyfile {key}",
        "max_inflight_messages 0",
        "max_queued_messages 0",
    )


def secure(broker: Mosquitto) -> str:
    return f"mqtts://localhost:{broker.port}"


@versions
async def test_messages_over_tls(tls_broker: Mosquitto, authority: Authority, version: str) -> None:
    sent = [b"%d %s" % (number, b"x" * 500) for number in range(400)]
    async with running(secure(tls_broker), {"a": 1}, version=version, tls=Tls(ca=authority.ca)) as rig:
        await rig.ready()
        await asyncio.gather(*[rig.session.publish("a", payload) for payload in sent])
        assert sorted(payloads(await rig.take(400))) == sorted(sent)
        await rig.session.publish("a", b"y" * 250_000)
        (large,) = await rig.take(1)
        assert large.payload == b"y" * 250_000
        assert rig.session.connections == 1


@pytest.mark.parametrize("hooked", [True, False])
@pytest.mark.parametrize("capacity", [5, 1000])
async def test_what_waits_in_the_tls_object_is_read(
    authority: Authority, hooked: bool, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many packets in one TLS record: epoll tells of the record once, and of nothing that is left of it.
    messages = [publish(b"a", b"%d" % number, mid=number + 1, properties=b"") for number in range(200)]

    async def sends_one_record(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await line.expect(0x30)  # the presence; its answer would wake the reader again
        await line.send(b"".join(messages))
        await line.serve()

    cert, key = authority.certificate("broker", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    monkeypatch.setattr(Client, "hooked", hooked)
    inbox = Inbox(capacity=capacity)
    async with (
        FakeBroker(sends_one_record, tls=context) as broker,
        running(broker.url, {"a": 1}, tls=Tls(ca=authority.ca), inbox=inbox) as rig,
    ):
        if capacity < len(messages):
            await rig.until(lambda: inbox.full)
        assert payloads(await rig.take(200)) == [b"%d" % number for number in range(200)]
        assert rig.session.connections == 1


async def test_a_certificate_that_nobody_vouches_for(tls_broker: Mosquitto) -> None:
    async with running(secure(tls_broker), {"a": 1}) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("unreachable"))
        assert rig.session.reason.startswith(f"TLS: the certificate of localhost:{tls_broker.port} isn't trusted: ")


async def test_a_certificate_for_another_name(tls_broker: Mosquitto, authority: Authority) -> None:
    url = f"mqtts://127.0.0.2:{tls_broker.port}"
    async with running(url, {"a": 1}, tls=Tls(ca=authority.ca)) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("unreachable"))
        assert rig.session.state is not State.CONNECTED


async def test_insecure_trusts_everything(tls_broker: Mosquitto) -> None:
    async with running(secure(tls_broker), {"a": 1}, tls=Tls(insecure=True)) as rig:
        await rig.ready()


async def test_a_client_certificate(mosquitto: Callable[..., Mosquitto], authority: Authority) -> None:
    cert, key = authority.certificate("broker", "DNS:localhost")
    broker = mosquitto(
        f"cafile {authority.ca}", f"certfile {cert}", f"keyfile {key}", "require_certificate true",
        "use_identity_as_username true",
    )  # fmt: skip
    own_cert, own_key = authority.certificate("gateway", "DNS:gateway")
    async with running(secure(broker), {"a": 1}, tls=Tls(ca=authority.ca)) as rig:
        await rig.until(lambda: rig.metrics.connects.total())
        assert rig.session.connections == 0
        assert rig.session.reason != ""
    async with running(secure(broker), {"a": 1}, tls=Tls(ca=authority.ca, cert=own_cert, key=own_key)) as rig:
        await rig.ready()


async def test_files_that_cannot_be_used_are_named(authority: Authority) -> None:
    cert, key = authority.certificate("gateway", "DNS:gateway")
    (authority.folder / "rubbish.pem").write_text("rubbish")
    rubbish = str(authority.folder / "rubbish.pem")
    url = f"mqtts://localhost:{free_port()}"
    for tls, named in [
        (Tls(ca="/nowhere/ca.pem"), "/nowhere/ca.pem can't be used: No such file"),
        (Tls(ca=rubbish), f"{rubbish} can't be used"),
        (Tls(ca=authority.ca, cert=rubbish, key=key), f"{rubbish} can't be used"),
        (Tls(ca=authority.ca, cert=cert, key=authority.encrypted(key)), f"{cert} can't be used"),
    ]:
        async with running(url, {"a": 1}, tls=tls) as rig:
            await rig.until(lambda rig=rig: rig.metrics.connects.values.get("unreachable"))
            assert f"TLS: {named}" in rig.session.reason


async def test_a_broker_without_tls(broker: Mosquitto) -> None:
    async with running(secure(broker), {"a": 1}, tls=Tls(insecure=True)) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("unreachable"))
        assert rig.session.reason.startswith(f"TLS: no handshake with localhost:{broker.port}")
