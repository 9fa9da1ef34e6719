"""Who may do what at the interface.

- Reading is free for who asks on this machine, at a listener of this machine alone, and by a name of it: a page from
  elsewhere whose name was made to lead here ("DNS rebinding") asks by its own name, and is refused. What came by way of
  a proxy, or to any other listener, needs the token.
- Whatever changes something needs the token, from everywhere.
- The token is sent with each request, `Authorization: Bearer …`, or once to get a session: a cookie that scripts can't
  read, that browsers send from pages of ours alone, and that ends after SESSION_SECONDS, at the logout, or when
  the token is changed. To change something by it, a request must have the header `X-Edgeq: 1` as well, which no form
  of others can send, and come from a page of ours as far as the browser says.
- An address that sends wrong tokens has TRIES of them, and TRIES_PER_SECOND more; beyond that, none of its tokens is
  looked at.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ..clock import MICROSECONDS, Clock
from ..config.checks import address, is_loopback
from .replies import Refusal

Need = Literal["nothing", "read", "change"]

COOKIE = "edgeq_session"
SESSION_SECONDS = 12 * 3600
TRIES = 10
TRIES_PER_SECOND = 0.5
ADDRESSES_MAX = 256
ENDED_MAX = 256

_NO_TOKEN = "nobody may do that here: set web.token_file in the configuration of edgeq"  # noqa: S105
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class Caller(NamedTuple):
    """Who asks: `known` has shown the token; `by_session`, with a cookie."""

    known: bool
    by_session: bool = False


class Asked(NamedTuple):
    """What is known of a request before its body is looked at. The names of `headers` are in lower case."""

    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    address: str


class Access:
    """Knows the `token`, if there is one, and the sessions that were opened with it. `public_url` is where people
    reach a listener of this machine alone through a proxy."""

    def __init__(self, listen: str, token: str | None, public_url: str | None, clock: Clock) -> None:
        self.token = token
        self.local = is_loopback(address(listen)[0])
        self._public_host = urlsplit(public_url).hostname if public_url else None
        self._clock = clock
        self._key = hashlib.sha256(b"edgeq session\0" + (token or secrets.token_urlsafe()).encode()).digest()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._tries = _Tries(clock)

    def caller(self, asked: Asked, need: Need) -> Caller:
        """Who asks for something that needs `need`. Raises Refusal when that is not for them."""
        if need == "nothing":
            return Caller(known=False)
        caller = self._caller(asked)
        if caller.known and not caller.by_session:
            return caller
        host = _host(asked.headers.get("host", ""))
        if self.local and not caller.known and host != self._public_host and not is_loopback(host):
            raise Refusal(421, f"{host or 'no host'!r} is no name of this machine: ask at 127.0.0.1 or localhost")
        if need == "read" and (caller.known or self._is_near(asked, host)):
            return caller
        if self.token is None:
            raise Refusal(403, _NO_TOKEN)
        if not caller.known:
            raise _unknown()
        if need == "change":
            self._check_origin(asked)
            if asked.headers.get("x-edgeq") != "1":
                raise Refusal(403, "a change by a session needs the header X-Edgeq: 1")
        return caller

    def needs_token(self, asked: Asked) -> bool:
        """Whether this caller needs the token to read."""
        return not self._is_near(asked, _host(asked.headers.get("host", "")))

    def login(self, asked: Asked, token: str) -> str:
        """A new session, for the cookie. Raises Refusal when the token is wrong, or sent by a page of others."""
        self._check_origin(asked)
        if self.token is None:
            raise Refusal(403, _NO_TOKEN)
        if not self._is_token(token, asked.address):
            raise Refusal(401, "the token is wrong: it is what web.token_file of the configuration holds")
        words = f"{self._clock.now()}.{secrets.token_urlsafe(9)}"
        return f"{words}.{self._mac(words)}"

    def logout(self, asked: Asked) -> None:
        """End the caller's session, if there is one. Raises Refusal when a page of others asks for it."""
        self._check_origin(asked)
        session = asked.cookies.get(COOKIE, "")
        if self._is_session(session):
            self._ended[session] = None
            while len(self._ended) > ENDED_MAX:
                self._ended.popitem(last=False)

    def shows_token(self, asked: Asked) -> bool:
        """Whether a request has the token. Raises Refusal for an address that has tried too many."""
        given = _bearer(asked.headers)
        return given is not None and self._is_token(given, asked.address)

    def _caller(self, asked: Asked) -> Caller:
        if "authorization" in asked.headers:
            if self.shows_token(asked):
                return Caller(known=True)
            raise _unknown() if self.token is not None else Refusal(403, _NO_TOKEN)
        known = self._is_session(asked.cookies.get(COOKIE, ""))
        return Caller(known=known, by_session=known)

    def _is_near(self, asked: Asked, host: str) -> bool:
        return self.local and is_loopback(host) and not any(name in asked.headers for name in _FORWARDED)

    def _check_origin(self, asked: Asked) -> None:
        origin = asked.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != asked.headers.get("host", ""):
            raise Refusal(403, f"{origin!r} is none of our pages: open the page of edgeq itself")

    def _is_token(self, given: str, client: str) -> bool:
        self._tries.check(client)
        if self.token is not None and _same(given, self.token):
            return True
        self._tries.failed(client)
        return False

    def _is_session(self, session: str) -> bool:
        words, _, mac = session.rpartition(".")
        begun, _, _ = words.partition(".")
        if self.token is None or not _same(mac, self._mac(words)) or session in self._ended:
            return False
        return 0 <= self._clock.now() - int(begun) < SESSION_SECONDS * MICROSECONDS

    def _mac(self, words: str) -> str:
        mac = hmac.new(self._key, words.encode("utf-8", "replace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


class _Tries:
    """How many wrong tokens each address has left: a bucket that fills again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def check(self, client: str) -> None:
        """Raise Refusal when there is none left."""
        missing = self._missing(client)
        if missing > TRIES - 1:
            seconds = round((missing - TRIES + 1) / TRIES_PER_SECOND) + 1
            raise Refusal(429, f"too many wrong tokens: try again in {seconds} s", {"Retry-After": str(seconds)})

    def failed(self, client: str) -> None:
        """One less."""
        self._full_at[client] = self._clock.monotonic() + (self._missing(client) + 1) / TRIES_PER_SECOND
        self._full_at.move_to_end(client)
        while len(self._full_at) > ADDRESSES_MAX:
            self._full_at.popitem(last=False)

    def _missing(self, client: str) -> float:
        return max(0.0, self._full_at.get(client, 0.0) - self._clock.monotonic()) * TRIES_PER_SECOND


def _unknown() -> Refusal:
    return Refusal(
        401,
        "the token is missing or wrong: send it as Authorization: Bearer TOKEN, or log in",
        {"WWW-Authenticate": "Bearer"},
    )


def _bearer(headers: Mapping[str, str]) -> str | None:
    if "authorization" not in headers:
        return None
    way, _, token = headers["authorization"].partition(" ")
    return token.strip() if way.lower() == "bearer" else ""


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode("utf-8", "replace"))


def _host(header: str) -> str:
    """The name in a header `Host`, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
