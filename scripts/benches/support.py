"""What the benches share: a broker with room for everything, a quick publisher, an `edgeq run`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq.config.load import load
from edgeq.control import ask, socket_path
from edgeq.store.opening import local_base

DEADLINE_SECONDS = 30.0


@contextlib.contextmanager
def scratch(parent: str) -> Iterator[Path]:
    """A new folder in `parent`, which must be on a disk: in memory, a commit costs nothing. One bench has one at a
    time: another waits. One that is told to end ends its servers, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (Path(tempfile.gettempdir()) / "edgeq-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another bench to end", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(tempfile.mkdtemp(prefix="edgeq-bench-", dir=parent))
        try:
            if file_system(folder) in ("tmpfs", "ramfs"):
                raise SystemExit(f"{parent} is in memory: name a folder on a disk with --folder")
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every bench can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/var/tmp", help="on the disk to measure (default: /var/tmp)")
    parser.add_argument("--json", action="store_true", help="print the figures alone, as one object")
    return parser


_noted: dict[str, float] = {}


def note(figures: Mapping[str, float]) -> None:
    """Keep what was measured, by name, for who asked for it with --json."""
    _noted.update(figures)


@contextlib.contextmanager
def results(options: argparse.Namespace) -> Iterator[None]:
    """With --json, what was noted in the block goes to standard output, and what is printed to standard error."""
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        yield
    if options.json:
        print(json.dumps(_noted))


def file_system(folder: Path) -> str:
    """The kind of file system that `folder` is on."""
    best = ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """A mosquitto that holds back nothing; its port."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise SystemExit("this bench needs mosquitto: sudo apt install mosquitto")
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n"
        "max_inflight_messages 0\nmax_queued_messages 0\n"
    )
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("mosquitto doesn't start")
            time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait()


class Wire:
    """A client of MQTT 3.1.1 that sends packets made beforehand, so that publishing costs next to nothing."""

    def __init__(self, port: int, client_id: str, *, clean: bool = True) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = client_id.encode()
        body = b"\x00\x04MQTT\x04" + bytes([2 if clean else 0]) + b"\x00\x00" + struct.pack(">H", len(name)) + name
        self._socket.sendall(b"\x10" + bytes([len(body)]) + body)
        self._expect(b"\x20\x02", 4)

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe at QoS 1."""
        name = topic_filter.encode()
        body = b"\x00\x01" + struct.pack(">H", len(name)) + name + b"\x01"
        self._socket.sendall(b"\x82" + bytes([len(body)]) + body)
        self._expect(b"\x90\x03\x00\x01\x01", 5)

    def publish(self, packets: Sequence[bytes]) -> None:
        """Send these PUBLISH packets of QoS 1, and return when the broker has acknowledged them all."""
        sender = threading.Thread(target=self._socket.sendall, args=(b"".join(packets),))
        sender.start()
        missing = 4 * len(packets)
        while missing:
            missing -= len(self._socket.recv(65536)) or missing
        sender.join()

    def close(self) -> None:
        """Say goodbye."""
        self._socket.sendall(b"\xe0\x00")
        self._socket.close()

    def _expect(self, start: bytes, size: int) -> None:
        answer = self._socket.recv(size, socket.MSG_WAITALL)
        if not answer.startswith(start):
            raise SystemExit(f"the broker answers {answer!r}")


def publish_packet(topic: str, payload: bytes, mid: int) -> bytes:
    """A PUBLISH of QoS 1 in MQTT 3.1.1, shorter than 128 bytes."""
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name + struct.pack(">H", mid % 65535 + 1) + payload
    if len(body) > 127:
        raise ValueError("too long")
    return b"\x32" + bytes([len(body)]) + body


def pace(count: int, rate: int) -> Iterator[int]:
    """Count, `rate` times a second, without falling behind for good."""
    began = time.monotonic()
    for number in range(count):
        wait = began + number / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        yield number


def _installed(store: str) -> tuple[str, str]:
    """`edgeq` without what only the tests bring, and what libraries use where it is there, which costs memory."""
    absent = [] if store.startswith("postgresql") else ["typing_extensions"]
    return "-c", f"import sys; sys.modules.update(dict.fromkeys({absent})); from edgeq.cli.main import main; main()"


class Appliance:
    """`edgeq run` with a configuration, as a child process.

    `store`: its URL, if it isn't a file in `folder`; `before`: words to start it with; `program`: what Python runs as
    `edgeq`, by default as it is installed for use; `settings`: keys that win over the configuration's, as in
    `web__listen`.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        store: str = "",
        *,
        before: Sequence[str] = (),
        program: Sequence[str] = (),
        **settings: str,
    ) -> None:
        self.database = folder / "edgeq.db"
        path = folder / "edgeq.yaml"
        path.write_text(config)
        settings = {"store__url": store or str(self.database), "log__level": "error", **settings}
        given = {f"EDGEQ_{name.upper()}": value for name, value in settings.items()}
        self._environment = {**os.environ, **given, "RUNTIME_DIRECTORY": str(folder)}
        command = [*before, sys.executable, *(program or _installed(store)), "run", "-c", str(path)]
        self.process = subprocess.Popen(command, cwd=folder, env=self._environment)
        self.pid = self.process.pid
        loaded = load(str(path), environ=self._environment)
        self._control = socket_path(local_base(loaded.config, self._environment))

    def __enter__(self) -> Appliance:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in peace."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def status(self) -> dict[str, Any] | None:
        """What it says of itself; None while it doesn't answer yet."""
        return asyncio.run(ask(self._control, "status"))

    def counter(self, name: str) -> int:
        """A counter's sum."""
        values: dict[str, int] = (self.status() or {}).get("counters", {}).get(name, {})
        return sum(values.values())

    def wait_connected(self) -> None:
        """Return when it is connected and subscribed."""
        self.wait(lambda: ((self.status() or {}).get("session") or {}).get("state") == "connected", "to connect")

    def wait(self, condition: Any, what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Return when `condition()` holds. Ends the bench when it doesn't in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise SystemExit(f"edgeq ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {seconds:g}s for edgeq {what}")
            time.sleep(0.05)


@contextlib.contextmanager
def listening(home: Path) -> Iterator[Callable[[], None]]:
    """For processes started in the block: a function that returns when one has said that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(30)
        receiver.bind(str(home / "notify"))
        os.environ["NOTIFY_SOCKET"] = str(home / "notify")

        def ready() -> None:
            while b"READY=1" not in receiver.recv(4096):
                pass

        try:
            yield ready
        finally:
            del os.environ["NOTIFY_SOCKET"]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
