"""What listens in systemd's place."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from .appliance import DEADLINE_SECONDS

WATCHDOG_SECONDS = 8.0  # a busy machine may stop for half of it


class Manager:
    """Listens in systemd's place. `gap` is the longest time that passed without a sign of life, in seconds."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1e6))}
        self.gap = 0.0
        self._alive_at: float | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hear(self, seconds: float = DEADLINE_SECONDS) -> str:
        """The next message; empty when none comes in that time."""
        self._socket.settimeout(seconds)
        try:
            message = self._socket.recv(65536).decode()
        except TimeoutError:
            message = ""
        now = time.monotonic()
        if self._alive_at is not None:
            self.gap = max(self.gap, now - self._alive_at)
        if message == "WATCHDOG=1":
            self._alive_at = now
        return message

    def until(self, beginning: str) -> list[str]:
        """All messages up to the first that begins so."""
        heard = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not heard or not heard[-1].startswith(beginning):
            assert time.monotonic() < deadline, f"no {beginning} in {heard}"
            heard.append(self.hear())
        return heard

    def listen(self, seconds: float) -> None:
        """Hear whatever comes in that time."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            self.hear(rest)

    def drain(self) -> None:
        """Forget what has been said up to now."""
        while self.hear(0.001):
            pass
        self.gap, self._alive_at = 0.0, None

    def close(self) -> None:
        self._socket.close()
