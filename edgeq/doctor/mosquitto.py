"""mosquitto on this machine: whether its configuration keeps what is published while edgeq is down.

Which configuration that is, the running process says; of several, the one that listens on the port of `mqtt.url`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..config.checks import is_loopback
from ..units import Duration, Size
from .case import Case
from .finding import SUDO, Finding, bad, ok, unknown, warn

MESSAGES_WISE = 10_000
SAVE_SECONDS_WISE = 300
_QUEUED, _IN_FLIGHT, _SAVE_SECONDS = 1000, 20, 1800  # what mosquitto 2 does unless told
_ALONE = [(1883, "127.0.0.1")]  # without a listener
_FILES_MAX = 200
_UNITS = {"h": 3600, "d": 86400, "w": 604800, "m": 2_592_000, "y": 31_536_000}
_RESTART = "then: sudo systemctl restart mosquitto"


class Settings(msgspec.Struct, frozen=True):
    """The lines of a configuration and of what it includes: the last value of each key, and where it stands; the ports
    and addresses that it listens at. `unread` is a file that this user may not read."""

    file: str
    values: dict[str, tuple[str, str]]
    listeners: list[tuple[int, str]]
    unread: str = ""

    def get(self, key: str, default: str = "") -> str:
        """The value of a key."""
        return self.values.get(key, (default, ""))[0]

    def number(self, key: str, default: int) -> int:
        """The value of a key that is a number; the default for what is none."""
        text = self.get(key)
        return int(text) if text.isdecimal() else default

    def said(self, key: str, default: object) -> str:
        """The value and where it stands, for people."""
        value, place = self.values.get(key, ("", ""))
        return f"{key} is {value} ({place})" if place else f"{key} isn't set in {self.file}, which means {default}"

    def line(self, text: str) -> str:
        """What to do to have such a line."""
        return f"write the line `{text}` into {self.file} or below conf.d beside it, {_RESTART}"


def configured(case: Case) -> Iterator[Finding]:
    """What the broker's configuration gives away."""
    if case.broker is None:
        return
    settings = _settings(case)
    if settings is None:
        yield unknown(
            "what the broker keeps when it restarts can't be seen from here",
            "no mosquitto that this user can look at runs on this machine for mqtt.url",
            "config/mosquitto/edgeq.conf says what it needs; edgeq doctor --thorough tries how many messages it keeps",
        )
        return
    if settings.unread:
        yield unknown(f"{settings.unread} may not be read by this user", "what mosquitto keeps can't be seen", SUDO)
        return
    found = [finding for judge in JUDGES if (finding := judge(case, settings)) is not None]
    yield from found
    if not found:
        yield ok(f"{settings.file} keeps what is published while edgeq is down")


def takes_over(case: Case) -> str:
    """Why nobody else may log in with edgeq's name: empty unless that would end the appliance's session."""
    settings = _settings(case)
    if settings is None or settings.get("use_username_as_clientid") != "true" or not case.loaded.config.mqtt.username:
        return ""
    return "mosquitto has use_username_as_clientid: with the same name, it would end the session of edgeq"


def _persistence(case: Case, settings: Settings) -> Finding | None:
    if settings.get("persistence") == "true":
        return None
    return bad(
        f"mosquitto keeps nothing over its restart: {settings.said('persistence', 'false')}",
        "what is published while edgeq is down, and edgeq's session, are lost when mosquitto or the machine restarts",
        settings.line("persistence true"),
    )


def _saving(case: Case, settings: Settings) -> Finding | None:
    seconds = settings.number("autosave_interval", _SAVE_SECONDS)
    if settings.get("persistence") != "true" or settings.get("autosave_on_changes") == "true":
        return None
    if 0 < seconds <= SAVE_SECONDS_WISE:
        return None
    return warn(
        f"mosquitto saves seldom: {settings.said('autosave_interval', f'{_SAVE_SECONDS} seconds')}",
        "a power cut takes what was published since, if edgeq hadn't got it yet",
        settings.line("autosave_interval 60"),
    )


def _queue(case: Case, settings: Settings) -> Finding | None:
    most = settings.number("max_queued_messages", _QUEUED)
    if most == 0 or most >= MESSAGES_WISE:
        return None
    return warn(
        f"mosquitto keeps at most {most} messages for edgeq: {settings.said('max_queued_messages', _QUEUED)}",
        "what comes beyond that while edgeq is down is dropped without a word",
        settings.line("max_queued_messages 200000"),
    )


