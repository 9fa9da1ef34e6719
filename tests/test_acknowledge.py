"""What it means to acknowledge, and links that only this gateway can make."""

from __future__ import annotations

import asyncio
import string
from typing import Any

import pytest
from support.couriers import HOUR, SECOND, Desk, desk
from support.stores import Database
from support.targets import MailTarget, closing
from test_channels_kinds import build

from edgeq.events import Event, from_json, to_json
from edgeq.notifications.acknowledge import Note, Standing, Told, acknowledge, fault, of_contract, of_notification
from edgeq.notifications.channels import Sent
from edgeq.notifications.links import TTL_SECONDS, Links, signing_key
from edgeq.store import events, notifications
from edgeq.store.notifications import NewNotification
from edgeq.store.tables import Notifications
from edgeq.testing.channels import notification
from edgeq.testing.clock import NOON, FakeClock

ROUTE = {"channels": ["phone"], "repeat": ["1h"]}
ANN = Note(by="ann", how="command", comment="on my way")


async def ack(made: Desk, *told: Told, note: Note = ANN) -> list[Standing]:
    return await made.store.write(lambda tx: acknowledge(tx, told, note, made.clock.now()))


async def recorded(made: Desk) -> list[Event]:
    return await events.recent(made.store, limit=100, type_pattern="notification.acknowledged")


async def contracts(made: Desk, contract: str, subject: str | None = None) -> list[Told]:
    return await made.store.write(lambda tx: of_contract(tx, contract, subject))


async def about(made: Desk, notification_id: int) -> list[Told]:
    return await made.store.write(lambda tx: of_notification(tx, notification_id))


async def test_acknowledged_there_are_no_reminders_and_that_it_is_resolved_is_told(database: Database) -> None:
    async with desk(database, {**ROUTE, "escalate": [{"after": "90m", "channels": ["siren"]}]}) as made:
        await made.happens("violated")
        await made.live(3600)
        (found,) = await ack(made, *await contracts(made, "cold"))
        assert (found.state, found.news, found.by, found.acknowledged_at) == ("acknowledged", True, "ann", NOON + HOUR)
        await made.restart()
        await made.pass_time(86400)
        await made.happens("resolved")
        told = [(row.kind, row.channel) for row in await made.rows() if row.state != "silenced"]
        assert told == [("alert", "phone"), ("reminder", "phone"), ("resolved", "phone")]


async def test_steps_of_escalation_and_reminders_of_all_routes_that_wait_are_taken_back(database: Database) -> None:
    first = {"channels": ["phone"], "continue": True, "escalate": [{"after": "30m", "channels": ["siren"]}]}
    async with desk(database, first, {"channels": ["mail"], "repeat": ["30m"]}) as made:
        await made.happens("violated")
        await made.sent()
        await made.pass_time(1801)
        waiting = [(row.kind, row.channel) for row in await made.rows() if row.state == "queued"]
        assert waiting == [("alert", "siren"), ("reminder", "mail")]
        await ack(made, *await contracts(made, "cold"))
        assert [row.channel for row in await made.rows() if row.state == "queued"] == []
        await made.happens("resolved")
        assert [row.channel for row in await made.rows() if row.state == "queued"] == ["phone", "mail"]


async def test_copies_on_channels_that_stand_in_for_others_are_taken_back(database: Database) -> None:
    async with desk(database, {**ROUTE, "failover": ["mail"]}) as made:
        await made.happens("violated")
        (alert,) = await made.rows()
        copies = [
            NewNotification(
                channel="mail", severity="warning", title="copy", body="", fingerprint=fingerprint, created_at=NOON,
                kind="reminder",
            )
            for fingerprint in (alert.fingerprint, "another")
        ]  # fmt: skip
        await made.store.write(lambda tx: notifications.add(tx, copies))
        await ack(made, *await contracts(made, "cold"))
        told = [(row.channel, row.kind, row.fingerprint, row.state) for row in await made.rows()]
        assert told == [
            ("phone", "alert", alert.fingerprint, "queued"),
            ("mail", "reminder", alert.fingerprint, "silenced"),
            ("mail", "reminder", "another", "queued"),
        ]


