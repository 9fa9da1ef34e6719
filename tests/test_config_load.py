"""Loading: where settings come from, which one wins, and that every mistake is said at once, with its place."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from edgeq.clock import Clock
from edgeq.config.checks import may_be_a_file
from edgeq.config.load import find, load, load_to_plan, redacted, sqlite_path
from edgeq.config.schema import Config, EmitMap, Mqtt, Record
from edgeq.errors import ConfigError, Problem
from edgeq.plan import make_plan
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file below the current folder: `write("mqtt: …")` writes edgeq.yaml."""
    monkeypatch.chdir(tmp_path)

    def to(text: str | bytes, name: str = "edgeq.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to


def problems(environ: Mapping[str, str] = {}, **more: Mapping[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load("edgeq.yaml", environ=environ, **more)
    return [str(problem) for problem in caught.value.problems]


def config(environ: Mapping[str, str] = {}, **more: Mapping[str, str]) -> Config:
    return load("edgeq.yaml", environ=environ, **more).config


# where it is looked for


def test_the_file_is_looked_for_in_order(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\./edgeq\.yaml, \./config/edgeq\.yaml, /etc/edgeq/edgeq\.yaml.*-c FILE"):
        find(None, {})
    write("", "config/edgeq.yaml")
    assert find(None, {}) == Path("config/edgeq.yaml")
    write("", "edgeq.yaml")
    assert find(None, {}) == Path("edgeq.yaml")
    assert find(None, {"EDGEQ_CONFIG": "elsewhere.yaml"}) == Path("elsewhere.yaml")
    assert find("given.yaml", {"EDGEQ_CONFIG": "elsewhere.yaml"}) == Path("given.yaml")


def test_a_file_that_is_named_must_be_there(write: Write) -> None:
    write("")
    with pytest.raises(ConfigError, match=r"elsewhere\.yaml: there is no such file"):
        load(None, environ={"EDGEQ_CONFIG": "elsewhere.yaml"})


def test_what_was_loaded_says_where_it_came_from(write: Write, tmp_path: Path) -> None:
    write("gateway: g\nroutes:\n  - topic: a\n    emit: b\n")
    loaded = load(None, environ={})
    assert (loaded.files, loaded.folder) == (["edgeq.yaml"], str(tmp_path))
    assert loaded.where("routes[0].emit") == "edgeq.yaml:4"
    assert loaded.where("routes[0].limit.rate") == "edgeq.yaml:3"
    assert loaded.where("store.url") == "edgeq.yaml:1"


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "null\n", "mqtt:\nroutes:\njobs:\n  queues:\n", "\ufeff{}"]
)
def test_nothing_is_the_defaults(write: Write, text: str) -> None:
    write(text)
    assert config() == Config()


# types


def test_plain_scalars_are_text_where_text_is_wanted(write: Write) -> None:
    write(
        "gateway: 007\nmqtt: {version: 3.1.1, client_id: 1e3, username: no, password: 0x1F}\n"
        "routes:\n- {topic: on, emit: {map: 1.10, to: {open: yes, on: door.on, 5: 0o7, true: ~x}}, payload: text}\n"
        "channels: {siren: {kind: mqtt, payload: ON, retain: true, qos: 1, note: 1.10}}\n"
    )
    loaded = config()
    assert loaded.gateway == "007"
    assert (loaded.mqtt.version, loaded.mqtt.client_id) == ("3.1.1", "1e3")
    assert (loaded.mqtt.username, loaded.mqtt.password) == ("no", "0x1F")
    assert loaded.routes[0].topic == "on"
    assert loaded.routes[0].emit == EmitMap(map="1.10", to={"open": "yes", "on": "door.on", "5": "0o7", "true": "~x"})
    assert loaded.channels["siren"].data == {"kind": "mqtt", "payload": "ON", "retain": True, "qos": 1, "note": 1.10}
    assert loaded.channels["siren"].written["note"] == "1.10"


def test_version_5_is_the_text_5(write: Write) -> None:
    write("mqtt: {version: 5, keepalive: 1m30s, receive_maximum: '20'}")
    assert config().mqtt == Mqtt(keepalive=Duration(90), receive_maximum=20)


def test_every_mistake_is_said_at_once_in_the_order_of_the_file(write: Write) -> None:
    write(
        """\
gatway: x
mqtt:
  url: http://localhost
  keepalive: 60
  receive_maximum: many
  tls: {key: k}
  password: hunter2
store: {url: "postgresql://me:hunter2@host", durability: ful, commit_interval: 11s}
routes:
  - topic: a/{b}
    subject: {b}
    qos: 3
  - emit: x
    timeout: 0s
    max_payload: 1TiB
    limit: {rate: 5, burst: 0}
processors: [courier]
channels:
  siren: {kind: mqtt}
  my siren: {kind: mqtt}
notifications:
  routes:
    - {match: {severity: critical}, channels: [siren, sren]}
    - {match: {severity: critcal}, channels: []}
    - {match: {severity: [info, loud]}, channels: [siren]}
jobs:
  queues: {default: {concurrency: 0, lease: 10ms}}
log: {level: loud}
"""
    )
    assert problems() == [
        "edgeq.yaml:1: gatway: unknown key (did you mean 'gateway'?)",
        "edgeq.yaml:3: mqtt.url: must be mqtt://HOST:PORT, mqtts://HOST:PORT or embedded://, not 'http://localhost'",
        "edgeq.yaml:4: mqtt.keepalive: 60 has no unit: write 60s, 60m or 60h",
        "edgeq.yaml:5: mqtt.receive_maximum: must be a whole number, not 'many'",
        "edgeq.yaml:6: mqtt.tls.key: needs cert as well",
        "edgeq.yaml:7: mqtt.password: needs username as well",
        "edgeq.yaml:8: store.url: must name a database, such as postgresql://db.example.net/edgeq,"
        " not 'postgresql://<hidden>@host'",
        "edgeq.yaml:8: store.durability: must be full or normal, not 'ful' (did you mean 'full'?)",
        "edgeq.yaml:8: store.commit_interval: must be between 0s and 10s, not '11s'",
        "edgeq.yaml:10: routes[0]: needs one of emit, dispatch, receive or controller",
        "edgeq.yaml:11: routes[0].subject: must be text, not a mapping"
        ' (a value that begins with { needs quotes: "{b}")',
        "edgeq.yaml:12: routes[0].qos: must be 0, 1 or 2, not 3",
        "edgeq.yaml:13: routes[1].topic: is missing",
        "edgeq.yaml:14: routes[1].timeout: must be more than 0, not '0s'",
        "edgeq.yaml:15: routes[1].max_payload: must be between 1B and 256MiB, not '1TiB'",
        "edgeq.yaml:16: routes[1].limit.rate: must be a rate such as 100/s, 5/m or 1/10s, not 5",
        "edgeq.yaml:16: routes[1].limit.burst: must be at least 1, not 0",
        "edgeq.yaml:17: processors: must be a mapping, not a list",
        "edgeq.yaml:20: channels.\"my siren\": must be a name without spaces, not 'my siren'",
        "edgeq.yaml:23: notifications.routes[0].channels[1]: there is no channel 'sren' (did you mean 'siren'?)",
        "edgeq.yaml:24: notifications.routes[1].match.severity: must be debug, info, warning or critical, not 'critcal'"
        " (did you mean 'critical'?)",
        "edgeq.yaml:24: notifications.routes[1].channels: must not be empty",
        "edgeq.yaml:25: notifications.routes[2].match.severity[1]: must be debug, info, warning or critical,"
        " not 'loud'",
        "edgeq.yaml:27: jobs.queues.default.concurrency: must be between 1 and 1000, not 0",
        "edgeq.yaml:27: jobs.queues.default.lease: must be between 1s and 1d, not '10ms'",
        "edgeq.yaml:28: log.level: must be debug, info, warning or error, not 'loud'",
    ]


def planned(path: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_plan(load_to_plan(path, environ={}), publish=nowhere, clock=Clock(), metrics=Metrics())
    return [str(problem) for problem in caught.value.problems]


async def nowhere(*args: Any, **options: Any) -> None:
    raise AssertionError("a plan publishes nothing")


def test_what_only_a_plan_can_see_is_told_with_all_the_rest(write: Write) -> None:
    write(
        """mqtt: {url: http://localhost}
processors: {p: {kind: "nowhere:P"}}
channels: {siren: {kind: pigeon}}
contracts: [{name: a, kind: thresold}]
routes: [{topic: a/#/b, emit: x}]
gatway: x
"""
    )
    assert planned("edgeq.yaml") == [
        "edgeq.yaml:1: mqtt.url: must be mqtt://HOST:PORT, mqtts://HOST:PORT or embedded://, not 'http://localhost'",
        "edgeq.yaml:2: processors.p.kind: there is no module 'nowhere' (looked in app.path and where Python looks)",
        "edgeq.yaml:3: channels.siren.kind: there is no such kind: 'pigeon'; there is: apprise, exec, inbox, log, "
        "mqtt, ntfy, smtp, webhook",
        "edgeq.yaml:4: contracts[0].kind: there is no such kind: 'thresold'; did you mean 'threshold'?",
        "edgeq.yaml:5: routes[0].topic: '#' must be the last level",
        "edgeq.yaml:6: gatway: unknown key (did you mean 'gateway'?)",
    ]


def test_with_a_wrong_app_nothing_is_said_of_what_would_be_imported(write: Write) -> None:
    write("app: {modules: 5}\nprocessors: {p: {kind: 'nowhere:P'}}\n")
    assert planned("edgeq.yaml") == ["edgeq.yaml:1: app.modules: must be a list, not 5"]


def test_jobs_that_no_queue_would_run_are_warned_of(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(
        "from edgeq import Job\nclass Valve(Job):\n    queue = 'elsewhere'\n    async def handle(self, ctx): ...\n",
        "valves_app.py",
    )
    warned = []
    for queues in ("", "\njobs: {queues: {elsewhere: {}}}"):
        write("app: {path: ., modules: [valves_app]}" + queues)
        loaded = load_to_plan("edgeq.yaml", environ={})
        plan = make_plan(loaded, publish=nowhere, clock=Clock(), metrics=Metrics())
        warned.append([warning for warning in plan.warnings if "valves_app" in warning])
    assert warned == [
        [
            "edgeq.yaml:1: jobs.queues: no queue is called 'elsewhere': jobs of valves_app:Valve would run only under "
            "`edgeq work elsewhere`"
        ],
        [],
    ]


@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        ("mqtt.receive_maximum", ["0", "65536", "-1", "1.5"], ["1", "65535"]),
        ("mqtt.session_expiry", ["4294967296s", "500ms", "-1s"], ["0", "0s", "1s", "4294967295s"]),
        ("mqtt.keepalive", ["4s", "64801s", "5500ms"], ["5s", "18h"]),
        ("mqtt.group", ["", "a/b", "a b", "+", "a#"], ["site"]),
        ("mqtt.client_id", ["a b", "a#", "a\n", "x" * 65536], ["", "a/b", "gerät-1"]),
        (
            "mqtt.status_topic",
            ["", "a/+", "a/#", "{name}/x", "{gateway", "$SYS/x", "a/", "a\0"],
            ["edgeq", "a/{gateway}/b", "a b"],
        ),
        (
            "mqtt.url",
            ["", "localhost", "localhost:1883", "mqtt://", "mqtt://:1883", "mqtt://h:0", "mqtt://h:65536", "mqtt://h:x",
             "mqtt://h/path", "mqtt://h?x", "mqtt://[::1", "mqtt://h h", "mqtt://h\n", "ws://h", "MQTT//h", "mqtt://u:p@h"],
            ["mqtt://h", "mqtts://h:8883", "mqtt://h/", "mqtt://[::1]:1883", "embedded://", "embedded://127.0.0.1:1884"],
        ),
        (
            "store.url",
            ["", ":memory:", "sqlite://h/x", "sqlite:///", "sqlite://", "mysql://h/d", "d/", "a\0b", "postgresql://h",
             "postgresql://", "postgresql://h/a/b", "postgresql://h:x/d", "postgresql://u:p/w@h/d", "postgresql://u@p@h/d",
             "postgresql://u:50%@h/d", "postgresql://h/d?x", "postgresql://h/d?x=1=2", "postgresql://h /d",
             "postgresql://[::1/d", "Postgres://h/d"],
            ["a.db", "/var/lib/a.db", "sqlite:///a.db", "sqlite:////var/lib/a.db", "postgres://h/d", "postgresql:///d",
             "postgresql://u:p%40%2F@h:5432/d?sslmode=verify-full&target_session_attrs=read-write", "postgresql://[::1]/d",
             "postgresql://a:1,b:2,[::1]:3/d", "postgresql://u@%2Frun%2Fpostgresql/d", "postgresql:///?service=edgeq"],
        ),
        ("store.commit_interval", ["-1s", "10001ms", "5"], ["0", "0ms", "10s"]),
        ("gateway", ["", "a/b", "a b", "a+", "#", "\t", "a\u2028b"], ["a", "a.b-c_1", "gewächshaus"]),
        ("log.format", ["pretty"], ["auto", "text", "json"]),
        ("mqtt.tls.insecure", ["2", "ja"], ["no", "off", "false"]),
        ("store.retention.jobs", ["0", "forever", "-1d"], ["7d", "1s"]),
        ("store.retention.jobs.dead", ["0s", "90"], ["90d"]),
        ("store.retention.events", ["0", "59s", "30", "forever"], ["60s", "30d", "36500d"]),
        ("store.retention.dead_letters", ["59s"], ["60s"]),
        ("store.retention.notifications", ["59s"], ["60s"]),
        ("store.retention.max_size", ["3MiB", "2 bytes", "-1"], ["4MiB", "2GiB"]),
        ("store.retention.max_rows", ["0", "1.5", "many"], ["1", "5000000"]),
        ("store.retention.min_free_disk", ["-1"], ["0", "200MiB"]),
        ("jobs.concurrency", ["0", "1001", "all"], ["1", "1000"]),
        ("jobs.queues.q.priority", ["urgent", "1001", "-1001", "0.5"], ["high", "normal", "low", "-1000", "1000"]),
        ("jobs.queues.q.rate", ["fast", "10", "0/s", "10/", "-1/s", "1/0s"], ["100/s", "0.5/m", "1/10s"]),
        ("jobs.queues.q.isolation", ["thread"], ["none", "process"]),
        ("jobs.queues.q.processes", ["0", "65"], ["1", "64"]),
        ("jobs.queues.q.recycle_after", ["0", "never"], ["1", "10000"]),
        ("jobs.queues.q.memory_max", ["31MiB", "0", "lots"], ["32MiB", "2GiB"]),
        ("jobs.breakers.b.failures", ["0", "1001"], ["1", "1000"]),
        ("jobs.breakers.b.within", ["0", "1"], ["1ms", "1d"]),
        ("jobs.breakers.b.wait", ["500ms", "25h"], ["1s", "1d"]),
    ],
)  # fmt: skip
def test_the_edges_of_what_is_possible(write: Write, path: str, bad: list[str], good: list[str]) -> None:
    write("")
    for value in good:
        config(overrides={path: value})
    for value in bad:
        found = problems(overrides={path: value})
        assert len(found) == 1, value
        assert found[0].startswith(f"command line: {path}: "), value
        assert len(found[0]) < 400


def test_tls_without_mqtts_is_a_mistake(write: Write) -> None:
    write("mqtt: {tls: {ca: ca.pem}}")
    assert problems() == ["edgeq.yaml:1: mqtt.tls: is used with mqtts:// only, and url is not"]
    assert config(overrides={"mqtt.url": "mqtts://h"}).mqtt.tls.ca == os.path.abspath("ca.pem")


def test_the_path_of_the_database_is_relative_to_the_current_folder(write: Write, tmp_path: Path) -> None:
    write("")
    assert sqlite_path("a.db") == sqlite_path("sqlite:///a.db") == f"{tmp_path}/a.db"
    assert sqlite_path("sqlite:////x/a.db") == sqlite_path("/x/a.db") == "/x/a.db"


def test_the_host_name_is_made_to_fit_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "my host/+#1")
    assert Config().gateway == "my-host-1"
    monkeypatch.setattr("socket.gethostname", lambda: "#")
    assert Config().gateway == "edgeq"


def test_there_is_always_a_default_queue(write: Write) -> None:
    write("jobs: {queues: {video: {concurrency: 1}}}")
    assert list(config().jobs.queues) == ["default", "video"]
    write("jobs: {queues: {video: {isolation: process, recycle_after: null}}}")
    assert config().jobs.queues["video"].recycle_after is None


def test_limits_of_the_store_can_be_left_out(write: Write) -> None:
    write("store: {retention: {max_size: null, max_rows: null, min_free_disk: 0}}")
    kept = config().store.retention
    assert (kept.max_size, kept.max_rows, kept.min_free_disk) == (None, None, 0)


def test_keys_of_jobs_that_do_not_go_together_are_mistakes(write: Write) -> None:
    write(
        "jobs:\n  queues:\n    q: {burst: 5}\n    r r: {}\nschedules:\n  - {name: a, job: 'm:J'}\n"
        "  - {name: b, job: 'm:J', every: 1h, cron: '* * * * *'}\n"
        "  - {name: c, job: 'm:J', every: 1h, timezone: UTC}\n  - {name: d d, job: 'm:J', every: 1ms}\n"
    )
    assert problems() == [
        "edgeq.yaml:3: jobs.queues.q.burst: needs rate as well",
        "edgeq.yaml:4: jobs.queues.\"r r\": must be a name of up to 64 letters, digits, '_', '-' and '.', not 'r r'",
        "edgeq.yaml:6: schedules[0]: needs either cron or every",
        "edgeq.yaml:7: schedules[1]: needs either cron or every",
        "edgeq.yaml:8: schedules[2].timezone: is for cron; every counts from the last run",
        "edgeq.yaml:9: schedules[3].name: must be a name without spaces, not 'd d'",
        "edgeq.yaml:9: schedules[3].every: must be between 1s and 366d, not '1ms'",
    ]


def test_what_schedules_contexts_and_breakers_name_is_looked_for(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(
        "from edgeq import Job\nthing = 5\nclass Tick(Job):\n    needs = 'crm'\n    n: int\n"
        "    def handle(self, ctx): ...\n",
        "ticks_app.py",
    )
    write(
        "app: {path: ., modules: [ticks_app]}\n"
        "schedules:\n"
        "  - {name: a, job: 'ticks_app:Tock', every: 1h}\n"
        "  - {name: b, job: 'ticks_app:Tick', every: 1h, args: {n: many}}\n"
        "  - {name: c, job: 'ticks_app:Tick', cron: 'now and then', args: {n: 1}}\n"
        "jobs:\n"
        "  queues:\n"
        "    default: {context: 'ticks_app:thing'}\n"
        "    other: {context: 'ticks_app:gone'}\n"
        "    third: {context: nothing}\n"
    )
    a, b, c, *contexts = planned("edgeq.yaml")
    assert a.startswith("edgeq.yaml:3: schedules[0].job: ticks_app has no 'Tock'; did you mean 'Tick'?")
    assert b.startswith("edgeq.yaml:4: schedules[1].args: ")
    assert "Expected `int`, got `str`" in b
    assert c.startswith("edgeq.yaml:5: schedules[2].cron: ")
    assert contexts == [
        "edgeq.yaml:8: jobs.queues.default.context: ticks_app:thing isn't a function",
        "edgeq.yaml:9: jobs.queues.other.context: ticks_app has no 'gone'",
        "edgeq.yaml:10: jobs.queues.third.context: 'nothing' must be written package.module:name",
    ]
    write("app: {path: ., modules: [ticks_app]}\njobs: {breakers: {crm: {}, crn: {}}}\n")
    plan = make_plan(load_to_plan("edgeq.yaml", environ={}), publish=nowhere, clock=Clock(), metrics=Metrics())
    assert [warning for warning in plan.warnings if "breakers" in warning] == [
        "edgeq.yaml:2: jobs.breakers.crn: no job needs 'crn'"
    ]


# conf.d


def test_files_in_conf_d_are_merged_in_order_of_their_names(write: Write) -> None:
    write("routes: [{topic: one, emit: e}]\nchannels: {a: {kind: log}}\nmqtt: {username: u}")
    write("routes: [{topic: three, emit: e}]\nmqtt: {group: g}\nlog:", "conf.d/20.yaml")
    write("routes: [{topic: two, emit: e}]\nchannels: {b: {kind: log}}\nlog: {level: debug}", "conf.d/10.yaml")
    write("log: {level: error}", "conf.d/.hidden.yaml")
    write("log: {level: error}", "conf.d/notes.txt")
    loaded = load("edgeq.yaml", environ={})
    assert [route.topic for route in loaded.config.routes] == ["one", "two", "three"]
    assert list(loaded.config.channels) == ["a", "b"]
    assert (loaded.config.mqtt.username, loaded.config.mqtt.group) == ("u", "g")
    assert loaded.files == ["edgeq.yaml", "conf.d/10.yaml", "conf.d/20.yaml"]
    assert loaded.where("routes[2].topic") == "conf.d/20.yaml:1"
    assert loaded.config.channels["b"].where("kind") == "conf.d/10.yaml:2"


def test_a_key_set_in_two_files_is_a_mistake_that_names_both(write: Write) -> None:
    write("mqtt:\n  group: a\nroutes: []")
    write("\nmqtt: {group: a}\nroutes: {topic: x}", "conf.d/a.yaml")
    assert problems() == [
        "conf.d/a.yaml:2: mqtt.group: is set already at edgeq.yaml:2 (a key is set in one file only)",
        "conf.d/a.yaml:3: routes: is set already at edgeq.yaml:3 (a key is set in one file only)",
    ]


def test_files_that_cant_be_read_are_all_named(write: Write) -> None:
    write("a: [")
    write("b: }", "conf.d/b.yaml")
    write(b"\xff", "conf.d/c.yaml")
    assert [line.partition(": ")[0] for line in problems()] == ["edgeq.yaml:1", "conf.d/b.yaml:1", "conf.d/c.yaml"]


# environment and command line


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(write: Write) -> None:
    write("mqtt: {url: 'mqtt://file', group: file, username: file}")
    environ = {"EDGEQ_MQTT__URL": "mqtt://env", "EDGEQ_MQTT__GROUP": "env", "PATH": "x", "EDGEQ_CONFIG": "no.yaml"}
    mqtt = config(environ, overrides={"mqtt.url": "mqtt://line"}).mqtt
    assert (mqtt.url, mqtt.group, mqtt.username) == ("mqtt://line", "env", "file")


def test_the_environment_sets_values_of_every_type(write: Write) -> None:
    write("processors: {pump-log: {kind: x, batch_size: 1}}\nmqtt:")
    environ = {
        "EDGEQ_MQTT__RECEIVE_MAXIMUM": "50", "EDGEQ_MQTT__VERSION": "5", "EDGEQ_MQTT__KEEPALIVE": "30s",
        "EDGEQ_MQTT__USERNAME": "null", "EDGEQ_MQTT__TLS__INSECURE": "no", "EDGEQ_GATEWAY": "12",
        "EDGEQ_PROCESSORS__PUMP_LOG__BATCH_SIZE": "7", "EDGEQ_CHANNELS__PHONE__KIND": "log",
        "EDGEQ_JOBS__QUEUES__VIDEO__CONCURRENCY": "3", "EDGEQ_FAILPOINT": "x:1",
    }  # fmt: skip
    loaded = config(environ)
    assert (loaded.mqtt.receive_maximum, loaded.mqtt.version, loaded.mqtt.keepalive) == (50, "5", Duration(30))
    assert (loaded.mqtt.username, loaded.mqtt.tls.insecure, loaded.gateway) == ("null", False, "12")
    assert loaded.processors["pump-log"].data == {"kind": "x", "batch_size": 7}
    assert loaded.processors["pump-log"].where("batch_size") == "EDGEQ_PROCESSORS__PUMP_LOG__BATCH_SIZE"
    assert loaded.channels["phone"].data == {"kind": "log"}
    assert loaded.jobs.queues["video"].concurrency == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("EDGEQ_MQTT__URI", "mqtt.uri: unknown key (did you mean 'url'?)"),
        ("EDGEQ_MQT", "mqt: unknown key (did you mean 'mqtt'?)"),
        ("EDGEQ_MQTT", "mqtt: must be a mapping, not 'x'"),
        ("EDGEQ_", "isn't the name of a key"),
        ("EDGEQ_MQTT__", "isn't the name of a key"),
        ("EDGEQ" + "__A" * 5000, "isn't the name of a key"),
        ("EDGEQ_GATEWAY__NAME", "gateway: isn't a mapping, so nothing below it can be set"),
        ("EDGEQ_ROUTES", "routes: must be a list, not 'x'"),
    ],
)
def test_a_variable_that_is_no_key_is_a_mistake(write: Write, name: str, message: str) -> None:
    write("gateway: g")
    assert problems({name: "x"}) == [f"{name}: {message}"]


