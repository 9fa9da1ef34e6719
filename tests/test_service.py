"""What every long-lived part does, whatever its work does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from edgeq import service
from edgeq.clock import Clock
from edgeq.service import Service


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
    async with asyncio.timeout(10):
        await asyncio.sleep(0)
        await deaf.stop(0.02)
    assert not deaf.ended.is_set()
    assert [record.getMessage() for record in caplog.records] == [
        "did not stop within 0.02s and was cancelled",
        "goes on though it was cancelled, and is left behind",
    ]
    deaf.wake.set()
    await deaf.ended.wait()
