"""`POST /api/events`: programs and gateways hand events over by HTTP."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import itertools
import json
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.appliance import Appliance
from support.mosquitto import free_port
from support.stores import Database

from edgeq.clock import Clock
from edgeq.forward import wire
from edgeq.store import events
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until
from edgeq.web.access import Access
from edgeq.web.ingest import BYTES_MAX, Ingest
from edgeq.web.operation import pages_of
from edgeq.web.server import WebServer

TOKEN = "a-token-of-some-length"


class Answered(NamedTuple):
    status: int
    said: dict[str, Any]
    headers: dict[str, str]


class Site:
    """A site that listens on `port`."""

    def __init__(self, store: Store, token: str | None = TOKEN) -> None:
        self.store = store
        self.metrics = Metrics()
        self.port = free_port()
        listen = f"127.0.0.1:{self.port}"
        access = Access(listen, token, None, Clock())
        operations = Ingest(access, store, self.metrics, Clock()).operations()
        self.server = WebServer(listen, Clock(), pages_of(operations, access))

    async def post(self, body: bytes | Any, token: str = TOKEN, **headers: str) -> Answered:
        """What it answers."""
        given = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await asyncio.to_thread(self._post, content, given)

    def _post(self, content: bytes, headers: dict[str, str]) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/api/events", content, headers)
            answer = connection.getresponse()
            text = answer.read()
            said = json.loads(text) if answer.headers["Content-Type"] == "application/json" else {}
            return Answered(answer.status, said, dict(answer.headers.items()))
        finally:
            connection.close()

    async def stored(self) -> list[dict[str, Any]]:
        return [event.as_dict() for event in await events.after(self.store, 0, 1000)]

    async def __aenter__(self) -> Site:
        await self.server.start()
        await until(self._listens, "the site to listen")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


@pytest.fixture
async def site(database: Database) -> AsyncIterator[Site]:
    async with database.opened() as store, Site(store) as made:
        yield made


def batch(*ids: int, gateway: str = "gw", store: str = "s1", head: int = 0, **fields: Any) -> dict[str, Any]:
    sent = [{"id": n, "type": "reading", "occurred_at": 1_700_000_000_000_000 + n, **fields} for n in ids]
    return {"gateway": gateway, "store": store, "head": head or max(ids), "events": sent}


async def test_an_event_is_stored_as_it_was_sent(site: Site) -> None:
    sent = {
        "type": "door.opened", "subject": "barn", "data": {"n": 1.50, "who": ["a"]}, "tags": ["x"],
        "description": "the door", "occurred_at": "2026-01-01T12:00:00Z", "idempotency_key": "k1", "topic": "a/b",
    }  # fmt: skip
    assert (await site.post(sent))[:2] == (200, {"stored": 1, "duplicates": 0})
    assert (await site.post(sent))[:2] == (200, {"stored": 0, "duplicates": 1})
    (found,) = await site.stored()
    assert {name: found[name] for name in sent} == {**sent, "occurred_at": 1_767_268_800_000_000}
    assert site.metrics.events.total() == 1


@pytest.mark.parametrize(
    "body",
    [
        b'[{"type": "a"}, {"type": "b"}]',
        b'{"type": "a"}\n{"type": "b"}\n',
        b'{"type": "a"}\r\n\r\n{"type": "b"}',
        gzip.compress(b'[{"type": "a"}, {"type": "b"}]', mtime=0),
    ],
    ids=["array", "lines", "lines of Windows", "packed"],
)
async def test_several_at_once(site: Site, body: bytes) -> None:
    packed = {"Content_Encoding": "gzip"} if body.startswith(b"\x1f") else {}
    assert (await site.post(body, **packed))[:2] == (200, {"stored": 2, "duplicates": 0})
    assert [event["type"] for event in await site.stored()] == ["a", "b"]


async def test_a_request_that_is_made_again_stores_nothing_twice(site: Site) -> None:
    body = [{"type": "a"}, {"type": "b", "idempotency_key": "own"}]
    for expected in ({"stored": 2, "duplicates": 0}, {"stored": 0, "duplicates": 2}):
        assert (await site.post(body, Idempotency_Key="once")).said == expected
    assert (await site.post(body, Idempotency_Key="another")).said == {"stored": 1, "duplicates": 1}


async def test_a_batch_of_a_gateway_has_its_keys_and_its_tag(site: Site) -> None:
    assert (await site.post(batch(3, 4))).said == {"stored": 2, "duplicates": 0}
    assert (await site.post(batch(3, 4, 5))).said == {"stored": 1, "duplicates": 2}
    found = await site.stored()
    assert [event["idempotency_key"] for event in found] == ["s1:3", "s1:4", "s1:5"]
    assert {tuple(event["tags"]) for event in found} == {("from:gw",)}


async def test_a_gateway_that_has_gone_back_is_told_so(site: Site) -> None:
    await site.post(batch(8, 9))
    answer = await site.post(batch(5, head=7))
    assert answer.status == 409
    assert "restored from a backup" in answer.said["error"]
    other = batch(9, 10)
    other["events"][0]["occurred_at"] += 1
    assert (await site.post(other)).status == 409, "what is called 9 now is another event"
    assert len(await site.stored()) == 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no event"),
        (b"nonsense", 400, "no event"),
        (b'{"type": "a"', 400, "no event"),
        (b'[{"type": "a"}, {"subject": "b"}]', 400, "event 1"),
        (b'{"type": ""}', 400, "no type"),
        (b'{"type": "a\\u0000"}', 400, "null character"),
        (b'{"type": "a", "data": {"x": NaN}}', 400, "event"),
        (b'{"type": "a", "occurred_at": "yesterday"}', 400, "no time"),
        (b'{"type": "a", "data": ' + b"[" * 101 + b"]" * 101 + b"}", 400, "nested"),
        (b'{"type": "a", "data": "\xff"}', 400, "UTF-8"),
        (b'{"gateway": "g", "store": "s", "head": 1, "events": [{"type": "a"}]}', 400, "id"),
        (b'{"gateway": "g", "store": "s", "head": 1, "events": [{"type": "a", "id": 2}]}', 400, "head"),
        (b"[" + b",".join([b'{"type":"a"}'] * 10_001) + b"]", 413, "more than"),
        (b" " * (BYTES_MAX + 1), 413, ""),
    ],
    ids=itertools.count(),
)
async def test_what_is_wrong_is_said_and_nothing_of_it_stored(site: Site, body: bytes, status: int, words: str) -> None:
    answer = await site.post(body)
    assert answer.status == status
    assert words in answer.said.get("error", "")
    assert await site.stored() == []


async def test_a_bomb_is_refused(site: Site) -> None:
    bomb = gzip.compress(b'{"type": "a", "data": "' + b"x" * 50_000_000 + b'"}')
    assert len(bomb) < BYTES_MAX
    assert (await site.post(bomb, Content_Encoding="gzip")).status == 413
    half = gzip.compress(b'{"type": "a"}')[:-6]
    assert (await site.post(half, Content_Encoding="gzip")).status == 400
    assert (await site.post(b'{"type": "a"}', Content_Encoding="gzip")).status == 400


async def test_only_json_is_taken(site: Site) -> None:
    assert (await site.post(b"type=a", Content_Type="application/x-www-form-urlencoded")).status == 415
    assert (await site.post(b'{"type": "a"}', Content_Encoding="br")).status == 415


async def test_strangers_can_store_nothing(site: Site) -> None:
    answer = await site.post({"type": "a"}, token="a-token-of-another")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (await site.post(b" " * 5000, token="wrong")).status == 413, "and have no room to fill"
    assert (await site.post({"type": "a"}, Authorization=f"Basic {TOKEN}")).status == 401
    assert await site.stored() == []


async def test_without_a_token_nobody_can(database: Database) -> None:
    async with database.opened() as store, Site(store, token=None) as site:
        answer = await site.post({"type": "a"}, token="")
        assert answer.status == 403
        assert "set web.token_file" in answer.said["error"]


def test_a_token_is_not_to_be_guessed(tmp_path: Path) -> None:
    from edgeq.config.load import load
    from edgeq.errors import ConfigError

    path = tmp_path / "edgeq.yaml"
    (tmp_path / "token").write_text("short\n")
    path.write_text("web: {listen: 127.0.0.1:8321, token_file: token}\n")
    with pytest.raises(ConfigError, match="at least 16") as failed:
        load(str(path))
    assert "short" not in str(failed.value)


async def test_the_same_key_stores_once_though_edgeq_was_killed_in_between(tmp_path: Path) -> None:
    port = free_port()
    edgeq = Appliance(
        tmp_path,
        f'gateway: gw\nmqtt: {{url: "mqtt://127.0.0.1:1"}}\nstore: {{url: edgeq.db}}\n'
        f'web: {{listen: "127.0.0.1:{port}", token: {TOKEN}}}\n',
    )  # fmt: skip

    def post() -> dict[str, Any] | None:
        """What it says; None when it was killed first."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {
            "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Idempotency-Key": "the-order",
        }  # fmt: skip
        try:
            connection.request("POST", "/api/events", b'[{"type": "a"}, {"type": "b"}]', headers)
            said: dict[str, Any] = json.loads(connection.getresponse().read())
            return said
        except (http.client.HTTPException, OSError):
            return None
        finally:
            connection.close()

    def listens() -> bool:
        return "listening on" in edgeq.log

    try:
        process = edgeq.spawn(EDGEQ_FAILPOINT="web.stored:1")
        edgeq.until(listens, "the site to listen")
        assert post() is None
        assert process.wait(60) == -signal.SIGKILL
        edgeq.log_file.unlink()
        edgeq.spawn()
        edgeq.until(listens, "the site to listen again")
        assert post() == {"stored": 0, "duplicates": 2}
        assert edgeq.sql("SELECT type, idempotency_key FROM events") == [
            ("a", "api/the-order/0"), ("b", "api/the-order/1"),
        ]  # fmt: skip
    finally:
        edgeq.kill()


async def test_a_large_body_holds_nobody_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read, others are answered."""
    reading, go_on = threading.Event(), threading.Event()

    def held(content: bytes, now: int) -> Any:
        if len(content) > 100_000:
            reading.set()
            assert go_on.wait(60)
        return read(content, now)

    read = wire.read
    monkeypatch.setattr(wire, "read", held)
    large = asyncio.create_task(site.post([{"type": "large", "data": {"text": "x" * 200_000}}]))
    assert await asyncio.to_thread(reading.wait, 60)
    assert (await site.post({"type": "small"})).status == 200
    go_on.set()
    assert (await large).status == 200