def test_a_variable_set_in_two_spellings_is_a_mistake(write: Write) -> None:
    write("")
    assert problems({"EDGEQ_GATEWAY": "a", "edgeq_gateway": "b"}) == [
        "edgeq_gateway: gateway is set twice, also by EDGEQ_GATEWAY"
    ]
    assert problems({"EDGEQ_LOG": "a", "EDGEQ_LOG__LEVEL": "b"})[0].startswith("EDGEQ_LOG")


def test_a_password_from_above_replaces_the_file_below(write: Write) -> None:
    write("mqtt: {username: u, password_file: nowhere}")
    assert config({"EDGEQ_MQTT__PASSWORD": "p"}).mqtt.password == "p"
    write("mqtt: {username: u, password: low}")
    write("high\n", "pw")
    assert config({"EDGEQ_MQTT__PASSWORD_FILE": "pw"}).mqtt.password == "high"


def test_bytes_that_are_no_text_are_a_mistake(write: Write) -> None:
    write("mqtt: {group: '${SITE}'}")
    bad = os.fsdecode(b"\xff")
    assert problems({"SITE": bad}) == ["edgeq.yaml:1: mqtt.group: what SITE holds is not UTF-8"]
    assert problems({"SITE": "s", "EDGEQ_GATEWAY": bad}) == ["EDGEQ_GATEWAY: what EDGEQ_GATEWAY holds is not UTF-8"]
    str(problems({"SITE": "s", f"EDGEQ_{bad}": "x"})).encode()


