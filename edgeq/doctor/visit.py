"""Connections with the broker beside the appliance's session, which they leave alone: none has its client id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from ..errors import EdgeqError
from ..mqtt.connection import Connection
from ..mqtt.delivery import Delivery
from ..units import Duration
from .case import Case

ANSWER_SECONDS = 5.0
_PACKET_BYTES_MAX = 64 * 1024


class NoWay(EdgeqError):
    """The broker can't be reached, or doesn't let us in."""

    def __init__(self, reason: str, *, unreachable: bool) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


@asynccontextmanager
async def visit(
    case: Case,
    name: str,
    *,
    session_expiry: Duration = Duration(0),  # noqa: B008 - it is frozen
    on_messages: Callable[[list[Delivery]], None] = lambda deliveries: None,
) -> AsyncIterator[Connection]:
    """A connection of the client `name`, with a session that the broker keeps for so long after its end. Raises NoWay,
    with the broker's reason."""
    settings = msgspec.structs.replace(case.loaded.config.mqtt, session_expiry=session_expiry)
    address = case.broker
    assert address is not None
    connection = Connection(
        1, settings, f"{case.client_id}-doctor-{name}", "", case.clock, on_messages, _PACKET_BYTES_MAX
    )
    try:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                refused = await connection.open(address)
        except TimeoutError:
            raise NoWay(f"{address} doesn't answer", unreachable=False) from None
        if refused is not None:
            raise NoWay(refused.reason, unreachable=refused.kind == "unreachable")
        yield connection
        await connection.goodbye()
    finally:
        connection.close()
