"""Channel `webhook`: an HTTP request with the notification as JSON.

Sent means an answer of 200 to 299. A notification that is refused (other 400 to 499) is given up; everything else is
tried again. Redirects aren't followed.
"""

from __future__ import annotations

import base64
import http.client
import re
import string
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from ...clock import EPOCH, MICROSECONDS
from ...config import checks
from ...config.schema import Record
from ...units import Duration
from ..notification import Notification
from .channel import Channel, Links, Outcome, Rejected, Retry, Sent
from .line import Line, Timeout, exchange, why
from .tls import CaFile, context

RETRY_AFTER_SECONDS_MAX = 3600.0

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_OURS = {"connection", "content-length", "host", "idempotency-key", "transfer-encoding"}
_NOT_AUTHENTICATED = (401, 407)
_AGAIN = (408, 425)
_OVERLOADED = (429, 502, 503, 504)


def _url(text: str) -> None:
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        port = parts.port
        host.encode("idna")
    except ValueError:
        raise ValueError("must be an address such as https://example.net/hook") from None
    if parts.scheme not in ("http", "https") or not host or port == 0 or not text.isprintable() or " " in text:
        raise ValueError("must be an address such as https://example.net/hook")


def _header_value(text: str) -> None:
    if not _HEADER_VALUE.fullmatch(text):
        raise ValueError("must be one line of Latin-1 characters")


class WebhookSettings(Record, frozen=True):
    """`channels.*` of kind `webhook`. A user and password in `url` are sent as basic authentication."""

    url: Annotated[str, _url]
    method: Literal["POST", "PUT"] = "POST"
    headers: dict[str, Annotated[str, _header_value, checks.may_be_a_file]] = msgspec.field(default_factory=dict)
    timeout: Timeout = Duration(10)
    ca: CaFile | None = None


class WebhookChannel(Channel):
    """Each request has the header `Idempotency-Key`, by which a receiver knows what it has got already."""

    kind = "webhook"
    settings = WebhookSettings

    def __init__(self, name: str, settings: WebhookSettings, links: Links) -> None:
        super().__init__(name, settings, links)
        self._settings = settings
        parts = urlsplit(settings.url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        self._target = quote(target, safe=string.punctuation)
        self._headers = {"User-Agent": "edgeq", "Content-Type": "application/json", "Connection": "close"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        for header, value in settings.headers.items():
            self._add(header, value)

    def _add(self, header: str, value: str) -> None:
        if not _HEADER_NAME.fullmatch(header):
            raise ValueError(f"headers: {header!r} is not the name of a header")
        if header.lower() in _OURS:
            raise ValueError(f"headers: {header} is set by edgeq")
        self._headers = {key: own for key, own in self._headers.items() if key.lower() != header.lower()}
        self._headers[header] = value

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        return await exchange(lambda line: self._request(line, notification), self._settings.timeout)

    def _request(self, line: Line, notification: Notification) -> Outcome:
        client = self._connect(line)
        line.handed_over = True
        try:
            client.request(
                self._settings.method,
                self._target,
                notification.as_json(),
                {**self._headers, "Idempotency-Key": notification.idempotency_key},
            )
            return _outcome(client.getresponse(), notification.attempted_at)
        except http.client.HTTPException as error:
            return Retry(f"no proper answer: {why(error) if isinstance(error, OSError) else type(error).__name__}")
        finally:
            client.close()

    def _connect(self, line: Line) -> http.client.HTTPConnection:
        client: http.client.HTTPConnection
        if not self._tls:
            client = http.client.HTTPConnection(self._host, self._port, timeout=line.timeout_seconds)
            client.sock = line.connect(self._host, self._port)
            return client
        tls = context(self._settings.ca)
        client = http.client.HTTPSConnection(self._host, self._port, timeout=line.timeout_seconds, context=tls)
        client.sock = tls.wrap_socket(line.connect(self._host, self._port), server_hostname=self._host)
        return client


def _outcome(answer: http.client.HTTPResponse, now: int) -> Outcome:
    """What an answer means. Its body isn't read: it could keep a decided matter open."""
    status = answer.status
    said = f"{status} {answer.reason}"[:200].strip()
    if 200 <= status < 300:
        return Sent()
    if status in _OVERLOADED:
        return Retry(said, _retry_after(answer, now), target_down=True)
    if status in _NOT_AUTHENTICATED:
        return Retry(f"{said}: check the user and password or token", target_down=True)
    if 300 <= status < 400:
        return Retry(f"{said}: redirects aren't followed", target_down=True)
    if 400 <= status < 500 and status not in _AGAIN:
        return Rejected(said)
    return Retry(said)


def _retry_after(answer: http.client.HTTPResponse, now: int) -> float | None:
    """Seconds that `Retry-After` asks for, as seconds or as a date; a date counts from the server's own, if it says."""
    text = (answer.headers.get("Retry-After") or "").strip()
    if text.isdecimal():
        seconds = float(text[:12])
    else:
        until, since = _moment(text), _moment(answer.headers.get("Date") or "")
        if until is None:
            return None
        seconds = until - (now / MICROSECONDS if since is None else since)
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX)


def _moment(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=EPOCH.tzinfo)).timestamp()
