"""Channels as the configuration says them: every mistake is found, none shows a secret."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path
from typing import Any

import pytest

from edgeq.config.section import Section
from edgeq.errors import Problem
from edgeq.notifications import channels as module
from edgeq.notifications.bucket import Limit
from edgeq.notifications.channels import build_channels
from edgeq.testing.channels import links


def build(**keys: Any) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []
    section = Section("channels.it", keys, {"": "edgeq.yaml:7"})
    return build_channels({"it": section}, problems, publish=links().publish), problems


MAIL = {"kind": "smtp", "host": "smtp.example.net", "from": "gw@example.net", "to": ["ops@example.net"]}
HOOK = {"kind": "webhook", "url": "https://example.net/hook"}
PHONE = {"kind": "ntfy", "url": "https://ntfy.sh/my-topic"}
SIREN = {"kind": "mqtt", "topic": "siren/set"}


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "log"},
        SIREN,
        {**SIREN, "payload": "ON", "qos": 0, "retain": True},
        {**SIREN, "payload": "ON", "resolved_payload": "OFF", "rate": "1/m", "burst": 2},
        {"kind": "inbox", "digest": True},
        {"kind": "log", "rate": "1/s"},
        HOOK,
        {
            **HOOK,
            "url": "http://[::1]:8080",
            "method": "PUT",
            "headers": {"Authorization": "Bearer x"},
            "timeout": "3s",
        },
        {**HOOK, "method": "GET"},
        {**HOOK, "method": "PATCH", "redirects": ["example.net", "10.0.0.1:8443", "[::1]:80"], "max_body": "2000B"},
        {**HOOK, "rate": "1/s", "burst": 3, "digest": False, "sign": {"secret": "whsec_" + "QUJD" * 8}},
        PHONE,
        {**PHONE, "token": "tk_x", "priority": {"info": 1, "critical": 4}, "click": "https://gw/", "burst": 5},
        MAIL,
        {**MAIL, "tls": "none", "port": 2525, "username": "gw", "password": "p", "timeout": "1m"},
        {**MAIL, "host": "::1", "from": "Gateway 1 <gw@example.net>"},
    ],
)
def test_good_ones_are_built(keys: dict[str, Any]) -> None:
    built, problems = build(**keys)
    assert not problems
    assert built["it"].kind == keys["kind"]
    assert built["it"].name == "it"


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({}, ".kind", f"is missing (there is: {', '.join(module.KINDS)})"),
        ({"kind": 5}, ".kind", "must be text"),
        ({"kind": "webhok"}, ".kind", "there is no such kind: 'webhok'; did you mean 'webhook'?"),
        ({"kind": "log", "level": "info"}, ".level", "unknown key"),
        ({"kind": "mqtt"}, ".topic", "is missing"),
        ({**SIREN, "topic": "siren/+"}, ".topic", "must be a topic without wildcards"),
        ({**SIREN, "topic": ""}, ".topic", "must be a topic without wildcards"),
        ({**SIREN, "topic": "$SYS/x"}, ".topic", "must be a topic without wildcards"),
        ({**SIREN, "topic": "é" * 40_000}, ".topic", "must be at most 65535 bytes"),
        ({**SIREN, "qos": 2}, ".qos", "must be 0 or 1"),
        ({**SIREN, "resolved_payload": "OFF"}, ".resolved_payload", "needs payload as well"),
        ({**SIREN, "payload": "ON", "digest": True}, ".digest", "can't be had with payload, which is the same for all"),
        ({**SIREN, "rate": "often"}, ".rate", "must be a rate such as 100/s"),
        ({**SIREN, "rate": "1/s", "burst": 0}, ".burst", "must be between 1 and"),
        ({**SIREN, "digest": "maybe"}, ".digest", "must be true or false"),
        ({"kind": "webhook"}, ".url", "is missing"),
        ({**HOOK, "url": "ftp://example.net"}, ".url", "must be an address such as"),
        ({**HOOK, "url": "https://"}, ".url", "must be an address such as"),
        ({**HOOK, "url": "https://example.net:99999/"}, ".url", "must be an address such as"),
        ({**HOOK, "url": "https://example.net/\r\nX: y"}, ".url", "must be an address such as"),
        ({**HOOK, "url": "http://[::1/"}, ".url", "must be an address such as"),
        ({**HOOK, "url": f"http://{'x' * 70}.example/"}, ".url", "must be an address such as"),
        ({**HOOK, "method": "HEAD"}, ".method", "must be GET, POST, PUT or PATCH"),
        ({**HOOK, "method": "GET", "body": {"text": "{title}"}}, ".body", "is for requests with a body"),
        ({**HOOK, "body": "{title}"}, ".body", "must be a mapping"),
        ({**HOOK, "body": {"a": [{"b": "{tite}"}]}}, ".body", "a notification has no 'tite' (did you mean 'title'?)"),
        ({**HOOK, "body": {"a": "{detail..b}"}}, ".body", "line 1, column 2: a notification has no"),
        ({**HOOK, "body": {"a": "{title.b}"}}, ".body", "line 1, column 2: a notification has no"),
        ({**HOOK, "body": {"a": "{title"}}, ".body", "line 1, column 1: has a lone '{'"),
        ({**HOOK, "query": {"text": "{"}}, ".query.text", "line 1, column 1: has a lone '{'"),
        ({**HOOK, "max_body": "1B"}, ".max_body", "must be between 256B and 16KiB"),
        ({**HOOK, "redirects": ["https://example.net"]}, ".redirects[0]", "must be a host such as example.net"),
        ({**HOOK, "sign": {}}, ".sign.secret", "is missing"),
        ({**HOOK, "sign": {"secret": "short"}}, ".sign.secret", "must have at least 24 bytes"),
        (
            {**HOOK, "sign": {"secret": "whsec_not base64 at all, really"}},
            ".sign.secret",
            "must have at least 24 bytes",
        ),
        ({**HOOK, "sign": {"secret": "x" * 24}, "headers": {"Webhook-Id": "1"}}, "", "Webhook-Id is set by edgeq"),
        ({**HOOK, "burst": 5}, "", "burst needs rate as well"),
        ({**HOOK, "rate": "often"}, ".rate", "must be a rate such as"),
        ({"kind": "ntfy"}, ".url", "is missing"),
        ({**PHONE, "url": "https://ntfy.sh/"}, ".url", "must end with the topic"),
        ({**PHONE, "url": "https://ntfy.sh/a topic"}, ".url", "must be an address such as"),
        ({**PHONE, "url": "https://ntfy.sh/über"}, ".url", "must end with the topic"),
        ({**PHONE, "url": "https://ntfy.sh/topic?auth=abc"}, ".url", "must end with the topic"),
        ({**PHONE, "token": "tk\r\nX: y"}, ".token", "must be one line"),
        ({**PHONE, "url": "https://gw:pw@ntfy.sh/topic", "token": "tk"}, ".token", "one is enough"),
        ({**PHONE, "priority": {"urgent": 5}}, ".priority.urgent", "must be debug, info, warning or critical"),
        ({**PHONE, "priority": {"info": 6}}, ".priority.info", "must be between 1 and 5"),
        ({**PHONE, "click": "javascript:1"}, ".click", "must be an address such as"),
        ({**HOOK, "headers": {"X-A": "b\r\nX-Evil: c"}}, ".headers.X-A", "must be one line"),
        ({**HOOK, "headers": {"X-A": "冷"}}, ".headers.X-A", "must be one line of Latin-1"),
        ({**HOOK, "headers": {"X A": "b"}}, "", "'X A' is not the name of a header"),
        ({**HOOK, "headers": {"X\r\nEvil": "b"}}, "", "is not the name of a header"),
        ({**HOOK, "headers": {"content-length": "5"}}, "", "content-length is set by edgeq"),
        ({**HOOK, "timeout": "2h"}, ".timeout", "must be between 100ms and 1m"),
        ({**HOOK, "timeout": "0"}, ".timeout", "must be between 100ms and 1m"),
        ({**HOOK, "ca": "/nonexistent.pem"}, ".ca", "must be a readable file with certificates"),
        ({**HOOK, "ca": "ca.pem"}, ".ca", "must be an absolute path"),
        ({**HOOK, "ca": __file__}, ".ca", "must be a readable file with certificates"),
        ({**MAIL, "host": "smtp://example.net"}, ".host", "must be the name or address"),
        ({**MAIL, "host": ""}, ".host", "must be the name or address"),
        ({**MAIL, "port": 70_000}, ".port", "must be between 1 and 65535"),
        ({**MAIL, "to": []}, ".to", "must not be empty"),
        ({**MAIL, "to": ["ops@example.net\r\nBcc: x@example.net"]}, ".to[0]", "must be a mail address"),
        ({**MAIL, "from": "nobody at all, really"}, ".from", "must be a mail address"),
        ({**MAIL, "from": ""}, ".from", "must be a mail address"),
        ({**MAIL, "username": "gw"}, ".username", "needs password"),
        ({**MAIL, "tls": "ssl"}, ".tls", "must be starttls, tls or none"),
    ],
)
def test_wrong_ones_are_errors_that_say_where(keys: dict[str, Any], path: str, words: str) -> None:
    built, problems = build(**keys)
    assert not built
    (problem,) = problems
    assert problem.where == "edgeq.yaml:7"
    assert problem.path == f"channels.it{path}"
    assert words in str(problem)


@pytest.mark.parametrize("kind", sorted(module.KINDS))
def test_every_kind_takes_a_rate_and_says_whether_it_tells_several_in_one(kind: str) -> None:
    keys = {
        "apprise": {"url": "tgram://x/1"}, "exec": {"command": ["true"]}, "mqtt": SIREN, "ntfy": PHONE, "smtp": MAIL,
        "webhook": HOOK,
    }  # fmt: skip
    by_itself = build(**{"kind": kind, **keys.get(kind, {})})[0]["it"]
    assert by_itself.digests == (kind in ("apprise", "ntfy", "smtp", "webhook")), "people read these"
    assert (by_itself.limit is not None) == (kind == "ntfy")
    changed = {"kind": kind, **keys.get(kind, {}), "rate": "30/m", "burst": 7, "digest": not by_itself.digests}
    channel = build(**changed)[0]["it"]
    assert channel.digests is not by_itself.digests
    assert channel.limit == Limit(0.5, 7)


def test_all_mistakes_are_found_at_once_and_the_good_ones_are_built() -> None:
    problems: list[Problem] = []
    sections = {
        "good": Section("channels.good", {"kind": "log"}),
        "bad": Section("channels.bad", {"kind": "smtp", "too": 1}),
        "worse": Section("channels.worse", {"kind": "pigeon"}),
    }
    assert list(build_channels(sections, problems, publish=links().publish)) == ["good"]
    assert [problem.path for problem in problems] == [
        "channels.bad.too",
        "channels.bad.host",
        "channels.bad.from",
        "channels.bad.to",
        "channels.worse.kind",
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {**HOOK, "url": "https://gw:s3cret@example.net:99999/"},
        {**HOOK, "url": "htps://example.net/?token=s3cret"},
        {**HOOK, "headers": {"Authorization": "Bearer s3cret\r\n"}},
        {**HOOK, "sign": {"secret": "s3cret"}},
        {**PHONE, "token": "s3cret\n"},
        {**MAIL, "password": "s3cret\n"},
    ],
)
def test_secrets_are_not_shown(keys: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        built, problems = build(**keys)
    assert not built
    assert "s3cret" not in "\n".join(map(str, problems)) + caplog.text


def test_a_package_may_bring_a_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.joinpath("edgeq_pager.py").write_text(
        "from edgeq.notifications.channels.log import LogChannel\n"
        "class Pager(LogChannel):\n"
        "    kind = 'pager'\n"
        "number = 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint(name, f"edgeq_pager:{value}", module.ENTRY_POINTS)
        for name, value in (("pager", "Pager"), ("number", "number"), ("gone", "Gone"), ("log", "number"))
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points)
    built, problems = build(kind="pager")
    assert not problems
    assert built["it"].kind == "pager"
    assert "edgeq_pager:number is not a class made from Channel" in str(build(kind="number")[1][0])
    assert "edgeq_pager has no 'Gone'" in str(build(kind="gone")[1][0])
    assert build(kind="log")[0]["it"].kind == "log", "a package took the place of a kind of ours"
