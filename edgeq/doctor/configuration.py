"""The configuration: what in it gives a guarantee away."""

from __future__ import annotations

from collections.abc import Iterator

from ..units import Duration
from .case import Case
from .finding import Finding, ok, warn

_SHORT_SECONDS = 86400.0


def loaded(case: Case) -> Iterator[Finding]:
    """The configuration. It is right; what is asked here is whether it is wise."""
    files, config = case.loaded.files, case.loaded.config
    beside = f" and {len(files) - 1} more beside it" if len(files) > 1 else ""
    yield ok(f"{files[0] if files else 'no file, all defaults'}{beside}: fine; the gateway is {config.gateway}")
    if config.store.durability == "normal":
        yield warn(
            f"store.durability is normal ({case.loaded.where('store.durability')})",
            "a power cut may take messages that were acknowledged already",
            "store: {durability: full}",
        )
    expiry = config.mqtt.session_expiry
    if expiry < _SHORT_SECONDS:
        yield warn(
            f"mqtt.session_expiry is {expiry} ({case.loaded.where('mqtt.session_expiry')})",
            "what is published while edgeq is down for longer is lost",
            f"mqtt: {{session_expiry: {Duration(7 * _SHORT_SECONDS)}}}",
        )
    if not config.routes and not config.app.modules:
        yield warn("there are no routes", "edgeq takes in nothing", "see: edgeq new DIR")
