"""How each contract stands, retained, one message each, as its events tell it.

`state` is `violated` from when that is told of any subject until it is told to be resolved of all; `unknown` while that
is what was told last of some; else `ok`. Beside it stand `severity`, `violated` (how many subjects), and of a violated
contract the `subjects` (SUBJECTS_MAX, those that have stood longest first), `since` when, and `episode`, `subject` and
`message` of the last violation.

It is told of by the sentinel after each commit, in this process: nothing is read from the store but once at the start,
and the message of what is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..clock import Clock, rfc3339
from ..config.schema import Config
from ..contracts.contract import Contract
from ..contracts.records import told_of
from ..contracts.verdict_event import key_prefix
from ..errors import StoreError
from ..events import NewEvent, from_json, to_json
from ..mqtt.connection import NotConnected
from ..mqtt.presence import below
from ..processors.sentinel import Sentinel
from ..service import Service
from ..store import contract_states, events, meta
from ..store.store import Store
from .birth import Births
from .ids import all_safe
from .retained import Memory, Publisher

SUBJECTS_MAX = 20
SUBJECT_CHARACTERS_MAX = 100
MESSAGE_CHARACTERS_MAX = 500
ROWS_MAX = 100_000
GATHER_SECONDS = 0.5
"""What changes shortly after a change is published with it."""
LOOK_SECONDS = 10.0

_MEMBER = "file_of:"  # see members


class _Violation(NamedTuple):
    since: int
    episode: int


class _Standing:
    """What was told of a contract, by subject."""

    def __init__(self) -> None:
        self.violated: dict[str, _Violation] = {}
        self.unknown: set[str] = set()

    @property
    def state(self) -> str:
        return "violated" if self.violated else "unknown" if self.unknown else "ok"


class ContractTopics(Service):
    """Publishes how `contracts` stand, which `sentinel` judges. To run where the sentinel runs."""

    def __init__(
        self,
        config: Config,
        contracts: Sequence[Contract],
        sentinel: Sentinel | None,
        publisher: Publisher,
        store: Store,
        births: Births,
        clock: Clock,
    ) -> None:
        super().__init__("contract_topics", clock)
        shared = store.ownership.shared
        self._config = config
        self._site = config.mqtt.group if shared and config.mqtt.group else config.gateway
        self._severities: Mapping[str, str] = {each.name: each.keys.severity for each in contracts}
        self._topics = {
            name: below(config.mqtt.status_topic, self._site, f"contracts/{key}")
            for name, key in all_safe(self._severities).items()
        }
        self._sentinel = sentinel
        self._publisher = publisher
        # A store that is a machine's own may be a copy of another one's, whose topics aren't ours to clear.
        self._memory = Memory(store, "contract_topics" if shared else f"contract_topics:{config.gateway}", publisher)
        self._store = store
        self._standings: dict[str, _Standing] = {}
        self._changed: set[str] = set()
        self._heard: list[NewEvent] | None = None
        self._woken = asyncio.Event()
        self._published_for = 0
        self._members: list[str] = []
        publisher.session.when_connected(self._woken.set)
        births.when(self._again)

    async def run(self) -> None:
        """See Service."""
        self._published_for = 0
        self._heard = []
        if self._sentinel is not None:
            self._sentinel.listener = self._hear
        try:
            await self._load()
            while not self.stopping.is_set():
                self._woken.clear()
                try:
                    await self._turn()
                except NotConnected:
                    self._published_for = 0
                await self._rest()
        finally:
            if self._sentinel is not None:
                self._sentinel.listener = None

    def _again(self) -> None:
        self._published_for = 0
        self._woken.set()

    async def _load(self) -> None:
        """What was told before; then what was told meanwhile."""
        self._standings = {name: _Standing() for name in self._severities}
        for state in ("violated", "pending", "suppressed", "unknown") if self._severities else ():
            for row in await contract_states.find(self._store, limit=ROWS_MAX, state=state):
                report = told_of(row)
                standing = self._standings.get(row.contract)
                if standing is None:
                    continue
                if report.episode:
                    standing.violated[row.subject] = _Violation(report.since, report.episode)
                elif report.told == "unknown":
                    standing.unknown.add(row.subject)
        heard, self._heard = self._heard or [], None
        self._hear(heard)

    def _hear(self, told: Sequence[NewEvent]) -> None:
        """Note what was told."""
        if self._heard is not None:
            self._heard += told
            return
        for event in told:
            data = from_json(event.data_json)
            standing = self._standings.get(data["contract"])
            if standing is None:
                continue
            if event.type == "contract.violated":
                standing.violated[event.subject] = _Violation(data["since"], data["episode"])
                standing.unknown.discard(event.subject)
            elif event.type == "contract.resolved":
                standing.violated.pop(event.subject, None)
                standing.unknown.discard(event.subject)
            elif event.type == "contract.unknown":
                standing.unknown.add(event.subject)
            self._changed.add(data["contract"])
        self._woken.set()

    async def _turn(self) -> None:
        connection = self._publisher.connection
        if not connection:
            return
        try:
            if connection != self._published_for or await self._members_now() != self._members:
                self._changed.clear()
                self._members = await self._members_now()
                states = [(topic, await self._payload(name)) for name, topic in self._topics.items()]
                await self._memory.publish(self._device(), states)
                self._published_for = connection
            while self._changed:
                await self._publish_one(self._changed.pop())
        except StoreError as error:
            self.log.warning("how the contracts stand can't be published yet: %s", error)

    async def _publish_one(self, name: str) -> None:
        try:
            await self._publisher.put(self._topics[name], await self._payload(name))
        except (NotConnected, StoreError):
            self._changed.add(name)
            raise

    def _device(self) -> dict[str, dict[str, Any]]:
        prefix = self._config.mqtt.discovery
        if prefix is None or not self._topics:
            return {}
        from .discovery import config_topic, contracts_device, device_id  # who has no Home Assistant doesn't pay

        topic = config_topic(prefix, f"{device_id(self._site)}_contracts")
        return {topic: contracts_device(self._config, self._site, self._topics, self._members)}

    async def _payload(self, name: str) -> bytes:
        standing = self._standings[name]
        answer: dict[str, Any] = {
            "contract": name,
            "state": standing.state,
            "severity": self._severities[name],
            "violated": len(standing.violated),
        }
        if standing.violated:
            by_age = sorted(standing.violated.items(), key=lambda item: (item[1].since, item[0]))
            subject, last = by_age[-1]
            answer |= {
                "since": rfc3339(by_age[0][1].since),
                "subjects": [each[:SUBJECT_CHARACTERS_MAX] for each, _ in by_age[:SUBJECTS_MAX]],
                "subject": subject[:SUBJECT_CHARACTERS_MAX],
                "episode": last.episode,
                "message": await self._message(name, subject, last.episode),
            }
        return to_json(answer).encode()

    async def _message(self, contract: str, subject: str, episode: int) -> str:
        prefix = f"{key_prefix(contract)}{subject}:{episode}:violated:"
        for event in await events.keyed(self._store, prefix, limit=1):
            return str(event.data.get("message", ""))[:MESSAGE_CHARACTERS_MAX]
        return ""

    async def _members_now(self) -> list[str]:
        """Those who may publish how the contracts stand."""
        if self._site == self._config.gateway:
            return [self._config.gateway]
        said = [key.removeprefix(_MEMBER) for key, _ in await meta.starting(self._store, _MEMBER)]
        return sorted({*said, self._config.gateway})

    async def _rest(self) -> None:
        """Until something calls; then some moments more, in which more may. A group is looked at from time to time, and
        what the store didn't take is tried again."""
        connection = self._publisher.connection
        is_done = not connection or (self._published_for == connection and not self._changed)
        seconds = None if is_done and self._site == self._config.gateway else LOOK_SECONDS
        waits = [asyncio.ensure_future(event.wait()) for event in (self._woken, self.stopping)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        await self.pause(GATHER_SECONDS)
