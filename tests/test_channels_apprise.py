"""Channel `apprise` with the real library, against real servers."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from support.targets import Answer, HttpTarget, MailTarget, closing
from test_channels_config import build as built
from test_channels_kinds import build
from test_channels_webhook import await_threads_gone

from edgeq.config.section import Section
from edgeq.errors import Problem
from edgeq.notifications.channels import Channel, Retry, Sent
from edgeq.testing.channels import notification


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


def through(target: Any, **keys: Any) -> Channel:
    return build(kind="apprise", url=f"json://gw:pa55word@127.0.0.1:{target.port}/s3cret-path", **keys)


async def test_the_service_gets_title_text_and_how_bad_it_is(target: HttpTarget) -> None:
    channel = through(target)
    for severity, kind in (("info", "alert"), ("critical", "alert"), ("critical", "resolved")):
        sent = notification(severity=severity, kind=kind, title="Kühlung 1 <b>", body="冷凍庫\n- &amp;")
        assert await channel.send(sent) == Sent()
    bodies = [json.loads(request.body) for request in target.requests]
    assert [body["type"] for body in bodies] == ["info", "failure", "success"]
    assert {(body["title"], body["message"]) for body in bodies} == {("Kühlung 1 <b>", "冷凍庫\n- &amp;")}
    assert target.requests[0].path == "/s3cret-path"


async def test_a_long_text_is_cut_to_what_the_service_takes(target: HttpTarget) -> None:
    assert await through(target, max_body="300").send(notification(body="é" * 5000)) == Sent()
    (request,) = target.requests
    message = json.loads(request.body)["message"]
    assert len(message.encode()) <= 300
    assert "cut; 5000 characters in all" in message


@pytest.mark.parametrize(
    ("answer", "seconds", "down"),
    [
        (Answer(500), None, False),
        (Answer(404), None, False),
        (Answer(429, (("Retry-After", "7"),)), 7.0, True),
        (Answer(503, (("Retry-After", "99999"),)), 3600.0, True),
        (Answer(429, (("Retry-After", "soon"),)), None, True),
        (Answer(401), None, True),
        (Answer(way="cut"), None, False),
    ],
)
async def test_what_is_not_sent_is_tried_again(
    target: HttpTarget, answer: Answer, seconds: float | None, down: bool
) -> None:
    target.answers.append(answer)
    outcome = await through(target).send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.reason.startswith("apprise could not send it: ")
    assert (outcome.after_seconds, outcome.target_down) == (seconds, down)
    assert len(target.requests) == 1


async def test_without_a_way_to_the_target_no_attempt_is_counted(target: HttpTarget) -> None:
    channel = through(target)
    target.stop()
    with closing(MailTarget()) as mail:
        port = mail.port
    mailto = f"mailto://gw:pa55word@127.0.0.1:{port}?from=gw@example.net&to=ops@example.net"
    for away in (channel, build(kind="apprise", url="json://nowhere.invalid/"), build(kind="apprise", url=mailto)):
        outcome = await away.send(notification())
        assert isinstance(outcome, Retry)
        assert outcome.reason.startswith("there is no way to the target")
        assert outcome.target_down
        assert outcome.unreachable
        assert "pa55word" not in outcome.reason


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_other_services_than_web_servers_work_too() -> None:
    with closing(MailTarget(user="gw", password="pa55word")) as mail:
        url = f"mailto://gw:pa55word@127.0.0.1:{mail.port}?from=gw@example.net&to=ops@example.net"
        assert await build(kind="apprise", url=url).send(notification()) == Sent()
        (got,) = mail.mails
        assert got["Subject"] == "Freezer 1 is too warm"


@pytest.mark.parametrize("url", ["nonsense://s3cretpart/x", "tgram://s3cretpart", "tgram://"])
async def test_a_url_that_apprise_can_make_nothing_of_loses_nothing(url: str) -> None:
    outcome = await build(kind="apprise", url=url).send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.target_down
    assert "knows no service for this url" in outcome.reason
    assert "s3cretpart" not in outcome.reason


async def test_a_server_that_hangs_is_left_at_the_time_limit(target: HttpTarget) -> None:
    target.answers.append(Answer(way="drip"))
    outcome = await through(target, timeout="5s").send(notification())
    assert isinstance(outcome, Retry)
    await_threads_gone()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("tgram:/s3cret", "must be one URL as Apprise has them"),
        ("s3cret", "must be one URL as Apprise has them"),
        ("tgram://s3cret, mailto://s3cret", "must be one URL as Apprise has them"),
        ("tgram://s3cret\n", "must be one URL as Apprise has them"),
        ({"s3cret": 1}, "must be text"),
    ],
)
def test_a_wrong_url_is_a_mistake_and_is_not_shown(url: Any, words: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        channels, problems = built(kind="apprise", url=url)
    assert not channels
    (problem,) = problems
    assert problem.path == "channels.it.url"
    assert words in str(problem)
    assert "s3cret" not in str(problem) + caplog.text


def test_no_other_mistake_of_the_channel_shows_the_url() -> None:
    section = Section("channels.it", {"kind": "apprise", "url": "tgram://s3cret/1", "max_body": "1KiB"})
    problems: list[Problem] = []
    assert section.read(build(kind="apprise", url="tgram://s3cret/1").settings, problems) is not None
    assert "s3cret" not in str(section.problem("", "service tgram://s3cret/1 is gone", "tgram://s3cret/1"))


def test_without_the_library_the_configuration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    channels, problems = built(kind="apprise", url="tgram://s3cret/1")
    assert not channels
    (problem,) = problems
    assert str(problem) == (
        "edgeq.yaml:7: channels.it: kind: apprise needs the extra 'apprise': pip install 'edgeq[apprise]'"
    )


async def test_a_library_that_is_gone_meanwhile_makes_the_channel_wait(
    target: HttpTarget, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError('no module of that name')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    outcome = await through(target).send(notification())
    assert outcome == Retry("apprise can't be used: no module of that name", target_down=True)
