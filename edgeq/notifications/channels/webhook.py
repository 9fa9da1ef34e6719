"""Channel `webhook`: an HTTP request with the notification as JSON, or with JSON of one's own making.

Sent means an answer of 200 to 299. A notification that is refused (other 400 to 499) is given up; everything else is
tried again. See `http` for redirects. Signed as Standard Webhooks 1.0 has it (https://www.standardwebhooks.com), with
the idempotency key as the webhook's id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec

from ...clock import MICROSECONDS
from ...config import checks
from ...config.schema import Record
from ...events import to_json
from ...units import Size
from ..notification import Notification
from .channel import Channel, Links, Outcome
from .fill import compile_text, compile_value, template
from .http import Endpoint, HeaderValue, HttpSettings, Request
from .shorten import shortened

_SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
_SECRET_BYTES_MIN = 24
_SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


def _signing_secret(text: str) -> None:
    if len(_key(text)) < _SECRET_BYTES_MIN:
        raise ValueError(f"must have at least {_SECRET_BYTES_MIN} bytes, or be {_SECRET_PREFIX} and as many in base64")


def _key(secret: str) -> bytes:
    """The bytes to sign with. None at all when what follows the prefix isn't base64."""
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


class Sign(Record, frozen=True):
    """`channels.*.sign`: the secret that the receiver knows, too."""

    secret: Annotated[str, _signing_secret]


class WebhookSettings(HttpSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `webhook`. `query` and `body` are filled in (see `fill`); without `body`, the whole
    notification is sent as JSON. `max_body` is the longest text of a notification that the target takes."""

    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    headers: dict[str, HeaderValue] = msgspec.field(default_factory=dict)
    query: dict[str, Annotated[str, template]] = msgspec.field(default_factory=dict)
    body: Annotated[dict[str, Any], template] | None = None
    sign: Sign | None = None
    max_body: Annotated[Size, checks.between(Size(256), Size(16 * 1024))] = Size(16 * 1024)

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What a request without a body can't have."""
        if given.get("method") == "GET":
            wrong = [key for key in ("body", "sign") if key in given]
            yield from ((key, "is for requests with a body, and GET has none") for key in wrong)


class WebhookChannel(Channel):
    """Each request has the header `Idempotency-Key`, by which a receiver knows what it has got already."""

    kind = "webhook"
    settings = WebhookSettings
    digests = True

    def __init__(self, name: str, settings: WebhookSettings, links: Links) -> None:
        super().__init__(name, settings, links)
        self.body_bytes_max = settings.max_body
        self._query = {key: compile_text(text) for key, text in settings.query.items()}
        self._body = None if settings.body is None else compile_value(settings.body)
        self._method = settings.method
        self._key = None if settings.sign is None else _key(settings.sign.secret)
        for header in settings.headers:
            if self._key is not None and header.lower() in _SIGNATURE_HEADERS:
                raise ValueError(f"headers: {header} is set by edgeq")
        self._endpoint = Endpoint(
            settings.url,
            timeout_seconds=settings.timeout,
            ca=settings.ca,
            redirects=settings.redirects,
            headers=({} if self._method == "GET" else {"Content-Type": "application/json"}) | settings.headers,
        )

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        short = msgspec.structs.replace(notification, body=shortened(notification.body, self.body_bytes_max))
        fields = short.as_dict()
        headers = {"Idempotency-Key": notification.idempotency_key}
        body = None
        if self._method != "GET":
            body = to_json(fields if self._body is None else self._body(fields)).encode()
            headers |= self._signature(notification, body)
        request = Request(
            method=self._method,
            query=urlencode({key: fill(fields) for key, fill in self._query.items()}),
            body=body,
            headers=headers,
            now=notification.attempted_at,
        )
        return await self._endpoint.ask(request)

    def _signature(self, notification: Notification, body: bytes) -> dict[str, str]:
        if self._key is None:
            return {}
        key, timestamp = notification.idempotency_key, str(notification.attempted_at // MICROSECONDS)
        signed = hmac.digest(self._key, f"{key}.{timestamp}.".encode() + body, hashlib.sha256)
        return dict(zip(_SIGNATURE_HEADERS, (key, timestamp, f"v1,{base64.b64encode(signed).decode()}"), strict=True))
