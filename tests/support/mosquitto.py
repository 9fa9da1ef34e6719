"""A mosquitto as a child process on a free port, and another client of it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE_SECONDS = 120.0
_random = random.SystemRandom()  # hypothesis has the other one give every process the same numbers
_PORTS = range(10000, 32000)  # below those that systems give to outgoing connections
_given: deque[int] = deque(maxlen=2000)


def find_mosquitto() -> str | None:
    """The program, also where Debian hides it from users who aren't root."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now, and below those that systems give to outgoing connections:
    while a server is down, a client that tries to connect could be given it. Until it is listened at, and while its
    server is down, nobody else is given it: each worker of pytest has ports of its own, which take turns."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = _PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers :: workers]
    while True:
        port = _random.choice(mine)
        if port in _given and len(_given) < len(mine) // 2:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port


class Mosquitto:
    """One broker. `lines` are lines of its configuration (`max_inflight_messages 100`); sessions are kept on disk.

    `start` returns when it accepts connections. `log` is what it wrote so far.
    """

    def __init__(self, folder: Path, *lines: str, port: int = 0) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._lines = list(lines)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the broker, with the same port and the same files as before."""
        program = find_mosquitto()
        assert program is not None
        config = [
            f"listener {self.port} 127.0.0.1",
            *([] if any(line.startswith("allow_anonymous") for line in self._lines) else ["allow_anonymous true"]),
            "persistence true",
            f"persistence_location {self.folder}/",
            f"log_dest file {self.folder}/mosquitto.log",
            "log_type all",
            *(["user root"] if os.geteuid() == 0 else []),  # else it leaves for a user who can't read the folder
            *self._lines,
        ]
        path = self.folder / "mosquitto.conf"
        path.write_text("\n".join(config) + "\n")
        self._process = subprocess.Popen([program, "-c", str(path)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, f"mosquitto didn't start:\n{self.log}"
                assert time.monotonic() < deadline, f"mosquitto accepts no connection:\n{self.log}"
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """End it in peace: it saves its sessions."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End it at once: what it didn't save is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def restart(self) -> None:
        """Stop in peace and start again."""
        self.stop()
        self.start()

    @property
    def log(self) -> str:
        """All that it logged."""
        path = self.folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""


class Peer:
    """Another client: publishes at once, and collects what it subscribed to. Use it in a `with` block."""

    def __init__(
        self,
        port: int,
        *filters: str,
        client_id: str = "",
        username: str = "",
        password: str = "",
        ca: str | None = None,
        version5: bool = False,
    ) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._changed = threading.Condition()
        self._subscribed = False
        protocol = MQTTProtocolVersion.MQTTv5 if version5 else MQTTProtocolVersion.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        self._client.max_inflight_messages_set(1000)
        if username:
            self._client.username_pw_set(username, password)
        if ca is not None:
            self._client.tls_set(ca)
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if filters:
            self._client.subscribe([(name, 1) for name in filters])
            self.wait(lambda: self._subscribed)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(
        self, topic: str, payload: bytes | str = b"", *, qos: int = 1, retain: bool = False, **properties: Any
    ) -> None:
        """Publish, and return when the broker has it; with MQTT 5, `properties` by the names that paho gives them."""
        made = None
        if properties:
            made = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(made, name, value)
        info = self._client.publish(topic, payload, qos, retain, made)
        info.wait_for_publish(DEADLINE_SECONDS)
        assert info.is_published()

    def publish_many(self, messages: list[tuple[str, bytes | str]], *, qos: int = 1, retain: bool = False) -> None:
        """Publish in this order, and return when the broker has them all."""
        infos = [self._client.publish(topic, payload, qos, retain) for topic, payload in messages]
        for info in infos:
            info.wait_for_publish(DEADLINE_SECONDS)
            assert info.is_published()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at after each message."""
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_SECONDS), f"only got {self.seen}"

    @property
    def seen(self) -> list[tuple[str, bytes]]:
        """Topic and payload of every message so far."""
        return [(message.topic, bytes(message.payload)) for message in self.messages]

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def _on_subscribe(self, *_: Any) -> None:
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()
