"""Channel `smtp` against a real mail server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.outbox import outbox
from support.stores import Database
from support.targets import DripTarget, MailTarget, certificate, closing
from test_channels_kinds import build
from test_channels_webhook import await_threads_gone

from edgeq.notifications.channels import Channel, Rejected, Retry, Sent
from edgeq.testing.channels import ODD_TEXTS, notification
from edgeq.testing.clock import NOON, FakeClock

Start = Callable[..., MailTarget]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def start(**options: Any) -> MailTarget:
            target: MailTarget = stack.enter_context(closing(MailTarget(**options)))
            return target

        yield start


def mail(target: Any, **keys: Any) -> Channel:
    defaults = {"host": "127.0.0.1", "port": target.port, "tls": "none", "timeout": "60s", "to": ["ops@example.net"]}
    return build(kind="smtp", **{**defaults, "from": "Gateway 1 <gw@example.net>", **keys})


async def test_a_mail_is_readable_and_recognizable(start: Start) -> None:
    target = start()
    channel = mail(target, to=["ops@example.net", "Wächter <guard@example.net>"])
    assert await channel.send(notification(title="Kühlung 1: 冷凍庫 🚪", body="Es ist zu warm:\n.\n-12 °C")) == Sent()
    (got,) = target.mails
    assert got["Subject"] == "Kühlung 1: 冷凍庫 🚪"
    assert got.get_content().splitlines() == ["Es ist zu warm:", ".", "-12 °C"]
    assert got["From"] == "Gateway 1 <gw@example.net>"
    assert got["To"] == "ops@example.net, Wächter <guard@example.net>"
    assert got["Date"] == "Thu, 01 Jan 2026 12:00:00 -0000"
    assert got["Message-ID"] == "<5e7f-7@example.net>"
    assert got["References"] == "<0123456789abcdef0123456789abcdef@example.net>"
    assert target.recipients == [["ops@example.net", "guard@example.net"]]
    assert target.raw[0].isascii()


async def test_no_text_can_add_a_header_or_a_recipient(start: Start) -> None:
    target = start()
    channel = mail(target)
    for text in ODD_TEXTS:
        await channel.send(notification(title=" ".join(text.split()) or "untitled", body=text))
    assert len(target.mails) == len(ODD_TEXTS)
    for got in target.mails:
        assert got["Bcc"] is None
        assert set(got) == set(target.mails[0])
    assert {address for each in target.recipients for address in each} == {"ops@example.net"}


async def test_any_thread_has_a_reference_that_can_stand_in_a_header(start: Start) -> None:
    target = start()
    channel = mail(target)
    for fingerprint in (
        "door-1",
        "digest:late",
        "door\r\nBcc: somebody@example.net",
        "冷凍庫",
        "a" * 5000,
        "door\r\nBcc:",
    ):
        await channel.send(notification(fingerprint=fingerprint))
    references = [str(got["References"]) for got in target.mails]
    assert references[0] == "<door-1@example.net>"
    assert len(set(references)) == len(references) == 6
    assert all(re.fullmatch(r"<[A-Za-z0-9_-]{1,64}@example\.net>", each) for each in references)


async def test_a_digest_is_one_mail_that_says_how_many(start: Start, database: Database) -> None:
    target = start()
    clock = FakeClock(NOON)
    async with outbox(database, clock) as box:
        await box.queue(*(f"door {number} open" for number in range(40)), severity="warning")
        await box.queue("door 7 closed", fingerprint="of door 7 open", kind="resolved")
        clock.advance(3600)
        await box.start(mail(target))
        await box.until({"40 late notifications, 1 resolved": "sent"})
    (got,) = target.mails
    assert got["Subject"] == "40 late notifications, 1 resolved"
    lines = got.get_content().splitlines()
    assert sum(line.startswith("- ") for line in lines) == 40
    assert any(re.match(r"- warning: door 7 closed \(opened [^)]+, resolved ", line) for line in lines)


async def test_what_the_server_said_of_the_mail_is_the_answer(start: Start) -> None:
    outcome = await mail(start()).send(notification())
    assert isinstance(outcome, Sent)
    assert outcome.answer == "250 OK"


async def test_a_critical_one_is_marked_and_an_empty_body_is_filled(start: Start) -> None:
    target = start()
    await mail(target).send(notification(severity="critical", title="Fire", body=""))
    (got,) = target.mails
    assert got["Importance"] == "high"
    assert got.get_content().strip() == "Fire"


# The server knows only of TLS that it began itself, not that it stands behind it.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("way", ["starttls", "tls"])
async def test_tls_and_password(start: Start, tmp_path: Path, way: str) -> None:
    tls, ca = certificate(tmp_path)
    target = start(user="gw@example.net", password="s3cret", tls=tls, starttls=way == "starttls")
    assert await mail(target, tls=way, ca=ca, password="s3cret").send(notification()) == Sent()
    assert target.encrypted == [True]

    untrusted = await mail(target, tls=way, password="s3cret").send(notification())
    assert isinstance(untrusted, Retry)
    assert untrusted.target_down
    assert "certificate" in untrusted.reason

    wrong = await mail(target, tls=way, ca=ca, password="wr0ng").send(notification())
    assert isinstance(wrong, Retry)
    assert wrong.target_down, "a wrong password is no reason to give a notification up"
    assert "535" in wrong.reason
    assert "wr0ng" not in wrong.reason
    assert len(target.mails) == 1


async def test_without_starttls_nothing_is_sent_in_the_clear(start: Start) -> None:
    target = start()
    outcome = await mail(target, tls="starttls", password="s3cret").send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.target_down
    assert "STARTTLS" in outcome.reason
    assert not target.mails


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_4xx_is_tried_again_and_5xx_given_up(start: Start, command: str) -> None:
    target = start()
    channel = mail(target)
    target.refuse[command] = ["451 4.3.0 Not now"]
    later = await channel.send(notification())
    assert isinstance(later, Retry)
    assert not later.target_down
    assert "451 4.3.0 Not now" in later.reason

    assert await channel.send(notification()) == Sent()

    target.refuse[command] = ["550 5.7.1 Never"]
    never = await channel.send(notification())
    assert isinstance(never, Rejected)
    assert "550 5.7.1 Never" in never.reason


@pytest.mark.parametrize("answer", ["421 4.3.2 Shutting down", "530 5.7.0 Authentication required"])
async def test_a_server_that_takes_no_mail_from_us_makes_the_channel_wait(start: Start, answer: str) -> None:
    target = start()
    target.refuse["MAIL"] = [answer]
    outcome = await mail(target).send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.target_down


async def test_one_refused_recipient_does_not_keep_it_from_the_others(start: Start) -> None:
    target = start()
    target.refuse["RCPT"] = ["550 5.1.1 Nobody here"]
    outcome = await mail(target, to=["gone@example.net", "ops@example.net"]).send(notification())
    assert outcome == Sent(missed="gone@example.net: 550 5.1.1 Nobody here")
    assert target.recipients == [["ops@example.net"]]


@pytest.mark.parametrize("way", ["none", "starttls", "tls"])
async def test_a_server_that_only_drips_is_cut_off(way: str) -> None:
    with closing(DripTarget()) as drip:
        outcome = await mail(drip, tls=way, timeout="300ms").send(notification())
        assert isinstance(outcome, Retry)
        assert outcome.target_down
        await_threads_gone()


async def test_the_answer_to_the_mail_is_final_even_if_the_server_hangs_after_it(start: Start) -> None:
    target = start(hang_at_quit=True)
    assert await mail(target, timeout="30s").send(notification()) == Sent()
