"""What every long-lived part does, whatever its work does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from edgeq import service
from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.errors import StoreUnavailable
from edgeq.service import Service
from edgeq.testing import until


class Deaf(Service):
    def __init__(self) -> None:
        super().__init__("deaf", Clock())
        self.wake = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self) -> None:
        while not self.wake.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.wake.wait()
        self.ended.set()


async def test_stop_leaves_behind_what_will_not_be_cancelled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "_CANCEL_SECONDS", 0.02)
    deaf = Deaf()
    await deaf.start()
    async with asyncio.timeout(60):
        await asyncio.sleep(0)
        await deaf.stop(0.02)
    assert not deaf.ended.is_set()
    assert [record.getMessage() for record in caplog.records] == [
        "did not stop within 0.02s and was cancelled",
        "goes on though it was cancelled, and is left behind",
    ]
    deaf.wake.set()
    await deaf.ended.wait()


class Crashing(Service):
    restart_backoff = Backoff(0.001, 0.001)

    def __init__(self, error: Exception) -> None:
        super().__init__("crashing", Clock())
        self._error = error

    async def run(self) -> None:
        raise self._error


@pytest.mark.parametrize(("error", "said_each_time"), [(StoreUnavailable("it is away"), False), (OSError("it"), True)])
async def test_a_store_that_is_away_for_long_is_said_once(
    error: Exception, said_each_time: bool, caplog: pytest.LogCaptureFixture
) -> None:
    crashing = Crashing(error)
    await crashing.start()
    await until(lambda: crashing.crashes >= 5, "some crashes")
    await crashing.stop()
    said = [record for record in caplog.records if record.getMessage().startswith(f"crashed: {error}; runs again")]
    assert len(said) == (crashing.crashes if said_each_time else 1)
