"""A broker inside this process, for trying out: `mqtt.url: embedded://`.

It is amqtt (the extra `demo`): it listens on 127.0.0.1 only, lets everybody in, speaks MQTT 3.1.1, forgets everything
when it ends, and carries some 2,800 messages a second. For anything that matters, run mosquitto.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..config.schema import Mqtt
from ..errors import EdgeqError, MissingExtra

HOST = "127.0.0.1"
STOP_SECONDS = 5.0


def is_embedded(url: str) -> bool:
    """Whether `mqtt.url` asks for the embedded broker."""
    return url.startswith("embedded:")


class EmbeddedBroker:
    """The broker of `embedded://` (on a free port) or `embedded://127.0.0.1:PORT`. Raises ValueError for another URL.

    Use it in an `async with` block, or `start` and `stop` it. It needs the session to stop before it does.
    """

    def __init__(self, url: str) -> None:
        wrong = ValueError(f"{url!r} must be embedded:// or embedded://{HOST}:PORT")
        try:
            parts = urlsplit(url)
            self.port = parts.port or _free_port()
        except ValueError:
            raise wrong from None
        if parts.scheme != "embedded" or parts.hostname not in (None, HOST, "localhost") or parts.path not in ("", "/"):
            raise wrong
        self._broker: Any = None

    def settings(self, settings: Mqtt) -> Mqtt:
        """`settings`, as a session needs them to connect to this broker."""
        return msgspec.structs.replace(settings, url=f"mqtt://{HOST}:{self.port}", version="3.1.1")

    async def start(self) -> None:
        """Listen. Raises MissingExtra without amqtt, EdgeqError when the port is taken."""
        try:
            from amqtt.broker import Broker
            from amqtt.errors import BrokerError
        except ImportError:
            raise MissingExtra("mqtt.url embedded://", "demo") from None
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they tell of every connection and every step
        self._broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        try:
            await self._broker.start()
        except BrokerError as error:
            self._broker = None
            raise EdgeqError(
                f"the embedded broker can't listen on {HOST}:{self.port}: {error}",
                hint="end what listens there, or let embedded:// choose a port",
            ) from None

    async def stop(self) -> None:
        """End it, and every connection with it. Safe to call twice."""
        broker, self._broker = self._broker, None
        if broker is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(broker.shutdown(), STOP_SECONDS)

    async def __aenter__(self) -> EmbeddedBroker:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
