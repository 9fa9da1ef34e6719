"""What the interface tells, and what it changes, on either kind of database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.interface import Interface
from support.stores import Database, SqliteDatabase

from edgeq.events import NewEvent
from edgeq.store import cursors, dead_letters, events, jobs, notifications
from edgeq.store.contract_states import ContractState, put
from edgeq.store.dead_letters import NewDeadLetter
from edgeq.store.jobs import NewJob
from edgeq.store.notifications import NewNotification
from edgeq.store.store import Store, Tx
from edgeq.testing import FakeClock
from edgeq.testing.clock import NOON

CONFIGURATION = """
contracts:
  - {name: "cold/room", kind: threshold, of: reading, field: value, above: 10, description: "it is cold"}
jobs: {queues: {video: {concurrency: 3}}}
"""
SECOND = 1_000_000


@pytest.fixture
async def web(database: Database, tmp_path: Path) -> AsyncIterator[Interface]:
    clock = FakeClock()
    async with (
        database.opened(clock=clock) as store,
        Interface(tmp_path, store, CONFIGURATION, clock=clock) as made,
    ):
        yield made


def event(number: int, **fields: Any) -> NewEvent:
    """The event of that second after noon."""
    at = NOON + number * SECOND
    data = json.dumps(fields.pop("data", {"value": number}))
    return NewEvent(fields.pop("type", "reading"), occurred_at=at, recorded_at=at, data_json=data, **fields)


async def add(store: Store, *several: NewEvent) -> None:
    await store.write(lambda tx: events.append(tx, several))


def ids(page: dict[str, Any]) -> list[int]:
    return [each["id"] for each in page["items"]]


# Events


async def test_events_are_found_page_by_page_the_newest_first(web: Interface) -> None:
    await add(web.store, *(event(n, subject=f"f{n % 2}") for n in range(1, 8)))
    found, before = [], ""
    while True:
        page = await web.get(f"/api/events?subject=f1&limit=2{before}")
        found += ids(page)
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert found == [7, 5, 3, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [4, 3, 2, 1]),
        ("type=door.*", [4, 3]),
        ("type=door.*&subject=b*n", [3]),
        ("type=door", []),
        ("text=OPENED%20wide", [3]),
        ("text=%22value%22", [2, 1]),
        ("text=50%25", [4]),
        ("text=5_%25", []),
        (f"since={NOON + 3 * SECOND}", [4, 3]),
        (f"until={NOON + 2 * SECOND}", [2, 1]),
        (f"since={NOON + 2 * SECOND}&until={NOON + 3 * SECOND}", [3, 2]),
    ],
)
async def test_what_is_looked_for(web: Interface, query: str, expected: list[int]) -> None:
    await add(
        web.store,
        event(1),
        event(2),
        event(3, type="door.opened", subject="barn", description="The door opened wide", data={}),
        event(4, type="door.closed", subject="gate", data={"by": "50% of [*] them"}),
    )
    assert ids(await web.get(f"/api/events?{query}")) == expected


async def test_a_search_ends_and_goes_on_where_it_ended(web: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.store.event_search.STRETCH_IDS", 3)
    monkeypatch.setattr("edgeq.store.event_search.IDS_MAX", 6)
    await add(web.store, event(0, type="rare"), *(event(n) for n in range(1, 15)))
    first = await web.get("/api/events?type=rare")
    assert (first["items"], first["next"]) == ([], 10)
    second = await web.get(f"/api/events?type=rare&before={first['next']}")
    assert (second["items"], second["next"]) == ([], 4)
    assert ids(await web.get(f"/api/events?type=rare&before={second['next']}")) == [1]


async def test_a_page_has_so_much_data_and_no_more(web: Interface) -> None:
    large = {"text": "x" * 400_000}
    await add(web.store, *(event(n, data=large) for n in range(5)))
    first = await web.get("/api/events")
    assert ids(first) == [5, 4]
    assert ids(await web.get(f"/api/events?before={first['next']}")) == [3, 2]


async def test_an_event_with_what_is_around_it(web: Interface, database: Database) -> None:
    await add(web.store, event(1), event(2, cause_id=1), event(3, cause_id=2, type="alarm"), event(4, cause_id=3))

    def caused(tx: Tx) -> None:
        jobs.add(tx, [NewJob(queue="default", kind="m:Job", args="{}", run_at=NOON)])
        notifications.add(tx, [told(event_id=3)])

    await web.store.write(caused)
    database.sql("UPDATE jobs SET cause_id = 3")
    found = await web.get("/api/events/3")
    assert (found["event"]["type"], [each["id"] for each in found["causes"]]) == ("alarm", [2, 1])
    assert [(each["what"], each["id"]) for each in found["effects"]] == [
        ("events", 4), ("jobs", 1), ("notifications", 1),
    ]  # fmt: skip
    assert "there is no event 9" in (await web.get("/api/events/9", 404))["error"]


async def test_data_that_somebody_else_has_written_is_shown_as_it_stands(web: Interface, database: Database) -> None:
    await add(web.store, event(1))
    database.sql("UPDATE events SET data = 'no json', tags = '7'")
    (found,) = (await web.get("/api/events"))["items"]
    assert (found["data"], found["tags"]) == ("no json", [])


async def test_numbers_over_time(web: Interface) -> None:
    values = [{"value": n, "room": {"level": n / 2}, "on": True, "name": "a"} for n in range(100)]
    await add(web.store, *(event(n, data=value) for n, value in enumerate(values)), event(50, data={"value": "hot"}))
    assert (await web.get("/api/fields?type=reading"))["fields"] == ["room.level", "value"]
    query = f"type=read*&since={NOON}&until={NOON + 100 * SECOND}&points=4"
    found = await web.get(f"/api/series?field=value&{query}")
    assert found["points"] == [
        [NOON + 25 * place * SECOND, 25 * place, 25 * place + 12, 25 * place + 24, 25] for place in range(4)
    ]
    assert found["complete"] is True
    nested = await web.get(f"/api/series?field=room.level&{query}&subject=nobody")
    assert nested["points"] == []
    for wrong in ("field=a..b", f"field=value&since={NOON}&until={NOON}"):
        await web.get(f"/api/series?type=reading&{wrong}", 400)


async def test_numbers_of_more_events_than_are_read(web: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.web.api.events.ROWS_MAX", 10)
    monkeypatch.setattr("edgeq.web.api.events._PAGE", 5)
    await add(web.store, *(event(n) for n in range(100)))
    query = f"type=reading&field=value&since={NOON}&until={NOON + 100 * SECOND}&points=1"
    found = await web.get(f"/api/series?{query}")
    assert found == {"field": "value", "points": [[NOON, 90.0, 94.5, 99.0, 10]], "complete": False}


# Contracts


def verdict(what: str, at: int, episode: int, **data: Any) -> NewEvent:
    return event(
        at, type=f"contract.{what}", subject="f1", data={"contract": "cold/room", "episode": episode, **data},
        idempotency_key=f"contract:cold/room:f1:{episode}:{what}:{at}",
    )  # fmt: skip


async def test_contracts_and_their_time_lines(web: Interface) -> None:
    rows = [
        ContractState("cold/room", "f1", "violated", NOON + 70 * SECOND, None, 2, "{}"),
        ContractState("cold/room", "f2", "ok", NOON, None, 0, "{}"),
        ContractState("gone", "", "unknown", NOON, None, 0, "{}"),
    ]
    await web.store.write(lambda tx: put(tx, rows))
    await add(
        web.store,
        verdict("violated", 10, 1, since=NOON + 5 * SECOND),
        verdict("violated", 20, 1, since=NOON + 5 * SECOND, reminder=1),
        verdict("resolved", 30, 1, since=NOON + 5 * SECOND),
        verdict("violated", 75, 2, since=NOON + 70 * SECOND),
    )
    cold, gone = (await web.get("/api/contracts"))["items"]
    assert (cold["name"], cold["kind"], cold["description"]) == ("cold/room", "threshold", "it is cold")
    assert [(each["subject"], each["state"]) for each in cold["states"]] == [("f1", "violated"), ("f2", "ok")]
    assert (gone["name"], gone["configured"]) == ("gone", False)
    line = await web.get(f"/api/contracts/cold%2Froom/timeline?since={NOON}")
    told = [(each["subject"], each["state"], _after(each["from"]), _after(each["to"])) for each in line["spans"]]
    assert told == [
        ("f1", "violated", 5, 30), ("f1", "ok", 30, 70), ("f1", "violated", 70, None), ("f2", "ok", 0, None),
    ]  # fmt: skip
    only = await web.get(f"/api/contracts/cold%2Froom/timeline?since={NOON + 40 * SECOND}&subject=f1")
    assert [_after(each["from"]) for each in only["spans"]] == [30, 70]
    assert "no contract" in (await web.get("/api/contracts/cold/timeline", 404))["error"]


async def test_of_many_subjects_the_worst_are_shown(web: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.web.api.contracts.SUBJECTS_MAX", 3)
    standings = {"a": "ok", "b": "unknown", "c": "ok", "d": "violated", "e": "pending"}
    rows = [
        ContractState(contract, subject, state, NOON, None, 1, "{}")
        for contract in ("cold/room", "gone")
        for subject, state in standings.items()
    ]
    await web.store.write(lambda tx: put(tx, rows))
    for contract in (await web.get("/api/contracts"))["items"]:
        assert [each["subject"] for each in contract["states"]] == ["d", "e", "b"]
        assert contract["subjects"] == {"ok": 2, "pending": 1, "unknown": 1, "violated": 1}


def _after(at: int | None) -> int | None:
    return None if at is None else (at - NOON) // SECOND


# Notifications


def told(**fields: Any) -> NewNotification:
    return NewNotification(
        **{
            "channel": "box", "severity": "warning", "title": "t", "body": "b", "fingerprint": "f",
            "created_at": NOON, **fields,
        }
    )  # fmt: skip


async def test_notifications(web: Interface, database: Database) -> None:
    await web.store.write(lambda tx: notifications.add(tx, [told(), told(channel="mail"), told(fingerprint="g")]))
    database.sql("UPDATE notifications SET state = 'dead' WHERE id = 3")
    assert ids(await web.get("/api/notifications")) == [3, 2, 1]
    assert ids(await web.get("/api/notifications?channel=box")) == [3, 1]
    assert ids(await web.get("/api/notifications?state=dead&channel=box")) == [3]
    page = await web.get("/api/notifications?limit=1")
    assert (ids(page), page["next"]) == ([3], 3)
    assert "state" in (await web.get("/api/notifications?state=lost", 400))["error"]
    assert (await web.ask("POST", "/api/notifications/3/retry")).status == 200
    assert database.sql("SELECT state FROM notifications WHERE id = 3") == [("queued",)]
    database.sql("UPDATE notifications SET state = 'sent' WHERE id = 3")
    again = await web.ask("POST", "/api/notifications/3/retry")
    assert (again.status, "is sent" in again.said["error"]) == (409, True)
    over = await web.ask("POST", "/api/notifications/3/ack")
    assert (over.status, "nothing is open of it" in over.said["error"]) == (409, True)
    for what in ("retry", "ack"):
        assert (await web.ask("POST", f"/api/notifications/9/{what}")).status == 404


# Jobs


async def test_jobs(web: Interface, database: Database) -> None:
    large = json.dumps({"text": "x" * 10_000})
    await web.store.write(lambda tx: jobs.add(tx, [NewJob(queue="default", kind="m:Job", args=large, run_at=NOON)] * 3))
    database.sql("UPDATE jobs SET state = 'dead', finished_at = 1, error = ? WHERE id = 1", "why" * 5000)
    page = await web.get("/api/jobs?limit=2")
    assert (ids(page), page["next"], len(json.dumps(page)) < 4000) == ([3, 2], 2, True)
    assert ids(await web.get("/api/jobs?before=2")) == [1]
    (dead,) = (await web.get("/api/jobs?state=dead&queue=default"))["items"]
    assert (dead["id"], len(dead["error"])) == (1, 1000)
    whole = await web.get("/api/jobs/1")
    assert (whole["args"], len(whole["error"])) == (json.loads(large), 15_000)
    assert (await web.ask("POST", "/api/jobs/1/retry")).said == {"done": True}
    again = await web.ask("POST", "/api/jobs/1/retry")
    assert (again.status, again.said["error"]) == (409, "job 1 is available: only dead ones are tried again")
    assert (await web.ask("POST", "/api/jobs/2/cancel")).status == 200
    again = await web.ask("POST", "/api/jobs/2/cancel")
    assert (again.status, again.said["error"]) == (409, "job 2 is cancelled already")
    for path in ("/api/jobs/9/retry", "/api/jobs/9/cancel", f"/api/jobs/{2**63 - 1}/cancel"):
        assert (await web.ask("POST", path)).status == 404


async def test_queues(web: Interface, database: Database) -> None:
    assert [each["queue"] for each in (await web.get("/api/queues"))["items"]] == ["default", "video"]
    assert (await web.ask("POST", "/api/queues/video/pause")).status == 200
    assert database.sql("SELECT name FROM queues WHERE paused") == [("video",)]
    assert [each["paused"] for each in (await web.get("/api/queues"))["items"]] == [False, True]
    assert (await web.ask("POST", "/api/queues/video/resume")).status == 200
    assert database.sql("SELECT name FROM queues WHERE paused") == []
    wrong = await web.ask("POST", "/api/queues/vide/pause")
    assert (wrong.status, "did you mean 'video'" in wrong.said["error"]) == (404, True)


# Processors and dead letters


async def test_processors(web: Interface, database: Database) -> None:
    await web.store.write(lambda tx: cursors.take(tx, "sentinel", "latest", NOON))
    await add(web.store, event(1))
    (found,) = (await web.get("/api/processors"))["items"]
    assert (found["name"], found["state"], found["lag_events"]) == ("sentinel", "idle", 1)
    assert (await web.ask("POST", "/api/processors/sentinel/pause")).status == 200
    assert (await web.get("/api/processors"))["items"][0]["state"] == "paused"
    assert (await web.ask("POST", "/api/processors/sentinel/resume")).status == 200
    assert not (await cursors.every(web.store))[0].paused
    wrong = await web.ask("POST", "/api/processors/sentinal/pause")
    assert (wrong.status, "did you mean 'sentinel'" in wrong.said["error"]) == (404, True)


def letter(**fields: Any) -> NewDeadLetter:
    return NewDeadLetter(
        **{"source": "intake", "reason": "undecodable", "error": "e" * 5000, "created_at": NOON, **fields}
    )


async def test_dead_letters(web: Interface, database: Database) -> None:
    letters = [letter(payload=b"caf\xc3\xa9"), letter(payload=b"\xff" * 300_000), letter(reason="late")]
    await web.store.write(lambda tx: dead_letters.add(tx, letters))
    page = await web.get("/api/dead-letters?reason=undecodable&source=intake")
    assert (ids(page), page["next"], len(json.dumps(page)) < 4000) == ([2, 1], None, True)
    text = await web.get("/api/dead-letters/1")
    assert (text["payload"], text["payload_encoding"], text["payload_bytes"]) == ("café", "text", 5)
    octets = await web.get("/api/dead-letters/2")
    assert (octets["payload"][:6], octets["payload_encoding"], octets["payload_bytes"]) == ("//////", "base64", 300_000)
    assert len(octets["payload"]) < 360_000
    assert (await web.get("/api/dead-letters/3"))["payload"] is None
    assert (await web.ask("POST", "/api/dead-letters/1/redrive")).status == 200
    assert database.sql("SELECT id FROM dead_letters WHERE redrive_requested_at IS NOT NULL") == [(1,)]
    database.sql("UPDATE dead_letters SET redriven_at = 1 WHERE id = 1")
    assert (await web.ask("POST", "/api/dead-letters/1/redrive")).status == 409
    assert ids(await web.get("/api/dead-letters")) == [3, 2]
    assert (await web.ask("POST", "/api/dead-letters/2/discard")).status == 200
    assert database.sql("SELECT id FROM dead_letters ORDER BY id") == [(1,), (3,)]
    for what in ("redrive", "discard"):
        assert (await web.ask("POST", f"/api/dead-letters/2/{what}")).status == 404


async def test_many_dead_letters_at_once(web: Interface, database: Database) -> None:
    letters = [letter(), letter(source="job:video"), letter(reason="late"), letter(source="job:video", reason="late")]
    await web.store.write(lambda tx: dead_letters.add(tx, [*letters, letter(reason="late")]))
    database.sql("UPDATE dead_letters SET redriven_at = 1 WHERE id = 5")
    asked = await web.ask("POST", "/api/dead-letters/redrive", {"source": "intake", "reason": "late"})
    assert asked.said == {"letters": 1}
    assert database.sql("SELECT id FROM dead_letters WHERE redrive_requested_at IS NOT NULL") == [(3,)]
    assert (await web.ask("POST", "/api/dead-letters/redrive", {})).said == {"letters": 4}
    assert (await web.ask("POST", "/api/dead-letters/discard", {"source": "job:video"})).said == {"letters": 2}
    assert database.sql("SELECT id FROM dead_letters ORDER BY id") == [(1,), (3,), (5,)]
    assert (await web.ask("POST", "/api/dead-letters/discard", {"from": "intake"})).status == 400
    assert (await web.ask("POST", "/api/dead-letters/discard")).status == 415
    assert (await web.ask("POST", "/api/dead-letters/discard", {})).said == {"letters": 2}
    assert database.sql("SELECT id FROM dead_letters") == [(5,)]


# The whole


async def test_nothing_is_changed_without_the_token(web: Interface) -> None:
    described = await web.get("/api/openapi.json")
    changes = [path for path, methods in described["paths"].items() if "post" in methods and "log" not in path]
    assert len(changes) > 8
    for path in changes:
        asked = path.replace("{id}", "1").replace("{name}", "default")
        assert (await web.ask("POST", asked, {}, token="")).status == 401, path
        assert (await web.ask("POST", asked, {}, token="", X_Edgeq="1")).status == 401, path


async def test_a_session_by_its_cookie(web: Interface) -> None:
    assert (await web.get("/api/status"))["may_change"] is False
    opened = await web.ask("POST", "/api/login", {"token": "a-token-of-some-length"}, token="")
    cookie = opened.headers["Set-Cookie"]
    assert cookie.endswith("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")
    session = cookie.partition(";")[0]
    assert (await web.ask("GET", "/api/status", Cookie=session)).said["may_change"] is True
    path = "/api/queues/video/pause"
    assert (await web.ask("POST", path, {}, token="", Cookie=session)).status == 403
    assert (await web.ask("POST", path, {}, token="", Cookie=session, X_Edgeq="1")).status == 200
    ended = await web.ask("POST", "/api/logout", token="", Cookie=session)
    assert "Max-Age=0" in ended.headers["Set-Cookie"]
    assert (await web.ask("POST", path, {}, token="", Cookie=session, X_Edgeq="1")).status == 401
    over_tls = await web.ask(
        "POST", "/api/login", {"token": "a-token-of-some-length"}, token="", X_Forwarded_Proto="https"
    )
    assert over_tls.headers["Set-Cookie"].endswith("; Secure")
    for wrong in ({}, {"token": 7}, {"token": "x", "more": 1}, b"nonsense", b"\xff"):
        assert (await web.ask("POST", "/api/login", wrong, token="")).status == 400, wrong


async def test_the_status_says_who_asks(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SqliteDatabase(tmp_path).opened() as store, Interface(tmp_path, store, clock=clock) as web:
        found = await web.get("/api/status")
        assert (found["now"], found["clock"], found["needs_token"]) == (NOON, {"synchronised": True}, False)
        proxied = await web.ask("GET", "/api/status", X_Forwarded_For="192.0.2.1")
        assert proxied.status == 401
        known = await web.ask("GET", "/api/status", X_Forwarded_For="192.0.2.1", Authorization=f"Bearer {'a'}")
        assert known.status == 401
        headers = {"X_Forwarded_For": "192.0.2.1", "Authorization": "Bearer a-token-of-some-length"}
        known = await web.ask("GET", "/api/status", **headers)
        assert (known.said["may_change"], known.said["needs_token"]) == (True, True)


async def test_a_store_that_can_t_be_read_is_said(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path).opened() as store, Interface(tmp_path, store) as web:
        await store.close()
        answer = await web.ask("GET", "/api/jobs")
        assert answer.status == 503
        assert "Try again" in answer.said["error"]
        assert answer.headers["Retry-After"] == "60"


# Anything


async def test_text_that_no_database_takes_finds_nothing(web: Interface) -> None:
    described = await web.get("/api/openapi.json")
    asked = 0
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            for each in operation["parameters"]:
                texts = [each["schema"], *each["schema"].get("anyOf", [])]
                if each["in"] == "header" or all(kind.get("type") != "string" for kind in texts):
                    continue
                target = path.replace(f"{{{each['name']}}}", "a%00b")
                query = f"?{each['name']}=a%00b" if each["in"] == "query" else ""
                if "{" not in target and path != "/api/stream":
                    answer = await web.ask(method.upper(), target + query, {})
                    assert answer.status in (200, 400, 401, 404), (method, path, each["name"], answer)
                    asked += 1
    assert asked > 10
    assert (await web.ask("GET", "/api/series?type=a&field=a%00b&since=1")).status in (200, 400)
