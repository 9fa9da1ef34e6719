"""docs/notifications.md: every block and line, in one folder and in its order; and what it claims is true."""

from __future__ import annotations

import base64
import hmac
import json
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from support.mosquitto import free_port
from support.readme import PAGES, Terminals, code, files, followed, printed, section, shows, steps, table
from support.targets import HttpTarget, closing
from test_channels_kinds import build

from edgeq.cli import silence
from edgeq.config import schema
from edgeq.imports import load_class
from edgeq.notifications import bucket, digest, links, outbox, picking, rows, silences, text, threads
from edgeq.notifications import notification as notifications
from edgeq.notifications.channels import KINDS, http, ntfy
from edgeq.notifications.channels.channel import Channel
from edgeq.notifications.functions import FUNCTIONS
from edgeq.testing.channels import notification

NOTIFICATIONS = followed(PAGES["docs/notifications.md"])
ROUTES = section("## Routes", NOTIFICATIONS)
SAMPLES = yaml.safe_load(files(NOTIFICATIONS)["kinds/edgeq.yaml"])["channels"]

# Every line that the reader types, and what it must show beside what the page prints below it.
TYPED = [
    ("edgeq check", ["channels    3: phone, journal, inbox"]),
    ("edgeq run", []),
    ("edgeq notifications test journal", []),
    ("edgeq notifications test phone", []),
    ("edgeq emit temperature.reading --subject freezer-1 --data '{\"value\": -12.4}'", []),
    ("edgeq emit door.opened --subject north --tag notification --data '{\"celsius\": -3.6}'", []),
    ("edgeq emit door.opened --subject south --tag notification", []),
    ("edgeq emit bell.rung --subject gate --tag notification", []),
    ("edgeq notifications list", []),
    ("edgeq dead-letters list", ["channel:phone  expired"]),
    ("edgeq notifications retry --channel phone", []),
    ("edgeq check -c kinds/edgeq.yaml", [f"channels    {len(SAMPLES)}: {', '.join(SAMPLES)}"]),
    ("edgeq run", []),
    ("edgeq emit level.reading --subject roof --data '{\"percent\": 4}'", []),
    ("edgeq notifications list --channel inbox --unread", []),
    ('edgeq notifications ack 1 --by night-shift --comment "on my way"', []),
    (
        "mosquitto_rr -V mqttv311 -p 18832 -t edgeq/cold-store/request/ack -e edgeq/cold-store/response/ack"
        ' -m \'{"contract": "freezer-cold"}\'',
        [],
    ),
    (
        "edgeq silence add --match contract=freezer-cold subject=freezer-2 --for 2h --comment \"being cleaned\"",
        [],
    ),
    ("edgeq emit temperature.reading --subject freezer-2 --data '{\"value\": 4}'", []),
    ("edgeq notifications list --state silenced", []),
    ("edgeq silence list", ["active", "being cleaned"]),
    ("edgeq silence expire 1", ["silence 1 is over"]),
    ("edgeq notifications list -n 1", []),
    ("edgeq notifications show 1", []),
    ("edgeq status", []),
    ("edgeq notifications read --all", ["13 marked as read"]),
    ("edgeq check -c kinds/edgeq.yaml", ["kinds/conf.d/heartbeat.yaml: fine"]),
]  # fmt: skip
PORTS = ("18832", "18833", "18834")
SECRETS = {
    "ntfy-token": "tk_1",
    "smtp-password": "secret",
    "apprise-url": "tgram://1:a/2",
    "webhook-secret": "z" * 32,
    "slack-url": "https://hooks.example.net/slack",
    "discord-url": "https://hooks.example.net/discord",
}


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