# references


def test_references_are_filled_in(write: Write) -> None:
    write(
        "gateway: ${SITE}-${N:-1}\nmqtt: {url: 'mqtt://${HOST:-localhost}:${PORT}', username: '$${USER} $x {y}'}\n"
        "processors: {p: {batch_size: '${SIZE}', n: 1}}\n"
        "jobs: {queues: {default: {concurrency: '${SIZE}'}}}"
    )
    loaded = config({"SITE": "north", "PORT": "1884", "HOST": "", "SIZE": "5"})
    assert loaded.gateway == "north-1"
    assert (loaded.mqtt.url, loaded.mqtt.username) == ("mqtt://localhost:1884", "${USER} $x {y}")
    assert loaded.jobs.queues["default"].concurrency == 5
    assert loaded.processors["p"].data == {"batch_size": "5", "n": 1}


def test_a_value_that_is_filled_in_is_never_read_as_yaml(write: Write) -> None:
    write("app:\n  path: ${X}\nchannels:\n  a: {kind: '${X}'}\n  b:\n    kind: ${X}\n    size: ${N}")
    evil = "{a: 1}\nevil: [1, *x, ${Y}] # "
    loaded = load("edgeq.yaml", environ={"X": evil, "N": "null"}).config
    assert loaded.app.path == os.path.abspath(evil)
    assert (loaded.channels["a"].data, loaded.channels["b"].data) == ({"kind": evil}, {"kind": evil, "size": "null"})


