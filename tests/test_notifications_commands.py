"""`edgeq notifications`: what is found, changed, tried out and refused, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.commands import Edgeq, commands, store
from support.mosquitto import Mosquitto, Peer
from support.programs import script
from support.stores import Database
from support.targets import Answer, HttpTarget, MailTarget, closing

from edgeq.clock import Clock
from edgeq.notifications.picking import Terms, pick
from edgeq.store import dead_letters, notifications, outbox, threads
from edgeq.store.dead_letters import NewDeadLetter
from edgeq.store.notifications import NewNotification
from edgeq.store.store import Tx
from edgeq.store.threads import Thread, ThreadText

CONFIGURATION = "gateway: g\nstore: {url: edgeq.db}\n"
SECOND = 1_000_000


@pytest.fixture
def edgeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Database
) -> Iterator[Edgeq]:
    """Calls commands in a folder with an empty database."""
    for call in commands(CONFIGURATION, tmp_path, monkeypatch, capsys, database):
        store()
        yield call


def configure(channels: Any, **more: Any) -> None:
    """Have these channels in the configuration."""
    values = {"gateway": "g", "store": {"url": "edgeq.db"}, "channels": channels, **more}
    Path("edgeq.yaml").write_text(json.dumps(values))  # which is YAML, too


def new(title: str, **given: Any) -> NewNotification:
    """A notification to queue, raised a minute ago."""
    then = Clock().now() - 60 * SECOND
    fields = {"channel": "phone", "severity": "info", "body": "", "fingerprint": f"of {title}", "created_at": then}
    return NewNotification(title=title, **{**fields, **given})


def queue(*titles: str, **given: Any) -> None:
    store(lambda tx: notifications.add(tx, [new(title, **given) for title in titles]))


def die(*ids: int, channel: str = "phone") -> None:
    """Make these dead, as a sender does."""

    def unit(tx: Tx) -> None:
        for each in ids:
            outbox.mark_dead(tx, each, attempt=20, error="failed 20 times")
            letter = NewDeadLetter(
                source=f"channel:{channel}", reason="attempts", error="failed", created_at=1,
                detail={"notification_id": each},
            )  # fmt: skip
            dead_letters.add(tx, [letter])

    store(unit)


def sent(*ids: int) -> None:
    store(lambda tx: [outbox.mark_sent(tx, each, attempt=1, now=Clock().now()) for each in ids])


def found(edgeq: Edgeq, *words: str) -> list[dict[str, Any]]:
    """The notifications that a listing gives, newest first."""
    return [json.loads(line) for line in edgeq("notifications", "list", "--json", *words).out.splitlines()]


def titles(edgeq: Edgeq, *words: str) -> list[str]:
    return [each["title"] for each in found(edgeq, *words)]


# Looking


def test_the_latest_are_listed_by_what_one_looks_for(edgeq: Edgeq) -> None:
    assert edgeq("notifications", "list").out == "no notifications\n"
    queue("one", "two")
    queue("three", channel="mail", severity="critical")
    queue("four", created_at=Clock().now() - 7200 * SECOND)
    sent(1)
    die(2)
    assert titles(edgeq) == ["four", "three", "two", "one"]
    assert titles(edgeq, "-n", "1") == ["four"]
    assert titles(edgeq, "--channel", "mail") == ["three"]
    assert titles(edgeq, "--severity", "critical") == ["three"]
    assert titles(edgeq, "--state", "dead") == ["two"]
    assert titles(edgeq, "--since", "1h") == ["three", "two", "one"]
    assert titles(edgeq, "--state", "queued", "--channel", "phone", "--since", "1h") == []
    lines = edgeq("notifications", "list").out.splitlines()
    assert lines[0].split() == ["id", "raised", "channel", "severity", "kind", "state", "title", "error"]
    assert lines[3].split()[-4:] == ["two", "failed", "20", "times"]
    assert edgeq("notifications", "list", "--state", "lost").status == 2


def test_a_queued_one_says_until_when_it_is_held(edgeq: Edgeq) -> None:
    queue("later", not_before=4_070_908_800 * SECOND)
    assert "queued (until 2099-01-01T00:00:00.000Z)" in edgeq("notifications", "list").out


def test_nothing_in_a_text_reaches_the_terminal_as_a_command(edgeq: Edgeq) -> None:
    queue("\x1b[31mred", body="\x1b]0;title\x07")
    for words in (("list",), ("list", "--json"), ("show", "1"), ("show", "1", "--json")):
        out = edgeq("notifications", *words).out
        assert out
        assert "\x1b" not in out
        assert "\x07" not in out


def test_one_is_shown_whole(edgeq: Edgeq) -> None:
    queue("door open", body="since noon\nfor 2h", detail='{"type":"door.opened","subject":"d1"}', failover=("mail",))
    die(1)
    done = edgeq("notifications", "show", "1")
    fields = dict(line.split(None, 1) for line in done.out.splitlines() if not line.startswith(" "))
    assert fields["title"] == "door open"
    assert fields["state"] == "dead"
    assert fields["attempt"] == "20"
    assert fields["error"] == "failed 20 times"
    assert fields["detail"] == '{"type":"door.opened","subject":"d1"}'
    assert fields["failover"] == '["mail"]'
    assert "since noon\n" in done.out
    assert done.out.splitlines()[-2].strip() == "for 2h"
    one = json.loads(edgeq("notifications", "show", "1", "--json").out)
    assert one["detail"] == {"type": "door.opened", "subject": "d1"}
    assert (one["members"], one["threads"]) == ([], [])
    none = edgeq("notifications", "show", "2")
    assert (none.status, none.err) == (1, "edgeq: there is no notification 2\n")


def test_a_digest_shows_what_it_told_and_a_member_in_what_it_was_told(edgeq: Edgeq) -> None:
    late = [f"door {number} open" for number in range(1, 7)]
    queue(*late, created_at=Clock().now() - 7200 * SECOND)
    store(lambda tx: pick(tx, Terms(channel="phone", digests=True), Clock().now()))
    told = [{"id": number, "title": title} for number, title in enumerate(late, 1)]
    shown = " ".join(edgeq("notifications", "show", "7").out.split())
    assert " told together " + " ".join(f"{each['id']} {each['title']}" for each in told) + " body " in shown
    assert json.loads(edgeq("notifications", "show", "7", "--json").out)["members"] == told
    assert "grouped (in 7)" in edgeq("notifications", "show", "1").out


def test_the_thread_says_who_has_seen_to_it(edgeq: Edgeq) -> None:
    queue("hot", fingerprint="f")
    thread = Thread(
        fingerprint="f", route="r", event_id=1, severity="critical", channels=("phone", "siren"),
        opened_at=1_767_268_800 * SECOND, reminder=2, next_at=1_767_272_400 * SECOND,
    )  # fmt: skip
    store(lambda tx: threads.begin(tx, thread, ThreadText("hot", "", "{}")))
    text = "open since 2026-01-01T12:00:00.000Z, told to phone, siren, 2 reminders"
    shown = edgeq("notifications", "show", "1").out
    assert f" {text}, the next reminder at 2026-01-01T13:00:00.000Z" in shown
    now = 1_767_270_000 * SECOND
    store(lambda tx: threads.acknowledge(tx, "f", by="ann", comment="on my way", now=now))
    shown = edgeq("notifications", "show", "1").out
    assert f"{text}, acknowledged 2026-01-01T12:20:00.000Z by ann: on my way" in shown
    assert json.loads(edgeq("notifications", "show", "1", "--json").out)["threads"][0]["acknowledged_by"] == "ann"


# Changing


def test_dead_ones_are_queued_again_and_their_dead_letters_are_closed(edgeq: Edgeq) -> None:
    queue("one", "two", "three")
    queue("four", channel="mail")
    die(1, 2, 3)
    die(4, channel="mail")
    done = edgeq("notifications", "retry", "1", "1", "9")
    assert (done.status, done.out) == (0, "1 to be sent again; 1 are not there, or were sent\n")
    row = found(edgeq, "--state", "queued")[0]
    assert (row["title"], row["attempt"]) == ("one", 0)
    assert row["next_attempt_at"] <= Clock().now()
    letters = edgeq("dead-letters", "list", "--json").out.splitlines()
    assert sorted(json.loads(line)["detail"]["notification_id"] for line in letters) == [2, 3, 4]
    assert edgeq("notifications", "retry", "--channel", "mail").out == "1 to be sent again\n"
    assert edgeq("notifications", "retry", "--dead").out == "2 to be sent again\n"
    assert not edgeq("dead-letters", "list", "--json").out
    none = edgeq("notifications", "retry", "--dead")
    assert (none.status, none.err) == (1, "edgeq: no dead notification fits\n")


def test_all_dead_ones_are_retried_however_many(edgeq: Edgeq) -> None:
    queue(*(f"n{number}" for number in range(2005)))
    die(*range(1, 2006))
    assert edgeq("notifications", "retry", "--dead").out == "2005 to be sent again\n"
    assert not found(edgeq, "--state", "dead")


def test_one_that_is_held_is_let_go_and_one_that_was_sent_is_not_sent_twice(edgeq: Edgeq) -> None:
    queue("held", not_before=Clock().now() + 3600 * SECOND)
    queue("sent")
    sent(2)
    assert edgeq("notifications", "retry", "1").status == 0
    assert found(edgeq, "--channel", "phone")[1]["next_attempt_at"] <= Clock().now()
    assert edgeq("notifications", "retry", "2").status == 1
    assert found(edgeq)[0]["state"] == "sent"


def test_which_ones_must_be_said(edgeq: Edgeq) -> None:
    for verb, every in (("retry", "--dead"), ("read", "--all")):
        assert f"say which: by id, --channel, or {every}" in edgeq("notifications", verb).err
        assert edgeq("notifications", verb, "1", every).status == 2
        assert edgeq("notifications", verb, "0").status == 2


def test_what_was_read_is_no_longer_unread(edgeq: Edgeq) -> None:
    queue("one", "two", channel="inbox")
    queue("three")
    sent(1, 2, 3)
    assert titles(edgeq, "--channel", "inbox", "--unread") == ["two", "one"]
    assert edgeq("notifications", "read", "1", "7").out == "1 marked as read; 1 are not there\n"
    assert titles(edgeq, "--channel", "inbox", "--unread") == ["two"]
    read_at = found(edgeq, "--channel", "inbox")[1]["read_at"]
    assert edgeq("notifications", "read", "--channel", "inbox").out == "1 marked as read\n"
    assert titles(edgeq, "--unread") == ["three"]
    assert edgeq("notifications", "read", "1").status == 0, "read once more"
    assert found(edgeq, "--channel", "inbox")[1]["read_at"] == read_at
    assert edgeq("notifications", "read", "--all").status == 0
    none = edgeq("notifications", "read", "--all")
    assert (none.status, none.err) == (1, "edgeq: no unread notification fits\n")


# The status


def test_the_status_tells_of_each_channel(edgeq: Edgeq, database: Database) -> None:
    queue("one", "two", "three", "four", created_at=Clock().now() - 7200 * SECOND)
    queue("gone", channel="pager", created_at=Clock().now() - 10_800 * SECOND)
    sent(1)
    die(2)
    store(lambda tx: outbox.note_error(tx, 3, "no route to host"))
    lines = [line for line in edgeq("status").out.splitlines() if line.startswith("channel ")]
    owner = "; run by nobody" if database.kind == "postgresql" else ""
    assert lines == [
        f"channel       phone: 2 queued, 1 sent, 1 dead; the oldest was raised 2h ago{owner}; no route to host",
        f"channel       pager: 1 queued; the oldest was raised 3h ago{owner}",
    ]
    phone = json.loads(edgeq("status", "--json").out)["notifications"]["phone"]
    assert 7200 <= phone.pop("oldest_seconds") < 7260
    assert phone.pop("oldest_queued_at") < Clock().now() - 7199 * SECOND
    phone.pop("owner", None)
    assert phone == {"queued": 2, "sent": 1, "grouped": 0, "silenced": 0, "dead": 1, "error": "no route to host"}


def test_the_status_of_a_running_appliance_says_until_when_a_channel_waits(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto()
    with closing(HttpTarget()) as target:
        hook = {"kind": "webhook", "url": target.url}
        values = {"gateway": "g", "mqtt": {"url": broker.url}, "channels": {"hook": hook}, "store": {"url": "edgeq.db"}}
        target.answers.append(Answer(429, (("Retry-After", "3000"),)))
        target.stay = True
        appliance = Appliance(tmp_path / "g", json.dumps(values))
        try:
            appliance.start()
            assert appliance.cli("emit", "door.opened", "--tag", "notification").returncode == 0
            appliance.until(
                lambda: appliance.status()["notifications"]["hook"]["waiting_until"], "a channel that waits"
            )
            status = appliance.status()
            assert status["notifications"]["hook"]["queued"] == 1
            assert 2900 < status["gauges"]["edgeq_channel_waiting_seconds"]["hook"] <= 3000
            assert status["gauges"]["edgeq_channel_failing"] == {"hook": 1}
            shown = appliance.cli("status").stdout
            assert "channel       hook: 1 queued" in shown
            assert "; tried again in 50m; 429 Too Many Requests" in shown
        finally:
            appliance.kill()


# Trying out


def test_a_web_server_says_what_it_made_of_the_test(edgeq: Edgeq) -> None:
    with closing(HttpTarget()) as target:
        configure({"hook": {"kind": "webhook", "url": target.url}})
        done = edgeq("notifications", "test", "hook", "--severity", "warning")
        assert done.status == 0
        assert done.out.startswith("hook: sent in ")
        assert done.out.endswith(": 200 OK\n")
        got = json.loads(target.requests[0].body)
        assert (got["title"], got["severity"], got["kind"]) == ("Test from g", "warning", "alert")
        target.answers += [Answer(429, (("Retry-After", "7"),)), Answer(404)]
        later = edgeq("notifications", "test", "hook")
        assert (later.status, later.out) == (1, "")
        assert later.err.startswith("edgeq: hook: not sent: 429 Too Many Requests")
        assert later.err.endswith("(it is to be tried again after 7s)\n")
        never = edgeq("notifications", "test", "hook")
        assert never.status == 1
        assert never.err.startswith("edgeq: hook: refused for good: 404 Not Found")
        keys = {json.loads(request.body)["idempotency_key"] for request in target.requests}
        assert len(keys) == 3, "no test may be taken for another"
    assert not found(edgeq), "it goes past the outbox"


def test_a_mail_server_too_and_nobody_it_refuses_is_passed_over(edgeq: Edgeq) -> None:
    with closing(MailTarget()) as target:
        keys = {"host": "127.0.0.1", "port": target.port, "tls": "none", "from": "gw@example.net"}
        configure({"mail": {"kind": "smtp", **keys, "to": ["gone@example.net", "ops@example.net"]}})
        assert edgeq("notifications", "test", "mail").out.endswith("s: 250 OK\n")
        assert target.mails[0]["Subject"] == "Test from g"
        target.refuse["RCPT"] = ["550 Nobody here"]
        done = edgeq("notifications", "test", "mail")
        assert (done.status, done.err) == (
            1, "edgeq: mail: sent, but not to everyone: gone@example.net: 550 Nobody here\n"
        )  # fmt: skip


def test_programs_the_log_and_the_inbox(edgeq: Edgeq, tmp_path: Path) -> None:
    program = script(tmp_path, "cat > seen; echo queued as 17")
    configure({"sms": {"kind": "exec", "command": [str(program)]}, "log": {"kind": "log"}, "box": {"kind": "inbox"}})
    assert edgeq("notifications", "test", "sms").out.endswith(": queued as 17\n")
    program.unlink()
    gone = edgeq("notifications", "test", "sms")
    assert gone.status == 78
    assert f"channels.sms.command: must begin with a program that is there: {program}" in gone.err
    log = edgeq("notifications", "test", "log")
    assert log.status == 0
    assert "edgeq.notification: Test from g: Somebody has tried out this channel" in log.err
    assert "the store keeps what is queued for it" in edgeq("notifications", "test", "box").out


def test_the_siren_sounds_and_stops_over_a_connection_of_its_own(
    edgeq: Edgeq, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto()
    siren = {"kind": "mqtt", "topic": "siren/set", "payload": "ON", "resolved_payload": "OFF"}
    for version in ("5", "3.1.1"):
        configure({"siren": siren}, mqtt={"url": broker.url, "version": version})
        with Peer(broker.port, "#") as peer:
            done = edgeq("notifications", "test", "siren")
            assert (done.status, done.out.rpartition(": ")[2]) == (0, "the broker has acknowledged it\n")
            assert edgeq("notifications", "test", "siren", "--resolved").status == 0
            peer.wait(lambda peer=peer: len(peer.seen) >= 2)
            assert peer.seen == [("siren/set", b"ON"), ("siren/set", b"OFF")], "no state of the gateway, no will"
    broker.kill()
    away = edgeq("notifications", "test", "siren")
    assert away.status == 1
    assert "siren: not sent: nothing listens at" in away.err


def test_while_the_appliance_runs_its_session_stays_and_retries_are_sent(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto()
    siren = {"kind": "mqtt", "topic": "siren/set", "payload": "ON"}
    with closing(HttpTarget()) as target:
        channels = {"siren": siren, "hook": {"kind": "webhook", "url": target.url}}
        values = {"gateway": "g", "mqtt": {"url": broker.url}, "channels": channels, "store": {"url": "edgeq.db"}}
        appliance = Appliance(tmp_path / "g", json.dumps(values))
        try:
            appliance.start()
            with Peer(broker.port, "siren/set") as peer:
                done = appliance.cli("notifications", "test", "siren")
                assert (done.returncode, done.stderr) == (0, "")
                peer.wait(lambda: bool(peer.seen))
            status = appliance.status()
            assert (status["session"]["state"], status["session"]["connections"]) == ("connected", 1)
            assert status["notifications"]["hook"]["queued"] == 0

            target.answers.append(Answer(410))
            assert appliance.cli("emit", "door.opened", "--tag", "notification").returncode == 0
            dead = "SELECT count(*) FROM notifications WHERE state = 'dead' AND channel = 'hook'"
            appliance.until(lambda: appliance.sql(dead) == [(1,)], "a dead letter")
            assert "hook" in appliance.cli("notifications", "list", "--state", "dead").stdout
            assert appliance.cli("notifications", "retry", "--dead").stdout == "1 to be sent again\n"
            sent = "SELECT channel FROM notifications WHERE state = 'sent' ORDER BY channel"
            appliance.until(lambda: appliance.sql(sent) == [("hook",), ("siren",)], "the second attempt")
            assert len(target.requests) == 2
            status = appliance.status()
            hook = status["notifications"]["hook"]
            assert (hook["dead"], hook["sent"], hook["configured"], hook["waiting_until"]) == (0, 1, True, None)
            gauges = status["gauges"]
            assert gauges["edgeq_channel_sent"] == {"siren": 1, "hook": 1}
            assert gauges["edgeq_channel_failing"] == {"siren": 0, "hook": 0}
            assert gauges["edgeq_channel_oldest_seconds"] == {"siren": 0, "hook": 0}
        finally:
            appliance.kill()


def test_a_broker_within_the_appliance_is_found_there(tmp_path: Path) -> None:
    siren = {"kind": "mqtt", "topic": "siren/set", "payload": "ON"}
    values = {
        "gateway": "g",
        "mqtt": {"url": "embedded://"},
        "channels": {"siren": siren},
        "store": {"url": "edgeq.db"},
    }
    appliance = Appliance(tmp_path / "g", json.dumps(values))
    try:
        appliance.start()
        assert appliance.cli("notifications", "test", "siren").stdout.endswith(": the broker has acknowledged it\n")
        assert appliance.status()["session"]["connections"] == 1
        assert appliance.stop() == 0
        done = appliance.cli("notifications", "test", "siren")
        assert done.returncode == 1
        assert "the broker is in the process of `edgeq run`, which doesn't run" in done.stderr
    finally:
        appliance.kill()


def test_a_secret_that_is_not_there_is_a_mistake_in_the_configuration(edgeq: Edgeq) -> None:
    mail = {"kind": "smtp", "host": "127.0.0.1", "from": "a@example.net", "to": ["b@example.net"]}
    configure({"mail": {**mail, "password_file": "smtp-password"}, "other": {"kind": "log"}})
    done = edgeq("notifications", "test", "mail")
    assert done.status == 78
    assert "channels.mail.password_file" in done.err
    assert "smtp-password" in done.err
    assert edgeq("notifications", "test", "other").status == 0, "a mistake of another channel"


def test_a_channel_that_is_not_there(edgeq: Edgeq) -> None:
    assert "the configuration has no channels" in edgeq("notifications", "test", "phone").err
    configure({"phone": {"kind": "log"}})
    done = edgeq("notifications", "test", "fone")
    assert (done.status, done.err) == (1, "edgeq: there is no channel 'fone' (did you mean 'phone'?)\n")
