"""What the page says first: each thing that can be wrong, with since when, where to look, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support.browser import Browser

import edgeq.web

NOW = 1_800_000_000_000_000
SINCE = NOW - 90_000_000
FINE: dict[str, Any] = {
    "now": NOW, "started_at": SINCE, "store": {"ok": True, "reason": "", "free_disk_bytes": 10**10},
    "session": {"state": "connected"}, "clock": {"synchronised": True}, "routes": [{}], "retention": {"trouble": ""},
    "contracts": [{"contract": "cold", "ok": 3}], "jobs": [{"queue": "q", "dead": 0, "paused": False}],
    "processors": [{"name": "p", "state": "running", "lag_events": 5, "lag_seconds": 1}],
    "notifications": {"c": {"dead": 0, "oldest_seconds": 5}}, "backup": {"last_error": None},
}  # fmt: skip
BEHIND = {
    "name": "p",
    "lag_events": 7,
    "lag_seconds": 90,
    "error": "Traceback (most recent call last):\n  x\nOSError: no",
}
CHANNEL = {"last_error": "refused", "oldest_queued_at": SINCE, "oldest_seconds": 90}

# A part of the status; its tone, where it leads, since when, and words of what is said.
WRONG: dict[str, tuple[dict[str, Any], str, str | None, int | None, tuple[str, ...]]] = {
    "store": ({"store": {"ok": False, "reason": "disk full", "since": SINCE}},
        "bad", None, SINCE, ("Nothing can be stored", "disk full", "none is lost")),
    "doubtful store": ({"store": {"ok": True, "reason": "no durability"}}, "warn", None, None, ("no durability",)),
    "disk": ({"store": {"ok": True, "free_disk_bytes": 50 * 2**20, "place": "/var"}},
        "warn", None, None, ("Only 50 MiB of disk are free", "/var", "store.retention")),
    "session": ({"session": {"state": "disconnected", "url": "b", "reason": "gone", "disconnected_since": SINCE}},
        "bad", None, SINCE, ("No connection with the broker at b", "gone", "edgeq doctor")),
    "critical": ({"contracts": [{"contract": "cold", "violated": 3, "violated_at": SINCE, "violated_subject": "f-1",
                  "severity": "critical"}]},
        "bad", "#contracts", SINCE, ("cold is violated", "critical, by f-1 and 2 others")),
    "information": ({"contracts": [{"contract": "cold", "violated": 1, "violated_at": SINCE, "violated_subject": "",
                     "severity": "info"}]},
        "warn", "#contracts", SINCE, ("cold is violated", "info")),
    "unknown": ({"contracts": [{"contract": "cold", "unknown": 2}]},
        "warn", "#contracts", None, ("cold can't be judged", "for 2 subjects")),
    "skipped": ({"contracts": [{"contract": "cold", "skipped": {"no_field": 2}, "last_skipped": {"event_id": 17}}]},
        "warn", "#events/17", None, ("passed over events", "2 events: no field")),
    "halted": ({"processors": [{**BEHIND, "state": "halted"}]},
        "bad", "#processors", SINCE, ("Processor p has halted", "OSError: no", "7 events wait", "resume")),
    "retrying": ({"processors": [{**BEHIND, "state": "retrying"}]},
        "bad", "#processors", SINCE, ("Processor p fails", "OSError: no")),
    "paused": ({"processors": [{**BEHIND, "state": "paused"}]},
        "warn", "#processors", SINCE, ("Processor p is paused", "7 events wait", "Resume")),
    "behind": ({"processors": [{**BEHIND, "state": "running"}]},
        "warn", "#processors", None, ("Processor p is 1\u00a0min\u00a030\u00a0s behind",)),
    "unread": ({"processors": [{**BEHIND, "state": "not configured"}]},
        "warn", "#processors", None, ("not configured any more",)),
    "dead notifications": ({"notifications": {"c": {**CHANNEL, "dead": 2}}},
        "bad", "#notifications?state=dead&channel=c", None, ("2 notifications could not be sent by c", "try them")),
    "channel": ({"notifications": {"c": {**CHANNEL, "dead": 0, "queued": 1}}},
        "warn", "#notifications", SINCE, ("Channel c fails", "refused", "1 notification waits")),
    "slow channel": ({"notifications": {"c": {"oldest_seconds": 900, "oldest_queued_at": SINCE}}},
        "warn", "#notifications", SINCE, ("waits for c",)),
    "dead jobs": ({"jobs": [{"queue": "q", "dead": 1, "paused": False}]},
        "bad", "#jobs?queue=q&state=dead", None, ("1 job of queue q is dead", "try them again")),
    "paused queue": ({"jobs": [{"queue": "q", "paused": True, "ready": 4}]},
        "warn", "#jobs", None, ("Queue q is paused", "4 jobs", "Resume")),
    "waiting jobs": ({"jobs": [{"queue": "q", "oldest_ready_seconds": 120, "ready": 4}]},
        "warn", "#jobs", None, ("A job has waited 2\u00a0min in queue q", "4 jobs")),
    "overdue": ({"workers": [{"queue": "q", "overdue": 1}]}, "bad", "#jobs", None, ("did not end in time",)),
    "breaker": ({"breakers": [{"name": "erp", "state": "half_open", "error": ""}]},
        "warn", "#jobs", None, ("Jobs that need erp wait", "half open")),
    "dead letters": ({"dead_letters": [{"source": "intake", "count": 2, "oldest_at": NOW},
                      {"source": "job:q", "count": 1, "oldest_at": SINCE}]},
        "warn", "#dead-letters", SINCE, ("3 dead letters wait", "intake, job:q", "Redrive")),
    "limits": ({"retention": {"trouble": "half of it can't go"}},
        "bad", None, None, ("can't be kept within its limits", "half of it")),
    "deleting": ({"retention": {"waits_until": NOW}}, "warn", None, None, ("about to be deleted", "2027")),
    "unseen": ({"counters": {"edgeq_events_dropped_total": {"max_size": 2, "disk": 3}}},
        "bad", "#processors", None, ("5 events were deleted",)),
    "backup": ({"backup": {"last_error": "no space", "last_success_at": None}},
        "bad", None, None, ("The last backup failed", "no space", "There is none yet")),
    "crashed": ({"crashed": [{"name": "intake", "crashes": 1, "last_error": "KeyError: 1"}]},
        "warn", None, None, ("intake has crashed once", "KeyError: 1")),
    "heartbeat": ({"heartbeat": {"last_error": "404", "last_success_at": SINCE}},
        "warn", None, SINCE, ("The heartbeat doesn't get through", "404")),
    "leaderless": ({"leader": None}, "warn", None, None, ("No member of the group leads",)),
    "clock": ({"clock": {"synchronised": False}}, "warn", None, None, ("is not synchronised", "timedatectl")),
    "doubted clock": ({"retention": {"doubts_clock": True}}, "warn", None, None, ("isn't believed",)),
    "routeless": ({"routes": []}, "warn", "#routes", None, ("No routes are configured",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def ask(browser: Browser) -> Iterator[Any]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(Path(edgeq.web.__file__).parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        browser.visit(f"http://127.0.0.1:{server.server_port}/static/icon.svg")
        code = "const given = arguments[0]; return import('/static/trouble.js').then((made) => made.{}(given))"
        yield lambda what, status: browser.script(code.replace("{}", what), status)
        server.shutdown()


def test_where_all_is_well_there_is_nothing_to_say(ask: Any) -> None:
    assert ask("troubles", FINE) == []
    assert ask("attention", FINE) == {}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(ask: Any, name: str) -> None:
    part, tone, href, since, words = WRONG[name]
    (found,) = ask("troubles", {**FINE, **part})
    assert (found["tone"], found["href"], found["since"]) == (tone, href, since)
    said = " ".join((found["what"], found["why"], found["todo"]))
    assert [each for each in words if each not in said] == [], said
    assert "Traceback" not in said


def test_the_worst_stands_first_and_each_view_has_its_number(ask: Any) -> None:
    parts = ("dead letters", "information", "dead jobs", "clock", "session")
    status = {**FINE, **{key: value for name in parts for key, value in WRONG[name][0].items()}}
    assert [each["tone"] for each in ask("troubles", status)] == ["bad", "bad", "warn", "warn", "warn"]
    assert ask("attention", status) == {"now": 2, "contracts": 1, "jobs": 1, "dead-letters": 3}