@pytest.mark.parametrize("text", ["${", "${}", "a ${1X}", "${A B}", "${A", "${:-x}", "${A:x}"])
def test_a_reference_must_be_well_formed(write: Write, text: str) -> None:
    write(f"gateway: '{text}'")
    assert problems({"A": "x"}) == [
        "edgeq.yaml:1: gateway: ${ must be followed by a name and }; write $${ for ${ itself"
    ]


def test_a_missing_variable_is_said_where_it_is_wanted(write: Write) -> None:
    write("gateway: g\nchannels:\n  a:\n    kind: log\n    url: https://x/${TOPIC}\nlog: {level: '${LEVEL}'}")
    assert problems({"LEVEL": "loud"}) == [
        "edgeq.yaml:5: channels.a.url: there is no TOPIC in the environment: set it, or write ${TOPIC:-default}",
        "edgeq.yaml:6: log.level: must be debug, info, warning or error, not ${LEVEL}",
    ]


# files and secrets


class Step(Record, frozen=True):
    key: str


class Own(Record, frozen=True):
    token: str
    headers: dict[str, Annotated[str, may_be_a_file]] = msgspec.field(default_factory=dict)
    steps: list[Step] = msgspec.field(default_factory=list)
    state_file: str = ""
    plain: dict[str, str] = msgspec.field(default_factory=dict)


