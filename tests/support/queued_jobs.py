"""Jobs for the tests of `Queue`."""

from __future__ import annotations

from typing import Any

from edgeq import Job, Limit


class Greet(Job):
    name: str = "world"

    async def handle(self, ctx: Any) -> None: ...


class Other(Job):
    queue = "other"

    async def handle(self, ctx: Any) -> None: ...


class Limited(Job):
    limit = Limit(concurrency=1)

    async def handle(self, ctx: Any) -> None: ...


class Needy(Job):
    needs = "crm"

    async def handle(self, ctx: Any) -> None: ...
