"""The interface over a store, without a broker: what its operations answer, asked by a real client."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.mqtt.session import State
from edgeq.plan import make_plan
from edgeq.status import stored
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until
from edgeq.web.making import Running, make_web

from .mosquitto import free_port

TOKEN = "a-token-of-some-length"


class Answered(NamedTuple):
    """An answer; `said` is its JSON, or its text."""

    status: int
    said: Any
    headers: dict[str, str]


class Interface:
    """`configuration` is YAML, to which `web` and the gateway's name are added; `token` empty: there is none."""

    def __init__(
        self, folder: Path, store: Store, configuration: str = "", *, token: str = TOKEN, clock: Clock | None = None
    ) -> None:
        self.port = free_port()
        self.store = store
        self.metrics = Metrics()
        self.clock = clock or Clock()
        self.session = SimpleNamespace(state=State.CONNECTED, reason="")
        self.gets_on = True
        shown = f', token: "{token}"' if token else ""
        web = f'gateway: gw\nweb: {{listen: "127.0.0.1:{self.port}"{shown}}}\n'
        (folder / "interface.yaml").write_text(web + configuration)
        loaded = load(str(folder / "interface.yaml"))
        self.plan = make_plan(loaded, publish=_nowhere, clock=self.clock, metrics=self.metrics)
        session: Any = self.session
        running = Running(
            self.plan, store, self.metrics, self.clock, session, self.status, lambda: self.gets_on, dict
        )  # fmt: skip
        self.services = make_web(f"127.0.0.1:{self.port}", running)

    async def status(self) -> dict[str, Any]:
        """What an appliance says that runs on the store, in short."""
        found = await stored(self.store, self.clock.now(), self.plan.processors)
        found["store"]["ok"] = True
        session = {"state": "connected", "waiting": 0, "in_flight": 0, "last_message_at": self.clock.now()}
        return {"running": True, "version": "1.0", "started_at": 0, **found, "session": session}

    async def ask(self, method: str, path: str, body: Any = None, *, token: str = TOKEN, **headers: str) -> Answered:
        """What it answers. Names of headers have `_` for `-`; a change is made with the token, unless that is empty."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if method != "GET" and token:
            given.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        return await asyncio.to_thread(self._ask, method, path, body, given)

    async def get(self, path: str, status: int = 200) -> Any:
        """What a GET says."""
        answer = await self.ask("GET", path)
        assert answer.status == status, answer
        return answer.said

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answered:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = answer.headers["Content-Type"] == "application/json" and method != "HEAD"
            return Answered(answer.status, json.loads(text) if is_json else text, dict(answer.headers.items()))
        finally:
            connection.close()

    async def __aenter__(self) -> Interface:
        for service in self.services:
            await service.start()
        await until(self._listens, "the interface to listen")
        return self

    async def __aexit__(self, *_: object) -> None:
        for service in self.services:
            await service.stop()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


async def _nowhere(topic: str, payload: bytes, **_: Any) -> None:
    """Nobody hears it."""