def config_of(text: str, write: Write) -> Config:
    write(text)
    return config()


def test_text_comes_from_files(write: Write, tmp_path: Path) -> None:
    write("mqtt: {username: u, password_file: sub/pw, url_file: '${WHERE}/url'}\nchannels: {a: {kind: x, token_file: t,"
          " headers: {Authorization_file: t}, steps: [{key_file: t}], state_file: t}}")  # fmt: skip
    write("from folder\n\n", "sub/pw")
    write("mqtt://h:1\r\n", "url")
    write("tok", "t")
    loaded = load("edgeq.yaml", environ={"WHERE": str(tmp_path)}).config
    assert (loaded.mqtt.password, loaded.mqtt.url) == ("from folder\n", "mqtt://h:1")
    section, found = loaded.channels["a"], list[Problem]()
    assert section.read(Own, found) == Own("tok", {"Authorization": "tok"}, [Step("tok")], "t", plain={})
    assert found == []
    problem = section.problem("token", "'tok' is too short")
    assert (problem.where, problem.message) == ("edgeq.yaml:2", "'<hidden>' is too short")


def test_a_section_says_where_a_file_is_named_that_gives_no_text(write: Write, tmp_path: Path) -> None:
    write("channels:\n  a:\n    kind: x\n    token_file: nowhere\n    headers: {A_file: none, B: b, B_file: t}\n"
          "    steps: [{key_file: t, kex_file: t}]\n    plain: {a_file: text}\n    state_fil: t")  # fmt: skip
    write("tok", "t")
    found: list[Problem] = []
    assert load("edgeq.yaml", environ={}).config.channels["a"].read(Own, found) is None
    assert [str(problem) for problem in found] == [
        f"edgeq.yaml:4: channels.a.token_file: {tmp_path}/nowhere: there is no such file",
        f"edgeq.yaml:5: channels.a.headers.A_file: {tmp_path}/none: there is no such file",
        "edgeq.yaml:5: channels.a.headers.B_file: B and B_file can't both be given",
        "edgeq.yaml:6: channels.a.steps[0].kex_file: unknown key (did you mean 'key_file'?)",
        "edgeq.yaml:8: channels.a.state_fil: unknown key (did you mean 'state_file'?)",
    ]
    plain = config_of("channels: {a: {token: t, plain: {a_file: text}}}", write).channels["a"].read(Own, found)
    assert plain == Own("t", plain={"a_file": "text"})


