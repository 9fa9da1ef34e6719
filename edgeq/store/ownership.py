"""Who may do what only one process at a time may do: `processor:courier`, `channel:mail`, `leader`, `gateway:cellar`.

What can be relied on:

- A name is owned by one process at a time, over all machines that share the store. Who dies loses what it owned at
  once; who freezes or is cut off, within FROZEN_SECONDS by the server's clock.
- A loss is told: `Held.lost` is set, and `holds` is False, before another one can have the name; but who was frozen
  hears of it only when it goes on, and whose session the server has ended, when it hears of that. So ownership says who
  begins. What must not be written by two is fenced in the tables: see `cursors.take`.
- On a store that one machine has for itself, everything is owned at once, and nothing is ever lost.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager


class Held:
    """What is owned now. `lost` is set when it isn't any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = asyncio.Event()


class Ownership(ABC):
    """See the module's text. Lives on one event loop."""

    shared: bool
    """Whether other machines may use the store, too."""

    @abstractmethod
    def own(self, name: str) -> AbstractAsyncContextManager[Held]:
        """Wait until `name` is owned by this process; given back at the end of the block. What was done under it must
        have ended by then, also after a loss. One block at a time for each name."""

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Whether `name` is owned at this moment."""

    @abstractmethod
    async def owner_of(self, names: Iterable[str]) -> dict[str, str]:
        """By which gateway, or program, each of `names` is owned; those that nobody owns are left out. Raises
        StoreError."""


class Alone(Ownership):
    """Everything is ours."""

    shared = False

    @asynccontextmanager
    async def own(self, name: str) -> AsyncIterator[Held]:
        """See Ownership.own."""
        yield Held(name)

    def holds(self, name: str) -> bool:
        """See Ownership.holds."""
        return True

    async def owner_of(self, names: Iterable[str]) -> dict[str, str]:
        """See Ownership.owner_of. Nobody has to be asked, so nobody is named."""
        return {}
