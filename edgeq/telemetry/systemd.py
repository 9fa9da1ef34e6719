"""Tells systemd how the service is: ready, reloading, stopping, a line of status, and that it is still alive.

Datagrams to `$NOTIFY_SOCKET` (sd_notify(3)). Nothing here raises, waits longer than a second, or matters when edgeq
wasn't started by systemd: then nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

_PATIENCE_SECONDS = 1.0
_STATUS_CHARACTERS_MAX = 500

log = logging.getLogger("edgeq.systemd")


class Notifier:
    """`address` is a path or `@name` of an abstract socket; without one, nothing is sent.

    `watchdog_interval_seconds` is the time between two calls of `watchdog()`: half of what systemd waits before it
    kills the service. None when it doesn't watch.
    """

    def __init__(self, address: str | None = None, watchdog_interval_seconds: float | None = None) -> None:
        self.watchdog_interval_seconds = watchdog_interval_seconds
        self._address = address
        self._status: str | None = None
        self._failed = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """What the environment of a service says; a Notifier that sends nothing when it says nothing usable."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        return cls(address, _watchdog_interval_seconds(environ))

    def ready(self) -> None:
        """Started, or done with reloading."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Reading the configuration again; `ready()` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """On the way to the end."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Alive, and getting on with the work."""
        if self.watchdog_interval_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows. Sent when it isn't the one that stands there already."""
        line = " ".join(text.split())[:_STATUS_CHARACTERS_MAX]  # a line break would begin another assignment
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def _send(self, message: str) -> bool:
        if self._address is None:
            return False
        name = os.fsencode(self._address)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_PATIENCE_SECONDS)
                sender.sendto(message.encode(errors="replace"), b"\0" + name[1:] if name[:1] == b"@" else name)
        except OSError as error:
            if not self._failed:
                log.warning("systemd can't be told anything over %s: %s", self._address, error)
            self._failed = True
            return False
        self._failed = False
        return True


def _watchdog_interval_seconds(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for the process that started us
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 2_000_000 if microseconds > 0 else None
