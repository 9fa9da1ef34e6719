"""Every key of the configuration, its type and its default. `config/edgeq.yaml` explains each in whole sentences.

The records are frozen. Durations are `Duration` (seconds), sizes `Size` (bytes). A key here works; keys of features
to come are added with the features, and any other key is an error.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from ..backoff import Backoff
from ..errors import Problem
from ..events import Severity as Severity
from ..units import Duration, Size
from . import checks
from .origin import is_secret, nearest
from .section import Section

Name = Annotated[str, checks.word]
Label = Annotated[str, checks.label]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all configuration records. Text is left out when one is printed: it may be a secret.

    `secrets` names fields that no message may show, beside those that are called like a secret.
    """

    secrets: ClassVar[tuple[str, ...]] = ()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = [(name, getattr(self, name)) for name in self.__struct_fields__ if not is_secret(name)]
        return [(name, value) for name, value in values if not isinstance(value, str | list | dict)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


Request = Literal["ack", "dispatch", "emit", "health", "processors", "queues", "redrive", "silence", "status"]


class Tls(Record, frozen=True):
    """`mqtt.tls`. Files in PEM form; once loaded, their paths are absolute."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure: bool = False

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A key alone proves nothing."""
        if "key" in given and "cert" not in given:
            yield "key", "needs cert as well"


class Mqtt(Record, frozen=True):
    """`mqtt`: the session with the broker."""

    url: Annotated[str, checks.mqtt_url] = "mqtt://localhost:1883"
    version: Literal["5", "3.1.1"] = "5"
    client_id: Annotated[str, checks.client_id] = ""  # empty: edgeq-<gateway>
    username: str | None = None
    password: str | None = None
    tls: Tls = Tls()
    keepalive: Annotated[Duration, checks.keepalive] = Duration(60)
    session_expiry: Annotated[Duration, checks.session_expiry] = Duration(7 * 86400)
    receive_maximum: Annotated[int, checks.between(1, 65_535)] = 1000
    group: Annotated[str, checks.topic_level] | None = None
    status_topic: Annotated[str, checks.status_topic] = "edgeq/{gateway}"
    requests: list[Request] = []
    discovery: Annotated[str, checks.topic_prefix] | None = None

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A password without a user, and TLS that would not be used."""
        if "password" in given and "username" not in given:
            yield "password", "needs username as well"
        url = given.get("url", "mqtt://")
        if given.get("tls") not in (None, Tls()) and isinstance(url, str) and not url.startswith("mqtts://"):
            yield "tls", "is used with mqtts:// only, and url is not"


class JobRetention(Record, frozen=True):
    """`store.retention.jobs`: how long finished jobs are kept, by the state in which they ended."""

    completed: Annotated[Duration, checks.positive] = Duration(7 * 86400)
    cancelled: Annotated[Duration, checks.positive] = Duration(7 * 86400)
    dead: Annotated[Duration, checks.positive] = Duration(90 * 86400)


class Retention(Record, frozen=True):
    """`store.retention`: what is older goes. A single duration for jobs is that of those completed and cancelled.

    `max_size` and `min_free_disk` are hard limits: events go for them though a processor hasn't seen them. `max_rows`
    (of events) isn't.
    """

    events: Annotated[Duration, checks.at_least(Duration(60))] = Duration(30 * 86400)
    jobs: Annotated[Duration, checks.positive] | JobRetention = JobRetention()
    dead_letters: Annotated[Duration, checks.at_least(Duration(60))] = Duration(90 * 86400)
    notifications: Annotated[Duration, checks.at_least(Duration(60))] = Duration(90 * 86400)
    max_size: Annotated[Size, checks.at_least(Size(4 * 2**20))] | None = Size(2 * 2**30)
    max_rows: Annotated[int, checks.at_least(1)] | None = None
    min_free_disk: Size = Size(200 * 2**20)

    def by_state(self) -> dict[str, Duration]:
        """How long jobs are kept, by the state in which they ended."""
        jobs = self.jobs if isinstance(self.jobs, JobRetention) else JobRetention(self.jobs, self.jobs)
        return {name: getattr(jobs, name) for name in jobs.__struct_fields__}


class Backup(Record, frozen=True):
    """`store.backup`: a copy of the database in the folder `to`, `every` so often; the newest `keep` of them stay. Once
    loaded, `to` is absolute."""

    to: str
    every: Annotated[Duration, checks.between(Duration(60), Duration(366 * 86400))] = Duration(86400)
    keep: Annotated[int, checks.between(1, 10_000)] = 7


class Store(Record, frozen=True):
    """`store`: where events, jobs and cursors live."""

    url: Annotated[str, checks.store_url] = "edgeq.db"
    durability: Literal["full", "normal"] = "full"
    commit_interval: Annotated[Duration, checks.between(Duration(0), Duration(10))] = Duration(0)
    retention: Retention = Retention()
    backup: Backup | None = None

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A server has its own ways."""
        url = given.get("url", "")
        if given.get("backup") is not None and isinstance(url, str) and checks.is_postgres(url):
            yield "backup", "is for SQLite; a database on a server is backed up there, with pg_dump or WAL archiving"


class App(Record, frozen=True):
    """`app`: the user's own Python. Once loaded, `path` is absolute."""

    path: str | None = None
    modules: list[str] = []


class Limit(Record, frozen=True):
    """`routes[].limit`: at most `rate`, with `burst` at once, for each `key`."""

    rate: Annotated[str, checks.rate]  # "100/s", "5/m"
    burst: Annotated[int, checks.at_least(1)] | None = None
    key: str = ""
    over: Literal["drop", "dead_letter"] = "drop"


class EmitMap(Record, frozen=True):
    """`routes[].emit` as a mapping: the event type that `to` gives for the text that `map` yields."""

    map: str
    to: dict[str, str]


class Route(Record, frozen=True):
    """`routes[]`: a topic filter and what becomes of its messages. One or more of emit, dispatch, receive and
    controller."""

    topic: str
    emit: str | EmitMap | None = None
    dispatch: str | None = None
    receive: Literal["events"] | None = None
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
    ordered: bool = False
    timeout: Annotated[Duration, checks.positive] = Duration(5)
    limit: Limit | None = None
    max_payload: Annotated[Size, checks.between(Size(1), Size(checks.PAYLOAD_BYTES_MAX))] = Size(256 * 1024)
    keep: Literal["low", "normal", "high"] = "normal"

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A route must lead somewhere."""
        if not given.keys() & {"emit", "dispatch", "receive", "controller"}:
            yield "", "needs one of emit, dispatch, receive or controller"
        if "receive" in given and "emit" not in given:
            wrong = given.keys() & {"subject", "data", "description", "occurred_at", "dedup"}
            yield from ((key, "is for emit: events that are received have their own") for key in sorted(wrong))


class OnError(Record, frozen=True):
    """`processors.*.on_error`: what becomes of an event whose processing keeps failing."""

    attempts: Annotated[int, checks.between(1, 1000)] = 5
    backoff: Annotated[Backoff, checks.waits_at_least(Duration(0.1))] = Backoff(1.0, 60.0)
    then: Literal["dead_letter", "skip", "halt"] = "dead_letter"


class NotificationMatch(Record, frozen=True):
    """`notifications.routes[].match`, and what a silence is about: all that are given must hold. Patterns may hold `*`.

    `data` is a mapping of conditions on the event's data, written as the `where` of a contract.
    """

    types: list[str] = []
    tags: list[str] = []
    severity: Severity | list[Severity] = []
    subject: str | None = None
    contract: str | None = None
    data: dict[str, Any] = {}


class Quiet(Record, frozen=True):
    """`notifications.routes[].quiet`: times of day, `"22:00-06:30"`, on some days of the week, in a time zone (default:
    the machine's)."""

    times: str | list[str]
    days: list[str] = []
    timezone: str = ""


class Escalation(Record, frozen=True):
    """`notifications.routes[].escalate[]`: whom to tell as well when nobody has acknowledged it `after` so long."""

    after: Annotated[Duration, checks.positive]
    channels: Annotated[list[str], checks.some]


class NotificationRoute(Record, frozen=True):
    """`notifications.routes[]`: which channels a matching notification goes to, when, and how often."""

    channels: Annotated[list[str], checks.some]
    match: NotificationMatch = NotificationMatch()
    continue_: bool = msgspec.field(name="continue", default=False)
    title: str | None = None
    body: str | None = None
    group_by: list[str] = []
    group_wait: Duration = Duration(30)
    group_interval: Annotated[Duration, checks.positive] = Duration(300)
    repeat: list[Annotated[Duration, checks.at_least(Duration(10))]] = []
    resolved: bool = True
    quiet: str | Quiet | None = None
    escalate: list[Escalation] = []
    failover: list[str] = []
    ttl: Annotated[Duration, checks.positive] | None = None


class Heartbeat(Record, frozen=True):
    """`notifications.heartbeat`: an address that is asked for every so often, so that somebody outside notices when
    this gateway is dead."""

    url: Annotated[str, checks.http_url]
    every: Annotated[Duration, checks.between(Duration(10), Duration(86400))] = Duration(300)


class Notifications(Record, frozen=True):
    """`notifications`. `public_url` is where people reach the web listener: links to acknowledge begin with it."""

    routes: list[NotificationRoute] = []
    heartbeat: Annotated[str, checks.http_url] | Heartbeat | None = None
    public_url: Annotated[str, checks.http_url] | None = None


class Queue(Record, frozen=True):
    """`jobs.queues.*`: how the jobs of a queue are run.

    `priority` is the queue's among others when `jobs.concurrency` is used up. `processes`, `recycle_after` and
    `memory_max` (of one process) are for `isolation: process`.
    """

    concurrency: Annotated[int, checks.between(1, 1000)] = 2
    lease: Annotated[Duration, checks.between(Duration(1), Duration(86400))] = Duration(60)
    priority: Annotated[Literal["high", "normal", "low"] | int, checks.priority] = "normal"
    rate: Annotated[str, checks.rate] | None = None
    burst: Annotated[int, checks.between(1, 1_000_000)] = 1
    isolation: Literal["none", "process"] = "none"
    processes: Annotated[int, checks.between(1, 64)] = 1
    recycle_after: Annotated[int, checks.at_least(1)] | None = 200
    memory_max: Annotated[Size, checks.at_least(Size(32 * 2**20))] | None = None
    context: str | None = None

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A burst is one of a rate."""
        if "burst" in given and "rate" not in given:
            yield "burst", "needs rate as well"


class Breaker(Record, frozen=True):
    """`jobs.breakers.*`: when a dependency of jobs counts as broken, and how it is tried again."""

    failures: Annotated[int, checks.between(1, 1000)] = 5
    within: Annotated[Duration, checks.positive] = Duration(60)
    wait: Annotated[Duration, checks.between(Duration(1), Duration(86400))] = Duration(30)


class Jobs(Record, frozen=True):
    """`jobs`. `concurrency` is for all queues of a process together, and doesn't limit them unless it is given."""

    queues: dict[Label, Queue] = msgspec.field(default_factory=lambda: {"default": Queue()})
    concurrency: Annotated[int, checks.between(1, 1000)] | None = None
    breakers: dict[Label, Breaker] = {}


class Schedule(Record, frozen=True):
    """`schedules[]`: a job that is dispatched again and again. One of cron and every."""

    name: Name
    job: str
    cron: str | None = None
    every: Annotated[Duration, checks.between(Duration(1), Duration(366 * 86400))] | None = None
    timezone: str | None = None
    args: dict[str, Any] = {}
    catch_up: Literal["skip", "once", "all"] = "once"

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Either a cron line or a period."""
        if ("cron" in given) == ("every" in given):
            yield "", "needs either cron or every"
        if "timezone" in given and "cron" not in given:
            yield "timezone", "is for cron; every counts from the last run"


class Web(Record, frozen=True):
    """`web`: the page and the interface, if edgeq shall listen. Who has the `token` may change things, send events."""

    listen: Annotated[str, checks.listen] | None = None
    token: Annotated[str, checks.header_token] | None = None

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What others can reach needs a token."""
        listen = given.get("listen")
        if listen is not None and "token" not in given and not checks.is_loopback(checks.address(listen)[0]):
            yield "listen", "needs token_file as well: other machines can reach it, and would see everything"


class Log(Record, frozen=True):
    """`log`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


def host_name() -> str:
    """The machine's name, as one level of a topic."""
    return re.sub(r"[^\w.-]+", "-", socket.gethostname()).strip("-") or "edgeq"


class Config(Record, frozen=True):
    """The whole configuration."""

    gateway: Annotated[str, checks.topic_level] = msgspec.field(default_factory=host_name)
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    app: App = App()
    routes: list[Route] = []
    processors: dict[Name, Section] = {}
    channels: dict[Name, Section] = {}
    notifications: Notifications = Notifications()
    contracts: list[Section] = []
    jobs: Jobs = Jobs()
    schedules: list[Schedule] = []
    web: Web = Web()
    log: Log = Log()


class LoadedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration and where it came from.

    `files` are the files read, first the main one; `folder` is the absolute path of the main file's folder; `places`
    maps the dotted path of a key (`mqtt.url`, `routes[2].topic`) to `file:line`, `shown` to what to print instead of
    its value, when that came from a file or was filled in. `secret_files` are those of `KEY_file`, as far as they were
    read. `problems` are mistakes that are still to be told; see `load_to_plan`.
    """

    config: Config
    files: list[str]
    folder: str
    places: dict[str, str]
    shown: dict[str, str] = {}
    secret_files: list[str] = []
    problems: list[Problem] = []

    def where(self, path: str) -> str:
        """`file:line` of the key at dotted `path`, or of the nearest thing around it."""
        return nearest(self.places, path) or (self.files[0] if self.files else "")