@pytest.mark.timeout(300)  # it types two dozen commands, and looks again at some
@pytest.mark.skipif(shutil.which("mosquitto_rr") is None, reason="mosquitto_rr is not installed (mosquitto-clients)")
def test_it_works_as_it_is_written(terminals: Terminals) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    pytest.importorskip("apprise", reason="the extra 'apprise' is not installed")
    ports = {port: str(free_port()) for port in PORTS}
    write(terminals.folder / "kinds", SECRETS)
    blocks = printed(NOTIFICATIONS)
    for number, ((line, note), (expected, shown)) in enumerate(
        zip(steps(NOTIFICATIONS, terminals.folder), TYPED, strict=True)
    ):
        assert line == expected
        if number == 0:
            configuration = terminals.folder / "edgeq.yaml"
            configuration.write_text(moved(configuration.read_text(), ports))
        if note == "restart":
            terminals.stop()
        see(terminals, moved(line, ports), shown, blocks.pop(number, ""), 1 if note == "status=1" else 0)
    assert blocks == {}

    # "By the link in the message: it opens a page with a button."
    told = json.loads(terminals.type("edgeq notifications show 12 --json"))
    link = told["detail"]["ack_url"]
    assert "<button>Acknowledge</button>" in urllib.request.urlopen(link).read().decode()
    urllib.request.urlopen(link, data=b"by=phone").read()
    terminals.until("edgeq notifications show 12", "acknowledged", "by phone")


