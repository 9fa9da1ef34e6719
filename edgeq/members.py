"""Whether all members of a site go by the same file: what one of them lacks isn't done once it owns the rest."""

from __future__ import annotations

import hashlib

from .clock import Clock
from .config.schema import Config
from .config.section import Section
from .errors import StoreError
from .events import from_json, to_json
from .service import Service
from .store import meta
from .store.store import Store

COMPARED = ("routes", "processors", "channels", "notifications", "contracts", "jobs", "schedules")
LOOK_SECONDS = 60.0
_PREFIX = "file_of:"


class Members(Service):
    """Tells the others what this gateway's `config` comes to, and warns of those that run by another one."""

    def __init__(self, config: Config, store: Store, clock: Clock) -> None:
        super().__init__("members", clock)
        self._gateway = config.gateway
        self._mine = digests(config)
        self._store = store
        self._told: dict[str, list[str]] = {}

    async def run(self) -> None:
        """See Service."""
        text = to_json(self._mine)
        await self._store.write(lambda tx: meta.put(tx, f"{_PREFIX}{self._gateway}", text))
        while not self.stopping.is_set():
            try:
                self._tell(await differing(self._store, self._gateway, self._mine))
            except StoreError as error:
                self.log.debug("the members can't be compared: %s", error)
            await self.pause(LOOK_SECONDS)

    def _tell(self, found: dict[str, list[str]]) -> None:
        for gateway, parts in found.items():
            if self._told.get(gateway) != parts:
                self.log.warning(
                    "gateway %s shares this store, and runs by a file with other %s: "
                    "give all members the same, or what one of them lacks is lost when it takes over",
                    gateway,
                    ", ".join(parts),
                )
        self._told = found


def digests(config: Config) -> dict[str, str]:
    """What the parts of a configuration come to that all members must have in common, in so few letters that they can
    be compared, and nothing be learned from them."""
    return {name: hashlib.sha256(repr(_plain(getattr(config, name))).encode()).hexdigest() for name in COMPARED}


async def differing(store: Store, gateway: str, mine: dict[str, str]) -> dict[str, list[str]]:
    """Which parts differ from `mine`, for each other gateway that runs now. Raises StoreError."""
    said = {key.removeprefix(_PREFIX): text for key, text in await meta.starting(store, _PREFIX)}
    running = await store.ownership.owner_of(f"gateway:{name}" for name in said)
    others = {name: from_json(said[name]) for name in sorted(said) if f"gateway:{name}" in running and name != gateway}
    found = {name: [part for part in COMPARED if parts.get(part) != mine[part]] for name, parts in others.items()}
    return {name: parts for name, parts in found.items() if parts}


def _plain(value: object) -> object:
    match value:
        case Section():
            return dict(value.data)
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
    return value
