"""Outbox and real channels against targets that fail in every way, and a program that is killed between two steps."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from support.outbox import Outbox, outbox
from support.stores import Database
from support.targets import Answer, HttpTarget, MailTarget, closing, until
from test_channels_kinds import build

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.notifications.channels.channel import Channel, Outcome
from edgeq.notifications.channels.http import Request
from edgeq.notifications.channels.webhook import WebhookChannel

HANGS = ("hang", "drip")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "backoff", Backoff(0.005, 0.02))


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


@pytest.fixture
async def box(database: Database) -> AsyncIterator[Outbox]:
    async with outbox(database, Clock()) as box:
        yield box


def hook(target: HttpTarget) -> Channel:
    """Gives up soon where no answer comes. Where one does, a busy machine may take its time: what was accepted while
    nobody waited any more would be sent again."""
    channel = build(kind="webhook", url=target.url, timeout="60s")
    assert isinstance(channel, WebhookChannel)
    endpoint = channel._endpoint
    ask = endpoint.ask

    async def asked(request: Request) -> Outcome:
        endpoint._timeout_seconds = 1.0 if target.answers and target.answers[0].way in HANGS else 60.0
        return await ask(request)

    endpoint.ask = asked  # type: ignore[method-assign]
    return channel


def mail(port: int) -> Channel:
    keys = {"from": "gw@example.net", "to": ["ops@example.net"]}
    return build(kind="smtp", host="127.0.0.1", port=port, tls="none", **keys)


async def test_whatever_the_server_does_nothing_is_lost_and_nothing_is_accepted_twice(
    box: Outbox, target: HttpTarget
) -> None:
    choice = random.Random(4)
    faults = [
        Answer(500),
        Answer(503, (("Retry-After", "0"),)),
        Answer(429, (("Retry-After", "0"),)),
        Answer(408),
        Answer(302, (("Location", "/elsewhere"),)),
        Answer(way="cut"),
        Answer(way="garbage"),
    ]
    taken: list[bool] = []
    for _ in range(60):
        taken.append(choice.random() < 0.5)
        target.answers.append(Answer(200) if taken[-1] else choice.choice(faults))
    target.answers.insert(30, Answer(way="hang"))
    taken.insert(30, False)
    titles = [f"n{number}" for number in range(40)]
    await box.queue(*titles, channel="hook")
    await box.start(hook(target), "hook")
    await box.until(dict.fromkeys(titles, "sent"))
    taken += [True] * (len(target.requests) - len(taken))
    accepted = [request.headers["Idempotency-Key"] for request, ok in zip(target.requests, taken, strict=False) if ok]
    assert sorted(accepted) == sorted(f"{box.store.id}-{row.id}" for row in await box.rows())


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500),
        Answer(429, (("Retry-After", "1"),)),
        Answer(503),
        Answer(way="hang"),
        Answer(way="drip"),
        Answer(way="cut"),
        Answer(way="garbage"),
        Answer(way="slow"),
    ],
    ids=lambda answer: f"{answer.status} {answer.way}",
)
async def test_each_fault_alone_loses_nothing_and_tells_nothing_twice(
    box: Outbox, target: HttpTarget, fault: Answer
) -> None:
    target.answers.extend([Answer(200), fault, Answer(200), fault, fault])
    await box.queue("alert", fingerprint="door", channel="hook")
    await box.queue("other", channel="hook", severity="critical")
    await box.queue("closed", fingerprint="door", kind="resolved", channel="hook")
    channel = hook(target)
    channel.digests = False
    await box.start(channel, "hook")
    await box.until({"alert": "sent", "other": "sent", "closed": "sent"})
    slow = fault.way == "slow"
    accepted = [target.requests[n] for n in ((0, 1, 2) if slow else (0, 2, 5))]
    assert len(target.requests) == (3 if slow else 6)
    assert [json.loads(request.body)["title"] for request in accepted] == ["other", "alert", "closed"]
    assert len({request.headers["Idempotency-Key"] for request in target.requests}) == 3


async def test_a_server_that_is_closed_for_a_while_gets_it_when_it_is_back(box: Outbox) -> None:
    with closing(MailTarget()) as gone:
        port = gone.port
    sender = await box.start(mail(port), "mail")
    await box.queue("opened", "closed", channel="mail")
    await until(lambda: sender.last_error)
    with closing(MailTarget(port=port)) as back:
        await box.until({"opened": "sent", "closed": "sent"})
        assert [mail["Subject"] for mail in back.mails] == ["opened", "closed"]
    assert (await box.row("opened")).attempt == 1


async def test_a_mail_server_that_refuses_one_mail_for_now_and_one_for_good(box: Outbox) -> None:
    with closing(MailTarget()) as target:
        target.refuse["DATA"] = ["451 4.3.0 Not now", "554 5.7.1 Spam"]
        keys = {
            "host": "127.0.0.1",
            "port": target.port,
            "tls": "none",
            "from": "gw@example.net",
            "to": ["o@example.net"],
        }
        await box.queue("later", "never", channel="mail")
        await box.start(build(kind="smtp", **keys), "mail")
        await box.until({"later": "sent", "never": "dead"})
        assert [mail["Subject"] for mail in target.mails] == ["later"]
        assert (await box.row("never")).error == "554 5.7.1 Spam"


async def test_targets_that_hang_delay_no_other_and_leave_no_threads(box: Outbox, target: HttpTarget) -> None:
    with closing(HttpTarget()) as stuck:
        stuck.answers.append(Answer(way="hang"))
        stuck.stay = True
        for number in range(12):
            await box.queue("stuck", channel=f"stuck{number}")
            await box.start(build(kind="webhook", url=stuck.url, timeout="60s"), f"stuck{number}")
        await until(lambda: len(stuck.requests) == 12)
        await box.queue("fine", channel="hook")
        await box.start(hook(target), "hook")
        await box.until({"fine": "sent"})
        assert len(stuck.requests) == 12
        for sender in box.senders:
            await sender.stop(0.0)
    for thread in threading.enumerate():
        if thread.name == "edgeq-channel":
            thread.join(60)
            assert not thread.is_alive()
