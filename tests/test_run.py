"""`edgeq run` as a process of its own: signals, reloads, and brokers that are not as they should be."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.load import ECHO, ROUTE, Load, audit, echoed, stored
from support.mosquitto import Mosquitto, Peer, free_port

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db}}
app: {{path: ., modules: [app]}}
routes:
  - {{topic: "a/{{n}}", emit: a}}
  - {{topic: "slow/{{n}}", controller: app:slow, timeout: 1m}}
"""

# Begins, says so in a file, and goes on as soon as there is a file that says so.
APP = """\
import asyncio
from pathlib import Path

async def slow(ctx, n):
    Path(f"began-{n}").touch()
    while not Path(f"go-{n}").exists():
        await asyncio.sleep(0.01)
    ctx.emit("slow.done", subject=n)
"""

# Takes its time to be imported: until there is a file that says so.
SLOW_IMPORT = """\
import time
from pathlib import Path

Path("importing").touch()
while not Path("go").exists():
    time.sleep(0.01)
"""


def types(edgeq: Appliance) -> list[str]:
    """The types of the stored events, in order."""
    return [row[0] for row in edgeq.sql("SELECT type FROM events ORDER BY id")]


def topics(edgeq: Appliance) -> list[str]:
    """The topics that the stored events came from, in order."""
    return [row[0] for row in edgeq.sql("SELECT topic FROM events ORDER BY id")]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Appliance]]:
    """Makes appliances, which end with the test."""
    made: list[Appliance] = []

    def appliance(url: str, more: str = "", *, name: str = "edgeq") -> Appliance:
        new = Appliance(tmp_path / name, CONFIGURATION.format(url=url) + more)
        (new.folder / "app.py").write_text(APP)
        made.append(new)
        return new

    yield appliance
    for each in made:
        each.kill()


@pytest.fixture
def edgeq(make: Callable[..., Appliance], broker: Mosquitto) -> Appliance:
    """An appliance that is not started yet, and whose broker runs."""
    return make(broker.url)


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_finishes_what_is_in_hand(edgeq: Appliance, broker: Mosquitto, number: int) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish("slow/1", "{}")
        edgeq.until((edgeq.folder / "began-1").exists, "the controller to begin")
        peer.publish("slow/2", "{}")
        edgeq.until((edgeq.folder / "began-2").exists, "the second controller to begin")
        edgeq.send(number)
        edgeq.until(lambda: "stopping" in edgeq.log, "the drain to begin")
        peer.publish("a/late", "{}")
        for n in (1, 2):
            (edgeq.folder / f"go-{n}").touch()
        assert edgeq.ended() == 0
        assert types(edgeq) == ["slow.done", "slow.done"]
        with Peer(broker.port, "edgeq/gw/state") as watcher:
            watcher.wait(lambda: len(watcher.messages) > 0)
            assert [(m.topic, m.payload, m.retain) for m in watcher.messages] == [("edgeq/gw/state", b"offline", True)]
        edgeq.start()
        edgeq.until(lambda: "a/late" in topics(edgeq), "what the broker kept")
        assert edgeq.stop() == 0
    assert types(edgeq) == ["slow.done", "slow.done", "a"], "what was finished was acknowledged: it doesn't come again"
    assert "Traceback" not in edgeq.log


