"""From settings to a processor that forwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

from msgspec.structs import replace

from ..clock import Clock
from ..config.checks import rate
from ..errors import StoreError
from ..store.opening import place
from ..telemetry.metrics import Metrics
from .mqtt import Publish
from .processor import Forward
from .settings import SESSION, ForwardSettings, way
from .target import Target


def plan(
    name: str, settings: ForwardSettings, folder: str, gateway: str, publish: Publish, metrics: Metrics, clock: Clock
) -> tuple[Callable[[], Forward], ForwardSettings]:
    """What makes processor `name`, and its settings as it needs them: files are relative to `folder`, and no more is
    read at once than `rate` lets go in a second. Raises ValueError for what can't work."""
    if settings.rate is not None:
        settings = replace(settings, batch_size=max(1, min(settings.batch_size, int(rate(settings.rate)))))
    tls = settings.tls
    tls = replace(tls, ca=_rooted(folder, tls.ca), cert=_rooted(folder, tls.cert), key=_rooted(folder, tls.key))
    settings = replace(settings, tls=tls)
    make = _target(name, settings, gateway, publish, clock)
    make()  # what can't work is to be told now
    return lambda: Forward(name, settings, make(), gateway, metrics, clock), settings


def _target(name: str, settings: ForwardSettings, gateway: str, publish: Publish, clock: Clock) -> Callable[[], Target]:
    # Each is imported when it is used: HTTP and PostgreSQL cost memory.
    to = way(settings.to)
    if to == "http":
        from .http import HttpTarget

        return lambda: HttpTarget(settings)
    if to == "postgresql":
        if find_spec("psycopg") is None:
            raise ValueError("needs the extra 'postgres': pip install 'edgeq[postgres]'")
        try:
            place(settings.to)
        except StoreError as error:
            raise ValueError(str(error)) from None
        from .postgresql import PostgresTarget

        return lambda: PostgresTarget(settings, gateway)
    from .mqtt import BrokerTarget, SessionTarget

    if to == "session":
        return lambda: SessionTarget(settings, _filled(settings.to.removeprefix(SESSION), gateway), publish)
    topic = _filled(settings.topic, gateway)
    return lambda: BrokerTarget(settings, topic, f"edgeq-{gateway}-{name}", clock)


def _filled(topic: str, gateway: str) -> str:
    return topic.replace("{gateway}", gateway)


def _rooted(folder: str, path: str | None) -> str | None:
    return os.path.join(folder, path) if path else None
