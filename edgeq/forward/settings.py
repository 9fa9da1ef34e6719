"""The keys of a processor of kind `forward`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from ..config import checks
from ..config.schema import Tls
from ..notifications.channels.http import HeaderValue, header_value, host
from ..notifications.channels.line import Timeout
from ..notifications.channels.tls import CaFile
from ..processors.settings import BATCH_SIZE_MAX, ProcessorSettings
from ..units import Duration, Size

SESSION = "mqtt:"
_FORM = "must be https://…, http://…, mqtts://…, mqtt://…, postgresql://… or mqtt:TOPIC"
_ONLY_FOR = {
    "http": ("headers", "token", "redirects"),
    "mqtt": ("topic", "username", "client_id", "version", "tls"),
}


def way(to: str) -> str:
    """Which way `to` names: `http`, `mqtt`, `session` (edgeq's own with its broker) or `postgresql`. Raises ValueError
    for what is no such address."""
    scheme, found, _ = to.partition("://")
    if not found and to.startswith(SESSION):
        topic(to.removeprefix(SESSION))
        return "session"
    if scheme in ("http", "https"):
        checks.http_url(to)
        return "http"
    if scheme in ("mqtt", "mqtts"):
        checks.mqtt_url(to)
        return "mqtt"
    if scheme in ("postgresql", "postgres"):
        checks.postgres_url(to)
        return "postgresql"
    raise ValueError(_FORM)


def address(text: str) -> None:
    """What `way` understands."""
    way(text)


def topic(text: str) -> None:
    """A topic in which `{gateway}` may stand."""
    checks.status_topic(text)


def prefix(text: str) -> None:
    """A text in which `{gateway}` may stand."""
    if set(text.replace("{gateway}", "")) & set("{}") or not text.isprintable():
        raise ValueError("must hold no placeholder but {gateway}")


class ForwardSettings(ProcessorSettings, frozen=True, kw_only=True):
    """`processors.*` of kind `forward`, beside the keys of every processor.

    `rate` is how many events a second are sent at most, `newest_first` are the types that go before their turn while it
    is behind, `gather` is how long events that have just come are waited for, to send more at once. `max_body` is the
    largest batch as JSON, before it is packed. `prefix` is put before each subject. `series` is to be another number
    after the gateway's database was restored from a backup.
    """

    to: Annotated[str, address]
    batch_size: Annotated[int, checks.between(1, BATCH_SIZE_MAX)] = 500
    gzip: bool = False
    rate: Annotated[str, checks.rate] | None = None
    newest_first: list[str] = msgspec.field(default_factory=list)
    gather: Annotated[Duration, checks.between(Duration(0), Duration(3600))] = Duration(0)
    max_body: Annotated[Size, checks.between(Size(1024), Size(8 * 2**20))] = Size(256 * 1024)
    prefix: Annotated[str, prefix] = ""
    series: Annotated[int, checks.between(1, 1_000_000)] = 1
    timeout: Timeout = Duration(30)
    headers: dict[str, HeaderValue] = msgspec.field(default_factory=dict)
    token: Annotated[str, header_value] | None = None
    ca: CaFile | None = None
    redirects: list[Annotated[str, host]] = msgspec.field(default_factory=list)
    topic: Annotated[str, topic] = "site/{gateway}/events"
    username: str | None = None
    password: str | None = None
    client_id: Annotated[str, checks.client_id] = ""
    version: Literal["5", "3.1.1"] = "5"
    tls: Tls = Tls()

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Keys that the way to the site has no use for."""
        try:
            to = way(given.get("to") or "")
        except ValueError:
            return
        for kind, keys in _ONLY_FOR.items():
            if to != kind:
                yield from ((key, f"is for {kind}:// only, and to is not") for key in keys if key in given)
        if to != "http" and "ca" in given:
            yield "ca", "is for https:// only; with mqtts:// it is tls.ca, with postgresql:// part of the address"
        if to not in ("mqtt", "postgresql") and "password" in given:
            yield "password", "is for mqtt:// and postgresql:// only, and to is not"
        if to == "mqtt" and "password" in given and "username" not in given:
            yield "password", "needs username as well"
        if to == "postgresql" and "gzip" in given:
            yield "gzip", "is for http:// and mqtt:// only: a database takes rows"
        if "tls" in given and to == "mqtt" and not str(given["to"]).startswith("mqtts://"):
            yield "tls", "is used with mqtts:// only, and to is not"
