"""Every key of the configuration, its type and its default. `config/edgeq.yaml` explains each in whole sentences.

The records are frozen. Durations are `Duration` (seconds), sizes `Size` (bytes). A key here works; keys of features
to come are added with the features, and any other key is an error.
"""

from __future__ import annotations

import socket
from typing import Any, Literal

import msgspec

from ..backoff import Backoff
from ..units import Duration, Size
from .section import Section


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all configuration records."""


class Tls(Record, frozen=True):
    """`mqtt.tls`. Files in PEM form."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure: bool = False


class Mqtt(Record, frozen=True):
    """`mqtt`: the session with the broker."""

    url: str = "mqtt://localhost:1883"
    version: Literal["5", "3.1.1"] = "5"
    client_id: str = ""  # empty: edgeq-<gateway>
    username: str | None = None
    password: str | None = None
    tls: Tls = Tls()
    keepalive: Duration = Duration(60)
    session_expiry: Duration = Duration(7 * 86400)
    receive_maximum: int = 1000
    group: str | None = None
    status_topic: str = "edgeq/{gateway}"


class Store(Record, frozen=True):
    """`store`: where events, jobs and cursors live."""

    url: str = "edgeq.db"
    durability: Literal["full", "normal"] = "full"
    commit_interval: Duration = Duration(0)


class App(Record, frozen=True):
    """`app`: the user's own Python."""

    path: str | None = None
    modules: list[str] = []


class Limit(Record, frozen=True):
    """`routes[].limit`: at most `rate`, with `burst` at once, for each `key`."""

    rate: str  # "100/s", "5/m"
    burst: int | None = None
    key: str = ""
    over: Literal["drop", "dead_letter"] = "drop"


class EmitMap(Record, frozen=True):
    """`routes[].emit` as a mapping: the event type that `to` gives for the text that `map` yields."""

    map: str
    to: dict[str, str]


class Route(Record, frozen=True):
    """`routes[]`: a topic filter and what becomes of its messages. One or more of emit, dispatch, controller."""

    topic: str
    emit: str | EmitMap | None = None
    dispatch: str | None = None
    controller: str | None = None
    subject: str = ""
    data: Literal["payload"] | dict[str, Any] = "payload"
    tags: list[str] = []
    description: str = ""
    occurred_at: str | None = None
    dedup: str | None = None
    payload: Literal["json", "text", "raw"] = "json"
    qos: Literal[0, 1, 2] = 1
    retained: Literal["skip", "handle"] = "skip"
    timeout: Duration = Duration(5)
    limit: Limit | None = None
    max_payload: Size = Size(256 * 1024)


class OnError(Record, frozen=True):
    """`processors.*.on_error`: what becomes of an event whose processing keeps failing."""

    attempts: int = 5
    backoff: Backoff = Backoff(1.0, 60.0)
    then: Literal["dead_letter", "skip", "halt"] = "dead_letter"


class NotificationMatch(Record, frozen=True):
    """`notifications.routes[].match`: all that are given must hold. Patterns may hold `*`."""

    types: list[str] = []
    tags: list[str] = []
    severity: str | list[str] = []
    subject: str | None = None


class NotificationRoute(Record, frozen=True):
    """`notifications.routes[]`: which channels a matching notification goes to."""

    channels: list[str]
    match: NotificationMatch = NotificationMatch()
    continue_: bool = msgspec.field(name="continue", default=False)


class Notifications(Record, frozen=True):
    """`notifications`."""

    routes: list[NotificationRoute] = []


class Queue(Record, frozen=True):
    """`jobs.queues.*`: how many jobs of the queue run at once, and how long a claim holds."""

    concurrency: int = 2
    lease: Duration = Duration(60)


class Jobs(Record, frozen=True):
    """`jobs`."""

    queues: dict[str, Queue] = msgspec.field(default_factory=lambda: {"default": Queue()})


class Log(Record, frozen=True):
    """`log`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Config(Record, frozen=True):
    """The whole configuration."""

    gateway: str = msgspec.field(default_factory=socket.gethostname)
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    app: App = App()
    routes: list[Route] = []
    processors: dict[str, Section] = {}
    channels: dict[str, Section] = {}
    notifications: Notifications = Notifications()
    contracts: list[Section] = []
    jobs: Jobs = Jobs()
    log: Log = Log()


class LoadedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration and where it came from.

    `files` are the files read, first the main one; `folder` is the folder of the main file, which relative paths are
    relative to; `places` maps the dotted path of a key (`mqtt.url`, `routes[2].topic`) to `file:line`.
    """

    config: Config
    files: list[str]
    folder: str
    places: dict[str, str]

    def where(self, path: str) -> str:
        """`file:line` of the key at dotted `path`, or of the nearest thing around it."""
        while path and path not in self.places:
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
        return self.places.get(path, self.files[0] if self.files else "")
