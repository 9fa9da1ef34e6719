"""What a way to a site is: it takes one parcel at a time there, and says what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

from ..store.forwarded import Batch
from . import wire


@dataclass(frozen=True, slots=True)
class Taken:
    """The site has all of it on disk, or had it before. `size_bytes` went out."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The site refuses something in it for good; with `too_large`, that it is so much at once."""

    reason: str
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Away:
    """It isn't about what was sent: the site isn't reached, or takes nothing from us now. Not before `after_seconds`,
    says the site."""

    reason: str
    after_seconds: float | None = None


Answer = Taken | Refused | Away


class Parcel:
    """A batch on its way: as events, and as they are `written`. `now` is in microseconds since 1970 UTC."""

    def __init__(self, batch: Batch, written: list[bytes], now: int) -> None:
        self.batch = batch
        self.now = now
        self._written = written

    @cached_property
    def body(self) -> bytes:
        """It as JSON."""
        return wire.body(self.batch.gateway, self.batch.series, self.batch.head, self._written)

    @property
    def key(self) -> str:
        """The same whenever these events are sent together."""
        return f"{self.batch.series}:{self.batch.ids[0]}-{self.batch.ids[-1]}"


class Target(ABC):
    """A way to one site. `place` is what may be shown of it."""

    place: str

    @abstractmethod
    async def send(self, parcel: Parcel) -> Answer:
        """Take it there. Never raises; ends within a minute. When the answer got lost, the parcel comes again."""

    async def close(self) -> None:  # noqa: B027 - not all hold something
        """Let go of connections. It may be used again."""