def write(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir()
    for name, written in texts.items():
        (folder / name).write_text(written)


def moved(written: str, ports: Mapping[str, str]) -> str:
    """The same with ports that are free."""
    for port, free in ports.items():
        written = written.replace(port, free)
    return written


def see(terminals: Terminals, line: str, shown: list[str], block: str, status: int) -> None:
    """Type a line, and look again until it shows all of that: what is emitted isn't told at once."""
    deadline = time.monotonic() + 120
    while True:
        out = terminals.type(line, status=status)
        if all(each in out for each in shown) and shows(terminals.complaints + out, block):
            return
        assert time.monotonic() < deadline, f"{line}\n{terminals.complaints}{out}"
        time.sleep(0.1)


# What it claims


def test_the_keys_of_a_route_are_those_of_the_table() -> None:
    told = {name: code(default) for cell, default, _ in table(ROUTES) for name in code(cell)}
    fields = {field.encode_name: field.default for field in msgspec.structs.fields(schema.NotificationRoute)}
    assert set(told) == set(fields)
    defaults = {name: yaml.safe_load(default[0]) for name, default in told.items() if default}
    assert defaults == {
        "match": {}, "continue": False, "group_by": [], "group_wait": "30s", "group_interval": "5m", "repeat": [],
        "resolved": True, "escalate": [], "failover": [],
    }  # fmt: skip
    whole = schema.NotificationRoute(channels=["journal"])
    assert (whole.group_wait, whole.group_interval) == (30.0, 300.0)
    assert whole.match == schema.NotificationMatch()
    assert (whole.continue_, whole.resolved) == (False, True)
    assert [whole.group_by, whole.repeat, whole.escalate, whole.failover] == [[]] * 4
    assert [whole.title, whole.body, whole.quiet, whole.ttl] == [None] * 4
    (meaning,) = [meaning for cell, _, meaning in table(ROUTES) if cell == "`match`"]
    assert set(code(meaning)[:6]) == {field.encode_name for field in msgspec.structs.fields(schema.NotificationMatch)}


def test_the_functions_of_templates_are_all_told() -> None:
    words = ROUTES[ROUTES.index("**Words.**") : ROUTES.index("**Open and resolved.**")]
    told = {each.partition(":")[0] for each in code(words[words.index("functions behind them") :])}
    assert set(FUNCTIONS) <= told


def test_every_kind_of_channel_has_a_sample_and_a_row() -> None:
    assert {each["kind"] for each in SAMPLES.values()} == set(KINDS)
    assert {code(cell)[0] for cell, _, _ in table(section("## Channels", NOTIFICATIONS))} == set(KINDS)


def test_the_kinds_that_people_read_are_those_with_digests() -> None:
    said = " ".join(ROUTES.split())
    told = code(said[said.index("channels that people read") : said.index("get one message")])
    found = {kind: load_class(where, Channel) for kind, where in KINDS.items()}  # type: ignore[type-abstract]
    assert set(told) == {kind for kind, channel in found.items() if channel.digests}


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


def sample(name: str, target: HttpTarget, **keys: Any) -> Channel:
    """A channel as the page has it, but for its address."""
    written = {key: value for key, value in SAMPLES[name].items() if not key.endswith("_file")}
    return build(**{**written, "url": target.url, **keys})


async def test_the_bodies_of_chats_are_filled_in(target: HttpTarget) -> None:
    told = notification()
    for name in ("slack", "discord"):
        await sample(name, target).send(told)
    slack, discord = (json.loads(request.body) for request in target.requests)
    assert slack == {"text": f"{told.title}\n{told.body}"}
    assert discord == {"content": f"{told.title}\n{told.body}", "allowed_mentions": {"parse": []}}


async def test_the_signature_is_that_of_standard_webhooks(target: HttpTarget) -> None:
    await sample("hook", target, sign={"secret": SECRETS["webhook-secret"]}).send(notification())
    (request,) = target.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    mac = hmac.digest(SECRETS["webhook-secret"].encode(), signed, "sha256")
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"
    assert headers["webhook-id"] == headers["idempotency-key"] == json.loads(request.body)["idempotency_key"]
    assert headers["x-site"] == "cold-store"


AWAY, LIMITS = "## When the target is away", "## Limits"


@pytest.mark.parametrize(
    ("title", "said", "true"),
    [
        ("## Routes", "has failed three times", outbox.FAILOVER_ATTEMPTS == 3),
        ("## Routes", "has waited five minutes", outbox.FAILOVER_SECONDS == 300.0),
        (AWAY, "every 30 seconds at least when there is no way to it", bucket.UNREACHABLE_SECONDS_MAX == 30.0),
        (AWAY, "every 15 minutes in the end", Channel.backoff.ceiling == 900.0),
        (AWAY, "when `Retry-After` says, within an hour", http.RETRY_AFTER_SECONDS_MAX == 3600.0),
        (AWAY, "more than five others", picking.DIGEST_OVER == 5),
        (AWAY, "late by more than a minute", notifications.LATE_SECONDS == 60.0),
        (AWAY, "60 at once and then 12 a minute", (ntfy.LIMIT.burst, ntfy.LIMIT.rate) == (60, 12 / 60)),
        (AWAY, "the others have no limit", Channel.limit is None),
        (AWAY, "has failed 20 times", outbox.ATTEMPTS_MAX == 20),
        ("## Channels", "texts of up to 4 KiB", ntfy.MESSAGE_BYTES_MAX == 4096),
        ("## Acknowledging", "holds for 30 days", links.TTL_SECONDS == 30 * 86400),
        (LIMITS, "A title has 250 characters at most", text.TITLE_CHARACTERS_MAX == 250),
        (LIMITS, "a body 16 KiB", text.BODY_BYTES_MAX == 16 * 1024),
        (LIMITS, "a digest 500 lines", digest.LINES_MAX == 500),
        (LIMITS, "goes along has 8 KiB", rows.DETAIL_BYTES_MAX == 8 * 1024),
        (LIMITS, "At most 10,000 open things", threads.THREADS_MAX == 10_000),
        (LIMITS, "at most 1,000 silences, of up to 366 days", silences.SILENCES_MAX == 1000),
        (LIMITS, "of up to 366 days each", silence.LONGEST == 366 * 86400.0),
        (LIMITS, "An attempt ends within two minutes", outbox.SEND_SECONDS_MAX == 120.0),
    ],
)  # fmt: skip
def test_the_figures_in_the_text_are_true(title: str, said: str, true: bool) -> None:
    assert said in " ".join(section(title, NOTIFICATIONS).split())
    assert true


def test_the_reasons_for_which_notifications_die_are_all_told() -> None:
    words = section(AWAY, NOTIFICATIONS)
    told = set(re.findall(r"\(`(\w+)`\)", words[words.index("**What is given up.**") :]))
    source = Path(outbox.__file__).read_text()
    assert told == set(re.findall(r'_(?:give_up|bury)\((?:tx, )?row, (?:row\.attempt, )?"(\w+)"', source))
