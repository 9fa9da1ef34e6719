"""By HTTP: a POST of the batch as JSON. See notifications.channels.http for addresses, redirects, TLS and secrets.

An answer of 200 to 299 means taken, unless it is a web page. 400 and 422 mean that something in the batch is wrong, 413
that it is too large; every other answer is about us or the site, and the batch waits.
"""

from __future__ import annotations

import asyncio
import gzip

from ..notifications.channels.channel import Rejected, Sent
from ..notifications.channels.http import Endpoint, Request
from .settings import ForwardSettings
from .target import Answer, Away, Parcel, Refused, Taken, Target

_TOO_LARGE = 413
_ABOUT_THE_EVENTS = (400, _TOO_LARGE, 422)


class HttpTarget(Target):
    """Each request has the header `Idempotency-Key`."""

    def __init__(self, settings: ForwardSettings) -> None:
        headers = {"Content-Type": "application/json"} | settings.headers
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        self._endpoint = Endpoint(
            settings.to,
            timeout_seconds=settings.timeout,
            ca=settings.ca,
            redirects=settings.redirects,
            headers=headers,
        )
        self._gzip = settings.gzip
        self.place = self._endpoint.address.origin

    async def send(self, parcel: Parcel) -> Answer:
        """See Target.send."""
        body, headers = parcel.body, {"Idempotency-Key": parcel.key}
        if self._gzip:
            body = await asyncio.to_thread(gzip.compress, body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        request = Request(
            method="POST", body=body, headers=headers, now=parcel.now, refusals=_ABOUT_THE_EVENTS, no_page=True
        )
        outcome = await self._endpoint.ask(request)
        if isinstance(outcome, Sent):
            return Taken(len(body))
        if isinstance(outcome, Rejected):
            return Refused(outcome.reason, too_large=outcome.status == _TOO_LARGE)
        return Away(outcome.reason, outcome.after_seconds)
