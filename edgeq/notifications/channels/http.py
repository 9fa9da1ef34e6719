"""What everything that makes HTTP requests shares: the checks of addresses and headers, one exchange with a server, and
what its answer means.

- An answer of 200 to 299 means sent. Its body isn't read: it could keep a decided matter open. Of another answer's body
  the first words are told, of a page its title, without what is secret in the request.
- A redirect is followed to the same host, or to a host that is named, and never from https:// to http://. One that
  would drop the body of the request (301, 302, 303) is followed by a GET alone: who answers what is left of the request
  hasn't taken the notification.
- One time limit is for all of it, however slowly the server answers and however often it redirects.
"""

from __future__ import annotations

import base64
import html
import http.client
import re
import socket
import string
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Annotated
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec

from ...clock import EPOCH, MICROSECONDS
from ...config import checks
from ...config.origin import HIDDEN
from ...units import Duration
from .channel import ChannelSettings, Outcome, Rejected, Retry, Sent
from .line import Line, Timeout, exchange, why
from .tls import CaFile, context

RETRY_AFTER_SECONDS_MAX = 3600.0
REDIRECTS_MAX = 5
SAID_CHARACTERS_MAX = 300

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_HOST = re.compile(r"[\w.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_OURS = {"connection", "content-length", "host", "idempotency-key", "transfer-encoding"}
_SECRET_CHARACTERS_MIN = 4
_PORTS = {"http": 80, "https": 443}

_NOT_AUTHENTICATED = (401, 407)
_AGAIN = (408, 425)
_OVERLOADED = (429, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_REDIRECTS_OF_ALL = (307, 308)
# How long the words of an answer that says no are waited for, once it is known that it does.
_WORDS_SECONDS = 2.0
_WORDS_BYTES_MAX = 4096


class Address(msgspec.Struct, frozen=True):
    """Where a request goes. `target` is path and query as they stand in it."""

    tls: bool
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError for what is no http:// or https:// address."""
        checks.http_url(url)
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        port = parts.port or _PORTS[parts.scheme]
        return cls(parts.scheme == "https", parts.hostname or "", port, quote(target, safe=string.punctuation))

    @property
    def origin(self) -> str:
        """What may be shown of it: who answers there."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host}" + ("" if self.port == _PORTS[scheme] else f":{self.port}")


def header_value(text: str) -> None:
    """What can be sent as a header."""
    if not _HEADER_VALUE.fullmatch(text):
        raise ValueError("must be one line of Latin-1 characters")


def host(text: str) -> None:
    """A host that may be redirected to, with a port if it isn't the usual one."""
    if not _HOST.fullmatch(text):
        raise ValueError("must be a host such as example.net or example.net:8443")


Url = Annotated[str, checks.http_url]
HeaderValue = Annotated[str, header_value, checks.may_be_a_file]


class HttpSettings(ChannelSettings, frozen=True, kw_only=True):
    """Keys of every kind of channel that makes HTTP requests. A user and password in `url` are sent as basic
    authentication."""

    url: Url
    timeout: Timeout = Duration(10)
    ca: CaFile | None = None
    redirects: list[Annotated[str, host]] = msgspec.field(default_factory=list)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `target` is another path than the address has, `query` is added to what it has. `now`, in
    microseconds since 1970 UTC, is what a server's dates count from if it doesn't say what time it has. Statuses of 400
    to 499 in `refusals` are about what is sent, others about us. With `no_page`, a good answer that is a web page is
    somebody else's: the login of a network, or what stands at another path."""

    method: str
    now: int
    target: str = ""
    query: str = ""
    body: bytes | None = None
    headers: dict[str, str] = {}
    refusals: tuple[int, ...] | range = range(400, 500)
    no_page: bool = False


class Endpoint:
    """A server to make requests to. `redirects` are the hosts that it may send us to beside its own, None: it may not
    send us anywhere. `headers` go to all of them; `secrets` are what else of a request must not be told."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        ca: str | None = None,
        redirects: Collection[str] | None = (),
        headers: Mapping[str, str] | None = None,
        secrets: Collection[str] = (),
    ) -> None:
        self.address = Address.of(url)
        self._timeout_seconds = timeout_seconds
        self._ca = ca
        self._redirects = None if redirects is None else {each.lower() for each in redirects}
        self._headers = {"User-Agent": "edgeq", "Connection": "close"}
        self._secrets = [self.address.target, *re.split(r"[/?&=]", unquote(self.address.target)), *secrets]
        parts = urlsplit(url)
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._secrets += [parts.password or "", unquote(parts.password or "")]
            self._add("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        for name, value in (headers or {}).items():
            self._add(name, value)

    def _add(self, name: str, value: str) -> None:
        """Raises ValueError."""
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r} is not the name of a header")
        if name.lower() in _OURS:
            raise ValueError(f"headers: {name} is set by edgeq")
        self._headers = {key: own for key, own in self._headers.items() if key.lower() != name.lower()}
        self._headers[name] = value
        self._secrets += [value, value.rpartition(" ")[2]]

    async def ask(self, request: Request) -> Outcome:
        """What comes of one request."""
        return await exchange(lambda line: self._exchange(line, request), self._timeout_seconds)

    def _exchange(self, line: Line, request: Request) -> Outcome:
        target = request.target or self.address.target
        if request.query:
            target += f"{'&' if '?' in target else '?'}{request.query}"
        address = msgspec.structs.replace(self.address, target=target)
        headers = {**self._headers, **request.headers}
        for _ in range(REDIRECTS_MAX + 1):
            client, connection = self._connect(line, address)
            line.handed_over = True
            try:
                client.request(request.method, address.target, request.body, headers)
                answer = client.getresponse()
                there = self._redirected(address, request.method, answer)
                if there is None:
                    if request.no_page and 200 <= answer.status < 300 and _is_page(answer):
                        said = f"{answer.status} with a web page: a login on the way, or the path is wrong"
                        return Retry(said, target_down=True)
                    return _outcome(answer, self._said(answer, connection), request)
            except http.client.HTTPException as error:
                return Retry(f"no proper answer: {why(error) if isinstance(error, OSError) else type(error).__name__}")
            finally:
                client.close()
            if isinstance(there, str):
                return Retry(there, target_down=True)
            address = there
            line.handed_over = False
        return Retry(f"redirects more than {REDIRECTS_MAX} times", target_down=True)

    def _connect(self, line: Line, address: Address) -> tuple[http.client.HTTPConnection, socket.socket]:
        client = http.client.HTTPConnection(address.host, address.port, timeout=line.timeout_seconds)
        if address.tls:
            client.default_port = _PORTS["https"]  # which the header Host leaves out
        connection = line.connect(address.host, address.port)
        if address.tls:
            connection = context(self._ca).wrap_socket(connection, server_hostname=address.host)
        client.sock = connection
        return client, connection

    def _redirected(self, here: Address, method: str, answer: http.client.HTTPResponse) -> Address | str | None:
        """Where to go on, or why not to; None when the answer is no redirect."""
        if answer.status not in _REDIRECTS:
            return None
        said = f"{answer.status} {http.client.responses[answer.status]}"
        if self._redirects is None:
            return f"{said}: redirects aren't followed"
        base = f"{here.origin}{here.target}"
        try:
            there = Address.of(urljoin(base, quote(answer.headers.get("Location") or "", safe=string.punctuation)))
        except ValueError:
            return f"{said}, but to no proper address"
        if here.tls and not there.tls:
            return f"{said} to {there.origin}: redirects from https:// to http:// aren't followed"
        upgraded = not here.tls and there.tls and (here.port, there.port) == (_PORTS["http"], _PORTS["https"])
        same = here.host == there.host and (here.port == there.port or upgraded)
        if not same and not self._redirects & {there.host, there.origin.partition("://")[2]}:
            return f"{said} to {there.origin}: put the new address into url, or the host into redirects"
        if method != "GET" and answer.status not in _REDIRECTS_OF_ALL:
            return f"{said} to {there.origin}: it would drop the notification; put the new address into url"
        return there

    def _said(self, answer: http.client.HTTPResponse, connection: socket.socket) -> str:
        """The status, and the first words of what an answer that isn't good says of it."""
        words = f"{answer.status} {answer.reason}"
        if not 200 <= answer.status < 300:
            connection.settimeout(_WORDS_SECONDS)
            try:
                more = answer.read1(_WORDS_BYTES_MAX).decode(errors="replace")
            except (OSError, http.client.HTTPException):
                more = ""
            if _is_marked_html(answer) and more.lstrip().startswith("<"):
                title = _TITLE.search(more)
                more = html.unescape(title[1]) if title else ""
            words = f"{words}: {more}" if more.strip() else words
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _SECRET_CHARACTERS_MIN:
                words = words.replace(secret, HIDDEN)
        words = "".join(sign if sign.isprintable() else " " for sign in words)
        return " ".join(words.split())[:SAID_CHARACTERS_MAX]


def _is_page(answer: http.client.HTTPResponse) -> bool:
    """Whether it is marked as HTML, and is: a short word often has the mark, too."""
    return _is_marked_html(answer) and answer.peek(1).lstrip().startswith(b"<")


def _is_marked_html(answer: http.client.HTTPResponse) -> bool:
    return answer.headers.get_content_type() == "text/html"


def _outcome(answer: http.client.HTTPResponse, said: str, request: Request) -> Outcome:
    status = answer.status
    if 200 <= status < 300:
        return Sent(answer=said)
    if status in _OVERLOADED:
        return Retry(said, _retry_after(answer, request.now), target_down=True)
    if status in _NOT_AUTHENTICATED:
        return Retry(f"{said}: check the user and password or token", target_down=True)
    if 400 <= status < 500 and status not in _AGAIN:
        return Rejected(said, status) if status in request.refusals else Retry(said, target_down=True)
    return Retry(said, target_down=300 <= status < 400)


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
