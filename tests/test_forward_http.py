"""By HTTP, with a real server: each of its faults, and a real site."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.forwarding import add, forwarder, settings
from support.stores import Database
from support.targets import Answer, HttpTarget, closing
from test_ingest import TOKEN, Site

from edgeq.clock import Clock
from edgeq.forward.http import HttpTarget as Target
from edgeq.forward.target import Away, Parcel, Refused, Taken
from edgeq.store import events
from edgeq.store.forwarded import Batch
from edgeq.store.store import Store
from edgeq.testing import until
from edgeq.testing.clock import NOON
from edgeq.units import Duration


@pytest.fixture
def server() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as made:
        yield made


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with database.opened() as made:
        yield made


def parcel() -> Parcel:
    return Parcel(Batch("gw", "s1", 7, (5, 7), []), [b'{"id":5}', b'{"id":7}'], NOON)


async def send(url: str, **keys: Any) -> object:
    return await Target(settings(url, **{"timeout": Duration(60), **keys})).send(parcel())


async def test_what_a_request_is(server: HttpTarget) -> None:
    assert isinstance(await send(server.url, token="t0ken", headers={"X-Site": "a"}), Taken)
    (request,) = server.requests
    assert request.method == "POST"
    assert json.loads(request.body) == {"gateway": "gw", "store": "s1", "head": 7, "events": [{"id": 5}, {"id": 7}]}
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert request.headers["Idempotency-Key"] == "s1:5-7"
    assert (request.headers["Content-Type"], request.headers["X-Site"]) == ("application/json", "a")
    plain = request.body
    answer = await send(server.url, gzip=True)
    packed = server.requests[1]
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain
    assert answer == Taken(len(packed.body))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Taken), (202, Taken), (204, Taken), (400, Refused), (422, Refused), (413, Refused), (301, Away),
        (401, Away), (403, Away), (404, Away), (405, Away), (409, Away), (415, Away), (429, Away), (500, Away),
        (503, Away),
    ],
)  # fmt: skip
async def test_what_an_answer_means(server: HttpTarget, status: int, expected: type[object]) -> None:
    server.answers.append(Answer(status, (("Retry-After", "17"),), body=b"because"))
    answer = await send(server.url)
    assert isinstance(answer, expected)
    if isinstance(answer, Refused):
        assert answer.too_large == (status == 413)
    if isinstance(answer, Away):
        assert answer.after_seconds == (17.0 if status in (429, 503) else None)
        assert str(status) in answer.reason


@pytest.mark.parametrize("way", ["cut", "hang", "garbage", "drip"])
async def test_what_is_no_answer(server: HttpTarget, way: str) -> None:
    server.answers.append(Answer(way=way))
    assert isinstance(await send(server.url, timeout=Duration(1)), Away)


async def test_a_web_page_is_not_the_sites_answer(server: HttpTarget) -> None:
    page = (("Content-Type", "text/html; charset=utf-8"),)
    html = b"\n<!doctype html><title>Welcome to our network</title>"
    server.answers.append(Answer(200, page, body=html))
    answer = await send(server.url)
    assert isinstance(answer, Away)
    assert "200 with a web page" in answer.reason
    server.answers.append(Answer(413, page, body=html))  # a proxy says it so
    assert isinstance(await send(server.url), Refused)
    server.answers.append(Answer(200, page, body=b"ok"))
    assert isinstance(await send(server.url), Taken)
    server.answers.append(Answer(200, page, body=b""))
    assert isinstance(await send(server.url), Taken)


async def test_nothing_secret_is_told(server: HttpTarget) -> None:
    server.answers.append(Answer(500, body=b"you sent s3cr3t-token"))
    answer = await send(server.url, token="s3cr3t-token")
    assert isinstance(answer, Away)
    assert "s3cr3t" not in answer.reason


async def test_all_arrive_once_through_every_fault(server: HttpTarget, store: Store) -> None:
    faults = [Answer(503), Answer(way="cut"), Answer(way="garbage"), Answer(401), Answer(500), Answer(413), Answer(404)]
    server.answers.extend(faults)
    await add(store, 30)
    runner = forwarder(store, Target(settings(server.url)), Clock(), batch_size=10)
    await runner.start()
    await until(lambda: runner.position == 30, "all to be sent", store=store)
    await runner.stop()
    taken = server.requests[len(faults) :]
    sent = [event["id"] for request in taken for event in json.loads(request.body)["events"]]
    assert sent == list(range(1, 31))


async def test_a_site_has_them_once_though_its_answers_get_lost(database: Database, store: Store) -> None:
    async with database.fresh().opened() as place, Site(place) as site:
        target = Target(settings(f"http://127.0.0.1:{site.port}/api/events", token=TOKEN, gzip=True))
        lost = 3

        class Lossy(Target):
            def __init__(self) -> None:
                self.place = "the site"

            async def send(self, parcel: Parcel) -> Taken | Refused | Away:
                nonlocal lost
                answer = await target.send(parcel)
                lost -= 1
                return Away("the answer is lost") if lost >= 0 else answer

        await add(store, 25, tags=("x",))
        runner = forwarder(store, Lossy(), Clock(), batch_size=10)
        await runner.start()
        await until(lambda: runner.position == 25, "all to be sent", store=store)
        await runner.stop()
        found = await events.after(place, 0, 100)
        assert [event.data["n"] for event in found] == list(range(1, 26))
        assert [event.idempotency_key for event in found] == [f"{store.id}:{n}" for n in range(1, 26)]
        assert {event.tags for event in found} == {("x", "from:gw")}
        sent = await events.after(store, 0, 100)
        assert [event.occurred_at for event in found] == [event.occurred_at for event in sent]


async def test_a_gateway_whose_database_is_an_old_copy_waits_and_says_so(database: Database, store: Store) -> None:
    async with database.fresh().opened() as place, Site(place) as site:
        later = {
            "gateway": "gw", "store": store.id, "head": 9,
            "events": [{"id": 9, "type": "reading", "occurred_at": NOON}],
        }  # fmt: skip
        assert (await site.post(later)).status == 200
        await add(store, 5)
        target = Target(settings(f"http://127.0.0.1:{site.port}/api/events", token=TOKEN))
        runner = forwarder(store, target, Clock())
        await runner.start()
        await until(lambda: runner.state == "waiting", "the answer", store=store)
        assert "restored from a backup" in runner.waiting_for
        assert "series" in runner.waiting_for
        await runner.stop()
        assert len(await events.after(place, 0, 100)) == 1
        again = forwarder(store, target, Clock(), name="cloud", series=2)
        await again.start()
        await until(lambda: again.position == 5, "all to be sent", store=store)
        await again.stop()
        assert len(await events.after(place, 0, 100)) == 6