async def test_who_acknowledged_what_and_how_is_an_event_that_nobody_is_told_of(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.happens("violated")
        await ack(made, *await contracts(made, "cold"), note=Note(by="ann\nb", how="link", comment="x" * 5000))
        (event,) = await recorded(made)
        assert event.subject == "f1"
        assert event.cause_id == 1
        assert event.data["comment"] == "x" * 999 + "…"
        expected = {"by": "ann b", "how": "link", "contract": "cold", "episode": "1", "title": "f1 violated"}
        assert expected.items() <= event.data.items()
        assert "notification" not in event.tags


async def test_the_first_one_counts_and_the_next_is_told_who_it_was(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.happens("violated")
        told = await contracts(made, "cold")
        await ack(made, *told)
        made.clock.advance(60)
        (found,) = await ack(made, *told, note=Note(by="bob", how="mqtt"))
        assert (found.state, found.news, found.by, found.acknowledged_at) == ("acknowledged", False, "ann", NOON)
        assert len(await recorded(made)) == 1


async def test_of_many_at_once_from_two_processes_one_is_the_first(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.happens("violated")
        told = await contracts(made, "cold")
        async with database.opened(clock=made.clock, beside=True) as other:
            stores = [made.store, other] * 20
            found = await asyncio.gather(
                *(
                    each.write(lambda tx, by=f"nr {number}": acknowledge(tx, told, Note(by=by, how="link"), NOON))
                    for number, each in enumerate(stores)
                )
            )
        assert sum(standing.news for (standing,) in found) == 1
        assert len({standing.by for (standing,) in found}) == 1
        assert len(await recorded(made)) == 1


async def test_one_subject_of_a_contract_or_all_of_them(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        for subject in ("f1", "f2", 'f"3%'):
            await made.happens("violated", subject=subject)
        assert len(await contracts(made, "cold", 'f"3%')) == 1
        assert await contracts(made, "cold", "f") == []
        assert await contracts(made, "col") == []
        assert await contracts(made, "f1") == []
        await made.happens("violated", subject="f4", neighbour="f5", other="warm")
        assert await contracts(made, "cold", "f5") == []
        assert await contracts(made, "warm") == []
        assert [each.news for each in await ack(made, *await contracts(made, "cold", "f1"))] == [True]
        assert [each.news for each in await ack(made, *await contracts(made, "cold"))].count(True) == 3


async def test_what_came_after_a_notification_is_not_acknowledged_by_it(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.occurs()
        (told,) = await about(made, 1)
        await made.occurs()
        (found,) = await ack(made, told)
        assert found.state == "replaced"
        assert fault([found]) == "something newer has taken its place"
        assert (await made.thread()).thread.acknowledged_at is None
        (found,) = await ack(made, *await about(made, 2))
        assert found.news


async def test_a_later_notification_of_the_same_episode_will_do(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.happens("violated")
        await made.happens("unknown")
        (found,) = await ack(made, *await about(made, 2))
        assert found.news


async def test_nothing_is_open_of_what_is_resolved_or_was_never_there(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.happens("violated")
        told = await contracts(made, "cold")
        await made.happens("resolved")
        (found,) = await ack(made, *told)
        assert found.state == "over"
        assert await about(made, 77) == []
        assert fault([]) == fault([found]) == "nothing is open of it"
        assert await recorded(made) == []


async def test_a_digest_is_about_all_that_it_tells(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.happens("violated", subject="f1")
        await made.happens("violated", subject="f2")

        def digest(tx: Any) -> int:
            new = NewNotification(
                channel="phone", severity="info", title="2", body="", fingerprint="d", created_at=NOON, kind="digest"
            )
            place = notifications.put(tx, new)
            tx.run(Notifications.update(digest_id=place, state="grouped").where(Notifications.id < place))
            return place

        place = await made.store.write(digest)
        assert [each.news for each in await ack(made, *await about(made, place))] == [True, True]


async def test_a_reminder_that_still_waits_is_not_sent_any_more(database: Database) -> None:
    async with desk(database, ROUTE) as made:
        await made.happens("violated")
        await made.sent()
        await made.pass_time(3600)
        await ack(made, *await contracts(made, "cold"))
        assert [(row.kind, row.state, row.error) for row in await made.rows()] == [
            ("alert", "sent", None), ("reminder", "silenced", "acknowledged")
        ]  # fmt: skip


# Links

KEY = b"k" * 64
LINKS = Links("https://gw.example/edgeq/", KEY)
TOLD = Told("f" * 32, 17)
TOKEN = LINKS.url(TOLD, NOON).removeprefix("https://gw.example/edgeq/ack/")


def test_a_link_says_what_it_is_about() -> None:
    assert LINKS.read(TOKEN, NOON) == TOLD
    assert set(TOKEN) <= {*string.ascii_letters, *string.digits, "-", "_", "."}
    assert TOKEN[-1].isalnum(), "mail programs leave a sign at the end of a sentence out of the link"


@pytest.mark.parametrize("at", range(0, len(TOKEN), 7))
def test_a_token_that_was_changed_anywhere_is_none(at: int) -> None:
    for sign in ("A", "z", ".", "-", "=", "é", "\0", ""):
        changed = TOKEN[:at] + sign + TOKEN[at + 1 :]
        assert changed == TOKEN or LINKS.read(changed, NOON) is None
    assert LINKS.read(TOKEN[:at], NOON) is None
    assert LINKS.read(TOKEN[at + 1 :], NOON) is None
    assert LINKS.read(TOKEN[: at + 1] + TOKEN, NOON) is None


@pytest.mark.parametrize("token", ["", ".", "..", "a", "a" * 10**6, "e30." + TOKEN.partition(".")[2], "\ud800", "%00"])
def test_what_is_no_token_is_none(token: str) -> None:
    assert LINKS.read(token, NOON) is None


def test_another_gateways_token_is_none() -> None:
    assert Links("https://gw.example", b"l" * 64).read(TOKEN, NOON) is None


def test_a_link_holds_for_thirty_days() -> None:
    end = NOON + TTL_SECONDS * SECOND
    assert LINKS.read(TOKEN, end) == TOLD
    assert LINKS.read(TOKEN, end + SECOND) == "expired"
    assert LINKS.read(TOKEN, NOON - HOUR) == TOLD, "the clock was set back"


async def test_the_key_is_made_once_and_kept(database: Database) -> None:
    async with desk(database) as made:
        keys = await asyncio.gather(*(signing_key(made.store) for _ in range(20)))
    async with desk(database) as made:
        keys.append(await signing_key(made.store))
    async with desk(database.fresh()) as other:
        assert await signing_key(other.store) not in keys
    assert len(set(keys)) == 1
    assert len(keys[0]) == 64


async def test_what_is_told_of_something_open_has_a_link(database: Database) -> None:
    async with desk(database) as made:
        await made.open(ROUTE, {"match": {"tags": ["once"]}, "channels": ["mail"]}, public_url="https://gw.example")
        links = Links("https://gw.example", await signing_key(made.store))
        await made.happens("violated")
        await made.sent()
        await made.pass_time(3600)
        await made.happens("resolved")
        rows = await made.rows()
        urls = [from_json(row.detail).get("ack_url") for row in rows]
        assert [row.kind for row in rows] == ["alert", "reminder", "resolved"]
        tokens = [str(url).removeprefix("https://gw.example/ack/") for url in urls[:2]]
        assert [links.read(token, made.clock.now()) for token in tokens] == [Told(rows[0].fingerprint, 1)] * 2
        assert urls[2] is None, "there is nothing to acknowledge"


async def test_without_an_address_there_are_no_links(database: Database) -> None:
    async with desk(database, ROUTE, clock=FakeClock()) as made:
        await made.happens("violated")
        assert "ack_url" not in (await made.rows())[0].detail


async def test_a_mail_ends_with_the_link() -> None:
    url = LINKS.url(TOLD, NOON)
    with closing(MailTarget()) as target:
        settings = {"host": "127.0.0.1", "port": target.port, "tls": "none", "from": "g@example.net"}
        channel = build(kind="smtp", to=["ops@example.net"], **settings)
        for detail in ({"ack_url": url}, {}, {"ack_url": 5}):
            assert await channel.send(notification(title="t", body="b", detail_json=to_json(detail))) == Sent()
        texts = [mail.get_content().split() for mail in target.mails]
    assert texts == [["b", "Acknowledge:", url], ["b"], ["b"]]