def _window(case: Case, settings: Settings) -> Finding | None:
    mqtt = case.loaded.config.mqtt
    most = settings.number("max_inflight_messages", _IN_FLIGHT)
    if (
        most == 0
        or most >= mqtt.receive_maximum
        or (mqtt.version == "5" and "max_inflight_messages" not in settings.values)
    ):
        return None
    return warn(
        f"mosquitto sends {most} messages before edgeq must answer: "
        f"{settings.said('max_inflight_messages', _IN_FLIGHT)}, and mqtt.receive_maximum is {mqtt.receive_maximum}",
        "edgeq waits for the broker",
        settings.line(f"max_inflight_messages {mqtt.receive_maximum}"),
    )


def _expiry(case: Case, settings: Settings) -> Finding | None:
    text = settings.get("persistent_client_expiration")
    if not text or not text[:-1].isdecimal() or text[-1] not in _UNITS:
        return None
    kept, asked = Duration(int(text[:-1]) * _UNITS[text[-1]]), case.loaded.config.mqtt.session_expiry
    if kept >= asked:
        return None
    return bad(
        f"mosquitto forgets sessions after {kept}: {settings.said('persistent_client_expiration', 'never')}, "
        f"and mqtt.session_expiry is {asked}",
        "what is published while edgeq is down for longer is lost",
        settings.line("persistent_client_expiration 14d"),
    )


def _size(case: Case, settings: Settings) -> Finding | None:
    most = settings.number("message_size_limit", 0)
    wanted = max((int(route.max_payload) for route in case.loaded.config.routes), default=0)
    if most == 0 or most >= wanted:
        return None
    return warn(
        f"mosquitto drops messages of more than {Size(most)}: {settings.said('message_size_limit', 'no limit')}, "
        f"and a route takes {Size(wanted)}",
        "larger ones never come",
        settings.line(f"message_size_limit {wanted}"),
    )


def _qos0(case: Case, settings: Settings) -> Finding | None:
    routes = [route.topic for route in case.loaded.config.routes if route.qos == 0]
    if not routes or settings.get("queue_qos0_messages") == "true":
        return None
    return warn(
        f"mosquitto keeps no messages of QoS 0: {settings.said('queue_qos0_messages', 'false')}",
        f"what is published to {routes[0]} while edgeq is down is lost",
        "qos: 1 for that route, if the sender publishes with QoS 1",
    )


def _strangers(case: Case, settings: Settings) -> Finding | None:
    anybody = settings.get("allow_anonymous") == "true" and not (settings.get("acl_file") or settings.get("plugin"))
    if not anybody or all(is_loopback(address) for _, address in settings.listeners):
        return None
    return warn(
        f"mosquitto lets in everybody: {settings.said('allow_anonymous', 'false')}",
        "whoever reaches it can publish to every route, and read all",
        settings.line("allow_anonymous false") + "; config/mosquitto/edgeq.conf shows users and their rights",
    )


JUDGES: tuple[Callable[[Case, Settings], Finding | None], ...] = (
    _persistence, _saving, _queue, _window, _expiry, _size, _qos0, _strangers,
)  # fmt: skip


def _settings(case: Case) -> Settings | None:
    """Those of the mosquitto that runs here for `mqtt.url`; None when there is none."""
    if case.broker is None or not case.broker_is_here:
        return None
    found = [read(name) for name in _running(case)]
    fits = [each for each in found if each.unread or case.broker.port in [port for port, _ in each.listeners or _ALONE]]
    return min(fits, key=lambda each: bool(each.unread), default=None)


def _running(case: Case) -> Iterator[str]:
    """The configuration files of the mosquittos that run."""
    for folder in (case.root / "proc").glob("[0-9]*"):
        if case.read(f"proc/{folder.name}/comm").strip() != "mosquitto":
            continue
        words = case.read(f"proc/{folder.name}/cmdline").split("\0")
        for at, word in enumerate(words[:-1]):
            if word in ("-c", "--config-file"):
                yield words[at + 1]


def read(file: str) -> Settings:
    """The settings in a configuration of mosquitto, with what `include_dir` names."""
    values: dict[str, tuple[str, str]] = {}
    listeners: list[tuple[int, str]] = []
    waiting = [file]
    read_so_far = 0
    while waiting and read_so_far < _FILES_MAX:
        name = waiting.pop(0)
        read_so_far += 1
        try:
            lines = Path(name).read_text(errors="replace").splitlines()
        except OSError:
            return Settings(file, values, listeners, unread=name)
        for number, line in enumerate(lines, 1):
            key, _, value = line.strip().partition(" ")
            value = value.strip()
            if not key or key.startswith("#"):
                continue
            if key == "include_dir":
                try:
                    waiting += sorted(os.path.join(value, each) for each in os.listdir(value) if each.endswith(".conf"))
                except OSError:
                    return Settings(file, values, listeners, unread=value)
            elif key in ("listener", "port"):
                port, _, address = value.partition(" ")
                listeners += [(int(port), address.strip())] if port.isdecimal() else []
            else:
                values[key] = (value, f"{name}:{number}")
    return Settings(file, values, listeners)
