"""A job's process, as it speaks to its worker: frames over a socket, and a log that ends up in the worker's."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import traceback
from collections.abc import Callable

from ...store.store import storable
from . import wire

LOG_CHARACTERS_MAX = 64 * 1024


class Channel:
    """The way to the worker. May be used in any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frames = wire.orders()
        self._lock = threading.RLock()
        self._unsent: list[bytes] = []

    def send(self, record: wire.Frame) -> None:
        """Raises wire.TooLarge, ValueError for what can't be sent, and OSError when nobody listens any more."""
        data = wire.pack(record)
        with self._lock:
            self._unsent.append(data)
            if len(self._unsent) > 1:
                return  # a signal handler of the job's has something to say in the middle of what we send
            try:
                while self._unsent:
                    self._socket.sendall(self._unsent[0])
                    del self._unsent[0]
            finally:
                self._unsent.clear()

    def receive(self) -> wire.Order:
        """Wait for the first order, which comes alone."""
        while True:
            for order in self._frames.feed(self._received(0)):
                return order

    def listen(self, take: Callable[[wire.Order | None], None]) -> None:
        """From now on hand each order to `take`, and None at the end of all. On the running event loop."""
        loop = asyncio.get_running_loop()

        def arrived() -> None:
            try:
                for order in self._frames.feed(self._received(socket.MSG_DONTWAIT)):
                    take(order)
            except BlockingIOError:
                return
            except EOFError:
                loop.remove_reader(self._socket)
                take(None)
            except BaseException:  # noqa: BLE001 - no memory is left, or edgeq was updated: another process does better
                try:
                    traceback.print_exc()
                finally:
                    os._exit(1)

        loop.add_reader(self._socket, arrived)

    def close(self) -> None:
        """In a fork of this process, which has nothing to say to the worker."""
        self._lock = threading.RLock()
        self._socket.close()

    def _received(self, flags: int) -> bytes:
        data = self._socket.recv(64 * 1024, flags)
        if not data:
            raise EOFError("the worker has closed the connection")
        return data


class Forwarded(logging.Handler):
    """Sends what is logged to the worker, which has it in its own log, with the job's id."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.job_id: int | None = None
        self._channel = channel

    def handle(self, record: logging.LogRecord) -> bool:
        """See logging.Handler. Without its lock: the channel has one, and with two a job whose signal handler logs may
        wait for a thread that waits for the job."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            text = storable(self.format(record)[:LOG_CHARACTERS_MAX])
            if self.job_id is not None:
                text = f"job {self.job_id}: {text}"
            self._channel.send(wire.Logged(record.name, record.levelno, text))
        except OSError:
            return  # the worker is gone, and so are we soon
        except Exception:  # noqa: BLE001 - as logging's own handlers
            self.handleError(record)
