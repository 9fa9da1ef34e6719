"""What a line of the log looks like, and that a stranger can't write one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from edgeq.telemetry.log import Calm, configure, printable

HOSTILE = "\x1b[2J\x9b31m\u202ehi\x00\ud800\r\n2026-01-01 00:00:00,000 ERROR   edgeq.app: forged\u2028<0>forged"
PLAIN: dict[str, str] = {}
JOURNAL = {"JOURNAL_STREAM": "8:1"}

log = logging.getLogger("edgeq.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("edgeq")
    kept = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level = kept[:2]
    own.setLevel(kept[2])


def fail(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("it failed: %s", text)


def test_a_stranger_cannot_write_a_line_of_his_own(capsys: pytest.CaptureFixture[str]) -> None:
    for form, environ, marks in (("text", PLAIN, ("2",)), ("auto", JOURNAL, ("<4>edgeq", "<3>edgeq"))):
        configure("info", form, environ)
        log.warning("a message on %s", HOSTILE)
        fail(HOSTILE)
        lines = capsys.readouterr().err.splitlines()
        begun = [line for line in lines if line.startswith(marks)]
        assert len(begun) == 2
        assert all(line in begun or line.startswith(("    ", "<4>    ", "<3>    ")) for line in lines), lines
        assert not [sign for line in lines for sign in line if not sign.isprintable()]
        assert "\\x1b[2J\\x9b31m\\u202ehi\\x00" in begun[0]


def test_under_systemd_each_line_has_its_priority_and_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "auto", JOURNAL)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.log(level, "two\nlines")
    assert capsys.readouterr().err.splitlines() == [
        line for priority in (7, 6, 4, 3) for line in (f"<{priority}>edgeq.test: two", f"<{priority}>    lines")
    ]


def test_as_json_each_entry_is_an_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json", JOURNAL)
    log.info("a message on %s", HOSTILE)
    fail(HOSTILE)
    first, second = (json.loads(line) for line in capsys.readouterr().err.split("\n")[:-1])
    assert (first["level"], first["logger"]) == ("info", "edgeq.test")
    assert first["message"].startswith("a message on \\x1b[2J")
    assert first["time"].endswith("Z")
    assert "traceback" not in first
    assert second["traceback"].startswith("Traceback")


def test_a_terminal_gets_colours_and_a_file_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("info", "auto", PLAIN)
    log.error("no colour")
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure("info", "auto", PLAIN)
    log.error("red")
    shown = capsys.readouterr().err
    assert shown.startswith("\x1b[31m2")
    assert shown.endswith("red\x1b[0m\n")


def test_the_level_is_kept_and_an_apps_own_lines_come_too(capsys: pytest.CaptureFixture[str]) -> None:
    other = logging.getLogger("greenhouse.controllers")
    configure("debug", "text", PLAIN)
    for each in (log, other):
        each.debug("debug of %s", each.name)
        each.info("info of %s", each.name)
    shown = capsys.readouterr().err
    assert [line.rpartition(": ")[2] for line in shown.splitlines()] == [
        "debug of edgeq.test", "info of edgeq.test", "info of greenhouse.controllers",
    ]  # fmt: skip
    configure("warning", "text", PLAIN)
    for each in (log, other):
        each.info("info")
        each.warning("warning")
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()] == ["warning", "warning"]


def test_what_can_be_seen_is_left_as_it_is() -> None:
    text = "Küche 21 °C\tÖl ☃ 🧊\n日本"
    assert printable(text) == text
    assert printable("a\nb", keep="") == "a\\nb"


def test_what_repeats_is_said_once_in_a_while_with_how_often(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    calm = Calm(logging.getLogger("edgeq.test"), lambda: now, seconds=60.0)
    for _ in range(1000):
        calm.warning("bad route", "bad: %s", "x")
    calm.warning("other", "other")
    now += 59.0
    calm.warning("bad route", "bad: %s", "x")
    now += 1.0
    calm.warning("bad route", "bad: %s", "y 100%")
    assert [record.getMessage() for record in caplog.records] == [
        "bad: x", "other", "bad: y 100% (and 1000 more like it since)",
    ]  # fmt: skip


def test_what_was_said_is_not_remembered_without_end(caplog: pytest.LogCaptureFixture) -> None:
    calm = Calm(logging.getLogger("edgeq.test"), lambda: 0.0)
    for number in range(5000):
        calm.warning(f"key {number}", "x")
    assert len(calm._said) <= 1001