def test_credentials_come_first(write: Write, tmp_path: Path) -> None:
    write("mqtt: {username_file: user, password_file: pw}")
    write("file", "user")
    write("file", "pw")
    write("credential", "creds/pw")
    mqtt = config({"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")}).mqtt
    assert (mqtt.username, mqtt.password) == ("file", "credential")


def test_a_folder_of_credentials_has_the_names_that_systemd_gives_them(write: Write, tmp_path: Path) -> None:
    """`LoadCredential=secrets:/etc/edgeq/secrets` makes secrets/pw of secrets_pw, and one file is right for both."""
    write("mqtt: {username: u, password_file: secrets/pw}")
    write("file", "secrets/pw")
    write("credential", "creds/secrets_pw")
    assert config({}).mqtt.password == "file"
    assert config({"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")}).mqtt.password == "credential"


def test_a_file_that_gives_no_text_is_a_mistake(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    write(b"\xff\xfe", "binary")
    write("\n", "empty")
    write("x" * (64 * 1024 + 1), "large")
    write("x" * (64 * 1024), "just")
    write(
        "routes:\n"
        + "".join(
            f"  - {{topic: a, emit: b, description_file: {value}}}\n"
            for value in ("just", "missing", "fifo", "folder", "binary", "empty", "large", "[x]", '"a\\0b"', "",
                          "just, description: x")
        )
        + "mqtt: {receive_maximum_file: just, username: u, password: p, password_file: just, passwrod_file: just}\n"
        "app: {modules_file: just}"
    )  # fmt: skip
    at = "edgeq.yaml:{}: routes[{}].description_file: "
    folder = f"{tmp_path}/"
    assert problems() == [
        at.format(3, 1) + folder + "missing: there is no such file",
        at.format(4, 2) + folder + "fifo: is not a regular file",
        at.format(5, 3) + folder + "folder: is a folder, not a file",
        at.format(6, 4) + folder + "binary: is not UTF-8 (line 1)",
        at.format(7, 5) + folder + "empty: is empty",
        at.format(8, 6) + folder + "large: is larger than 64 KiB",
        at.format(9, 7) + "must be text, not a list",
        at.format(10, 8) + folder + "a\0b: has an impossible name",
        at.format(11, 9) + "has no value: must be text",
        at.format(12, 10) + "description and description_file can't both be given",
        "edgeq.yaml:13: mqtt.receive_maximum_file: only text may come from a file, and receive_maximum isn't text",
        "edgeq.yaml:13: mqtt.password_file: password and password_file can't both be given",
        "edgeq.yaml:13: mqtt.passwrod_file: unknown key (did you mean 'password_file'?)",
        "edgeq.yaml:14: app.modules_file: only text may come from a file, and modules isn't text",
    ]


SECRETS = """\
gateway: g
mqtt: {username: u, password: hunter1, url_file: url}
channels:
  a: {kind: webhook, url: "https://me:hunter2@host/x?token=hunter3&a=b", api_key: hunter4, text_file: text, n: 1,
      headers: {Authorization: hunter5, token: 12345}, topic: "https://ntfy.sh/${TOPIC}", site: "${SITE:-north}"}
routes: [{topic: a, emit: b, description_file: text}]
"""


def test_secrets_are_shown_nowhere(write: Write) -> None:
    write(SECRETS)
    write("mqtt://hunter6", "url")
    write("hunter7", "text")
    loaded = load("edgeq.yaml", environ={"TOPIC": "hunter8"})
    shown = redacted(loaded)
    for text in (repr(loaded), repr(loaded.config), repr(loaded.config.mqtt), repr(loaded.config.channels), str(shown)):
        assert "hunter" not in text
        assert "12345" not in text
    assert shown["channels"]["a"] == {
        "kind": "webhook", "url": "https://<hidden>@host/x?token=<hidden>&a=b", "api_key": "<hidden>", "n": 1,
        "headers": {"Authorization": "<hidden>", "token": "<hidden>"}, "topic": "https://ntfy.sh/${TOPIC}",
        "site": "north", "text_file": "text",
    }  # fmt: skip
    assert shown["mqtt"]["password"] == shown["mqtt"]["url"] == "<hidden>"
    assert (shown["mqtt"]["username"], shown["mqtt"]["keepalive"], shown["mqtt"]["group"]) == ("u", "1m", None)
    assert shown["routes"][0]["description"] == "<hidden>"


def test_mistakes_about_secrets_dont_repeat_them(write: Write) -> None:
    write("hunter3", "text")
    write(
        "mqtt: {url_file: text, version_file: text, keepalive: '${A}', password: [hunter1]}\n"
        "store: {url: 'mysql://me:hunter2@host'}\nlog: {level_file: text}\ngateway: '${A}/${B}'"
    )
    found = problems({"A": "hunter4", "B": "x", "EDGEQ_MQTT__PASSWORD": "hunter5"})
    assert "hunter" not in "\n".join(found)
    assert [line.partition(": ")[2].partition(": ")[0] for line in found] == [
        "mqtt.url", "mqtt.version_file", "mqtt.keepalive", "store.url", "log.level_file", "gateway", "mqtt.password"
    ]  # fmt: skip
    problem = load_section_problem(write)
    assert "hunter" not in str(problem)


def load_section_problem(write: Write) -> Problem:
    write("channels: {a: {kind: k, url_file: text}}")
    section = config().channels["a"]
    own = section.read(Addressed, [])
    assert own is not None
    return section.problem("url", f"{own.url!r} is not a URL")


class Addressed(Record, frozen=True):
    url: str
