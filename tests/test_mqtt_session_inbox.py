"""The inbox: bounded in number and in bytes, in order, and closed at the end."""

from __future__ import annotations

import asyncio

import pytest

from edgeq.mqtt.delivery import Delivery
from edgeq.mqtt.inbox import Inbox


def some(count: int, payload: bytes = b"") -> list[Delivery]:
    return [Delivery(f"t/{number}", payload, received_at=0) for number in range(count)]


async def test_batches_come_in_order_and_not_larger_than_asked() -> None:
    inbox = Inbox(100)
    deliveries = some(10)
    inbox.put(deliveries[:4])
    inbox.put(deliveries[4:])
    assert len(inbox) == 10
    assert await inbox.get_batch(7) == deliveries[:7]
    assert await inbox.get_batch(7) == deliveries[7:]


async def test_a_taker_waits_for_the_first() -> None:
    inbox = Inbox(100)
    taking = asyncio.create_task(inbox.get_batch(5))
    await asyncio.sleep(0)
    assert not taking.done()
    deliveries = some(2)
    inbox.put(deliveries)
    assert await taking == deliveries


async def test_a_taker_that_gives_up_takes_nothing() -> None:
    inbox = Inbox(100)
    taking = asyncio.create_task(inbox.get_batch(5))
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    deliveries = some(1)
    inbox.put(deliveries)
    assert await inbox.get_batch(5) == deliveries


@pytest.mark.parametrize(
    ("inbox", "payload"), [(Inbox(capacity=10), b""), (Inbox(capacity=1000, bytes_max=1000), b"x" * 100)]
)
async def test_full_at_the_limit_and_open_again_below_half(inbox: Inbox, payload: bytes) -> None:
    room = 0

    def count() -> None:
        nonlocal room
        room += 1

    inbox.when_room(count)
    inbox.put(some(9, payload))
    assert not inbox.full
    inbox.put(some(1, payload))
    assert inbox.full
    await inbox.get_batch(5)
    assert (inbox.full, room) == (True, 0)
    await inbox.get_batch(1)
    assert (inbox.full, room) == (False, 1)
    await inbox.get_batch(100)
    assert room == 1
    inbox.put(some(10, payload))
    assert inbox.full
    await inbox.get_batch(100)
    assert (inbox.full, room) == (False, 2)


async def test_closed_it_gives_out_what_is_left_and_then_nothing() -> None:
    inbox = Inbox(100)
    deliveries = some(3)
    inbox.put(deliveries)
    inbox.close()
    assert await inbox.get_batch(2) == deliveries[:2]
    assert await inbox.get_batch(2) == deliveries[2:]
    assert await inbox.get_batch(2) == []


async def test_closing_wakes_the_taker() -> None:
    inbox = Inbox(100)
    taking = asyncio.create_task(inbox.get_batch(5))
    await asyncio.sleep(0)
    inbox.close()
    assert await taking == []