def test_a_second_signal_ends_it_at_once_and_the_message_comes_again(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish("slow/1", "{}")
    edgeq.until((edgeq.folder / "began-1").exists, "the controller to begin")
    edgeq.send(signal.SIGTERM)
    edgeq.until(lambda: "stopping" in edgeq.log, "the drain to begin")
    edgeq.send(signal.SIGTERM)
    assert edgeq.ended() == 0
    assert "given back now" in edgeq.log
    assert types(edgeq) == []
    (edgeq.folder / "go-1").touch()
    edgeq.start()
    edgeq.until(lambda: types(edgeq) == ["slow.done"], "the message, once more")
    assert edgeq.stop() == 0


def test_what_takes_too_long_to_finish_is_left_to_the_next_start(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish("slow/1", "{}")
        edgeq.until((edgeq.folder / "began-1").exists, "the controller to begin")
        assert edgeq.stop() == 0
    assert "1 messages are left as they are; the broker sends them again" in edgeq.log
    (edgeq.folder / "go-1").touch()
    edgeq.start()
    edgeq.until(lambda: types(edgeq) == ["slow.done"], "the message, once more")
    assert edgeq.stop() == 0


# Starting


def test_a_second_appliance_on_one_file_is_refused(edgeq: Appliance) -> None:
    edgeq.start()
    assert edgeq.process is not None
    done = edgeq.cli("run")
    assert done.returncode == 1
    assert f"another edgeq (process {edgeq.process.pid}) runs on {edgeq.database}" in done.stderr
    assert "stop it first, or give this one a store.url of its own" in done.stderr
    assert "Traceback" not in done.stderr
    assert edgeq.status()["pid"] == edgeq.process.pid, "the first one can still be asked"
    assert edgeq.stop() == 0


def test_a_store_that_never_can_be_opened_ends_it(make: Callable[..., Appliance]) -> None:
    edgeq = make("mqtt://127.0.0.1:1", "")
    edgeq.configure(CONFIGURATION.format(url="mqtt://127.0.0.1:1").replace("edgeq.db", "gone/edgeq.db"))
    done = edgeq.cli("run")
    assert done.returncode == 1
    assert f"the folder {edgeq.folder}/gone doesn't exist (make it, or change store.url)" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_check_warns_of_stands_in_the_log(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.configure(
        CONFIGURATION.format(url=broker.url)
        .replace("edgeq.db}", "edgeq.db, durability: normal}")
        .replace("emit: a}", "emit: a, qos: 2}")
    )
    edgeq.start()
    assert "edgeq.yaml:3: store.durability: normal may lose acknowledged messages at a power cut" in edgeq.log
    assert "edgeq.yaml:6: routes[0].qos: 2 is taken as 1" in edgeq.log
    assert edgeq.stop() == 0


# Reloading


def test_a_reload_adds_and_removes_routes_at_the_broker_too(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish("a/1", "{}")
        edgeq.until(lambda: topics(edgeq) == ["a/1"], "the first event")
        edgeq.reload(CONFIGURATION.format(url=broker.url).replace('topic: "a/', 'topic: "b/'))
        received = edgeq.status()["counters"]["edgeq_messages_received_total"].get("", 0)
        peer.publish("a/2", "{}")
        peer.publish("b/2", "{}")
        edgeq.until(lambda: topics(edgeq) == ["a/1", "b/2"], "the event of the new route")
        counters = edgeq.status()["counters"]
        assert counters["edgeq_messages_received_total"][""] == received + 1, "the broker sends what nobody wants"
        edgeq.stop()
        peer.publish("a/3", "{}")  # nor does it keep it for us
        peer.publish("b/3", "{}")
        edgeq.start()
        edgeq.until(lambda: topics(edgeq) == ["a/1", "b/2", "b/3"], "the event of the new route")
    assert edgeq.stop() == 0


def test_reloads_and_restarts_under_load_lose_nothing_and_double_nothing(edgeq: Appliance, broker: Mosquitto) -> None:
    configuration = CONFIGURATION.format(url=broker.url) + ROUTE
    configuration += "processors: {echo: {kind: 'echo:Echo', start: beginning}}\n"
    edgeq.configure(configuration)
    (edgeq.folder / "echo.py").write_text(ECHO)
    edgeq.start()
    load = Load(broker.port, "reloads")
    sending = threading.Thread(target=load.send, args=(20_000,))
    sending.start()
    for number in range(4):
        edgeq.until(lambda number=number: len(stored(edgeq, load)) > 4000 * number, "some of the load")
        if number % 2:
            edgeq.reload(configuration)
        else:
            assert edgeq.stop() == 0
            edgeq.start()
    sending.join()
    edgeq.until(lambda: len(stored(edgeq, load)) == 20_000 and echoed(edgeq), "all of it")
    load.close()
    audit(edgeq, load, kills=0)
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


def test_after_a_reload_idle_costs_nothing(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    edgeq.reload(CONFIGURATION.format(url=broker.url))
    assert edgeq.process is not None
    stat = Path(f"/proc/{edgeq.process.pid}/stat")

    def processor_seconds() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rests() -> bool:
        used = processor_seconds()
        time.sleep(2)
        return processor_seconds() - used < 0.2

    edgeq.until(rests, "it to rest: something goes round and round")
    assert edgeq.stop() == 0


def test_a_hang_up_during_the_start_reads_the_configuration_again_after_it(edgeq: Appliance) -> None:
    (edgeq.folder / "app.py").write_text(SLOW_IMPORT + APP)
    edgeq.spawn()
    edgeq.until((edgeq.folder / "importing").exists, "the import")
    edgeq.send(signal.SIGHUP)
    (edgeq.folder / "go").touch()
    edgeq.until(lambda: "the configuration was read again" in edgeq.log, "the reload")
    edgeq.until(edgeq.connected, "a connection")
    assert edgeq.stop() == 0


def test_a_program_that_still_starts_ends_well_when_it_is_told_to(edgeq: Appliance) -> None:
    (edgeq.folder / "app.py").write_text(SLOW_IMPORT + APP)
    edgeq.spawn()
    edgeq.until((edgeq.folder / "importing").exists, "the import")
    edgeq.send(signal.SIGTERM)
    assert edgeq.ended() == 0


def test_a_wrong_configuration_changes_nothing_and_says_where(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    edgeq.configure(CONFIGURATION.format(url=broker.url).replace("emit: a", "emitt: a") + "logg: {}\n")
    edgeq.send(signal.SIGHUP)
    edgeq.until(lambda: "the one in use stays" in edgeq.log, "the refusal")
    assert "edgeq.yaml:6: routes[0].emitt: unknown key (did you mean 'emit'?)" in edgeq.log
    assert "edgeq.yaml:8: logg: unknown key (did you mean 'log'?)" in edgeq.log
    (edgeq.folder / "edgeq.yaml").unlink()
    edgeq.send(signal.SIGHUP)
    edgeq.until(lambda: edgeq.log.count("the one in use stays") == 2, "the second refusal")
    with Peer(broker.port) as peer:
        peer.publish("a/1", "{}")
    edgeq.until(lambda: topics(edgeq) == ["a/1"], "an event")
    assert edgeq.log.count("connected to") == 1, "the session was left alone"
    assert edgeq.stop() == 0


def test_a_configuration_that_can_not_start_changes_nothing(edgeq: Appliance, broker: Mosquitto) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    edgeq.start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        edgeq.configure(CONFIGURATION.format(url=f"embedded://127.0.0.1:{port}"))
        edgeq.send(signal.SIGHUP)
        edgeq.until(lambda: "the configuration in use stays" in edgeq.log, "the refusal")
    assert f"the embedded broker can't listen on 127.0.0.1:{port}" in edgeq.log
    with Peer(broker.port) as peer:
        peer.publish("a/1", "{}")
    edgeq.until(lambda: topics(edgeq) == ["a/1"], "an event")
    assert edgeq.stop() == 0


def test_a_reload_may_change_to_another_broker_and_back(edgeq: Appliance, broker: Mosquitto) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    edgeq.start()
    port = free_port()
    edgeq.reload(CONFIGURATION.format(url=f"embedded://127.0.0.1:{port}"))
    with Peer(port) as peer:
        peer.publish("a/embedded", "{}")
        edgeq.until(lambda: topics(edgeq) == ["a/embedded"], "an event over the embedded broker")
    edgeq.reload(CONFIGURATION.format(url=broker.url))
    with Peer(broker.port) as peer:
        peer.publish("a/mosquitto", "{}")
    edgeq.until(lambda: topics(edgeq) == ["a/embedded", "a/mosquitto"], "an event over mosquitto")
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


def test_a_reload_says_that_another_store_needs_a_restart(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    for times in (1, 2):  # the second time nothing is new, and it is still true
        edgeq.reload(CONFIGURATION.format(url=broker.url).replace("edgeq.db", "other.db"))
        assert edgeq.log.count("edgeq.yaml:3: changes of `store` need a restart; the rest is taken over") == times
    with Peer(broker.port) as peer:
        peer.publish("a/1", "{}")
    edgeq.until(lambda: topics(edgeq) == ["a/1"], "an event in the old store")
    assert not (edgeq.folder / "other.db").exists()
    assert edgeq.stop() == 0


def test_a_reload_takes_over_what_the_log_shows(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.configure(CONFIGURATION.format(url=broker.url) + "log: {level: error}\n")
    edgeq.spawn()
    edgeq.until(edgeq.connected, "a connection")
    assert edgeq.log == ""
    edgeq.reload(CONFIGURATION.format(url=broker.url) + "log: {format: json}\n")
    assert edgeq.log.startswith("{"), "as JSON from now on"
    assert edgeq.stop() == 0


# Brokers


def test_without_a_broker_it_runs_says_why_and_connects_when_it_comes(
    make: Callable[..., Appliance], mosquitto: Callable[..., Mosquitto]
) -> None:
    port = free_port()
    edgeq = make(f"mqtt://127.0.0.1:{port}")
    edgeq.spawn()
    edgeq.until(lambda: edgeq.status().get("session", {}).get("reason", "").startswith("nothing listens"), "a reason")
    shown = edgeq.cli("status").stdout
    assert f"nothing listens at 127.0.0.1:{port}" in shown
    assert edgeq.cli("emit", "by.hand").returncode == 0, "the rest works"
    mosquitto(port=port)
    edgeq.until(edgeq.connected, "a connection")
    assert edgeq.status()["session"]["reason"] == ""
    with Peer(port) as peer:
        peer.publish("a/1", "{}")
    edgeq.until(lambda: types(edgeq) == ["by.hand", "a"], "both events")
    assert edgeq.log.count("nothing listens") == 1, "said once, not for each attempt"
    assert edgeq.stop() == 0


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed (mosquitto)")
def test_a_wrong_password_that_is_put_right_at_the_broker(
    make: Callable[..., Appliance], mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"

    def set_password(text: str) -> None:
        subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "gateway", text], check=True, capture_output=True)
        passwords.chmod(0o644)

    set_password("another")
    broker = mosquitto("allow_anonymous false", f"password_file {passwords}")
    edgeq = make(broker.url)
    edgeq.configure(CONFIGURATION.format(url=broker.url).replace("}", ", username: gateway, password: mine}", 1))
    edgeq.spawn()
    edgeq.until(lambda: "Not authorized" in session(edgeq).get("reason", ""), "the reason")
    assert session(edgeq)["state"] != "connected"
    assert "mine" not in edgeq.log
    set_password("mine")
    broker.restart()
    edgeq.until(edgeq.connected, "a connection")
    assert edgeq.stop() == 0


def session(edgeq: Appliance) -> dict[str, Any]:
    """What the status says of the session."""
    found: dict[str, Any] = edgeq.status().get("session", {})
    return found
