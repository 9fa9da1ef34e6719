"""What makes a value of the right type impossible. Each check raises ValueError with words that begin with "must"."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sized
from urllib.parse import urlsplit

from ..backoff import Backoff
from ..units import Duration

MQTT_TEXT_BYTES_MAX = 65_535
PAYLOAD_BYTES_MAX = 268_435_455  # what a packet of MQTT can announce
RATE_MAX = 1e9
PRIORITY_MAX = 1000
TOKEN_CHARACTERS_MIN = 16

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"(\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9.-]*)):(?P<port>[0-9]{1,5})")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")
_COUNT = re.compile(r"[0-9]+(\.[0-9]+)?")
_SCHEMES = ("postgresql", "postgres")
_HOSTS = re.compile(r"(?:(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._~%-]*)(?::[0-9]{1,5})?(?:,|$))*")
_OPTION = re.compile(r"[a-z_]+=[^=&]*")
_STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")


def between(low: float, high: float) -> Callable[[float], None]:
    """A check that `low <= value <= high`."""

    def check(value: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}")

    return check


def at_least(low: float) -> Callable[[float], None]:
    """A check that `value >= low`."""

    def check(value: float) -> None:
        if value < low:
            raise ValueError(f"must be at least {low}")

    return check


def waits_at_least(low: Duration) -> Callable[[Backoff], None]:
    """A check that no wait is meant to be below `low`."""

    def check(value: Backoff) -> None:
        if value.first < low:
            raise ValueError(f"must begin with at least {low}")

    return check


def positive(value: float) -> None:
    """More than nothing."""
    if value <= 0:
        raise ValueError("must be more than 0")


def keepalive(value: Duration) -> None:
    """What MQTT's 16 bits of seconds hold, and not so little that a slow link looks dead."""
    _whole_seconds(value)
    between(Duration(5), Duration(18 * 3600))(value)


def session_expiry(value: Duration) -> None:
    """What MQTT's 32 bits of seconds hold."""
    _whole_seconds(value)
    between(Duration(0), Duration(2**32 - 1))(value)


def word(text: str) -> None:
    """A name to be typed on a command line: not empty, without blanks and control characters."""
    if not text or not text.isprintable() or any(sign.isspace() for sign in text):
        raise ValueError("must be a name without spaces")


def label(text: str) -> None:
    """A name of a queue or a dependency, of which jobs have the same."""
    if not _LABEL.fullmatch(text):
        raise ValueError("must be a name of up to 64 letters, digits, '_', '-' and '.'")


def topic_level(text: str) -> None:
    """A name that can be one level of a topic."""
    word(text)
    if set(text) & set("/+#"):
        raise ValueError("must be a name without spaces, '/', '+' and '#'")
    _fits_mqtt(text)


def client_id(text: str) -> None:
    """Empty (for the default), or what every broker takes."""
    if text:
        word(text)
        if set(text) & set("+#"):
            raise ValueError("must be a name without '+' and '#', which access lists of brokers refuse")
        _fits_mqtt(text)


def topic_name(text: str) -> None:
    """A topic that can be published to, other than the broker's own."""
    if not text or set(text) & set("+#") or not text.isprintable() or text.startswith("$"):
        raise ValueError("must be a topic without wildcards, not beginning with '$'")
    _fits_mqtt(text)


def topic_prefix(text: str) -> None:
    """A topic name below which there are others."""
    if text.endswith("/"):
        raise ValueError("must not end with '/'")
    topic_name(text)


def status_topic(text: str) -> None:
    """A topic name in which `{gateway}` may stand."""
    if set(text.replace("{gateway}", "")) & set("{}"):
        raise ValueError("must hold no placeholder but {gateway}")
    topic_prefix(text)


def mqtt_url(text: str) -> None:
    """`mqtt://host[:port]`, `mqtts://host[:port]` or `embedded://[host[:port]]`."""
    form = "must be mqtt://HOST:PORT, mqtts://HOST:PORT or embedded://"
    if not text.isprintable() or any(sign.isspace() for sign in text):
        raise ValueError(form)
    scheme, found, _ = text.partition("://")
    if not found or scheme not in ("mqtt", "mqtts", "embedded"):
        raise ValueError(form)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{form}, with a port between 1 and 65535") from None
    if port == 0:
        raise ValueError(f"{form}, with a port between 1 and 65535")
    if parts.username is not None:
        raise ValueError("must not hold a user name: use mqtt.username and mqtt.password_file")
    if scheme != "embedded" and not parts.hostname:
        raise ValueError("must name a host, such as mqtt://localhost:1883")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{form}, with nothing behind the port")


def http_url(text: str) -> None:
    """`http://` or `https://`, with a host."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
        if parts.scheme not in ("http", "https") or not host or port == 0 or not text.isprintable() or " " in text:
            raise ValueError
    except ValueError:
        raise ValueError("must be an address such as https://example.net/hook") from None


def address(text: str) -> tuple[str, int]:
    """The host and port of `127.0.0.1:8321`, `[::1]:8321` or `:8321` (all addresses: an empty host). Raises
    ValueError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise ValueError("must be an address and a port to listen on, such as 127.0.0.1:8321 or [::1]:8321")
    return found["six"] or found["host"] or "", int(found["port"])


def listen(text: str) -> None:
    """What `address` understands."""
    address(text)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone: a name or number that no other machine can reach."""
    return _LOOPBACK.fullmatch(host.lower()) is not None


def is_postgres(url: str) -> bool:
    """Whether `store.url` names a database on a PostgreSQL server; if not, it is for `sqlite_path`."""
    return url.partition("://")[0] in _SCHEMES and "://" in url


def header_token(text: str) -> None:
    """What can be sent as a token in a header of HTTP, and is not to be guessed."""
    if len(text) < TOKEN_CHARACTERS_MIN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"must be at least {TOKEN_CHARACTERS_MIN} ASCII characters without spaces")


def sqlite_path(url: str) -> str:
    """The absolute path of the database that `store.url` names, relative to the current folder.

    `edgeq.db`, `sqlite:///edgeq.db` and `sqlite:////var/lib/edgeq/edgeq.db` are understood. Raises ValueError.
    """
    scheme, found, rest = url.partition("://")
    if found and (scheme != "sqlite" or not rest.startswith("/")):
        raise ValueError("must be a path, sqlite:////absolute/path, sqlite:///relative/path or postgresql://…")
    path = rest[1:] if found else url
    if not path or path.endswith("/") or path == ":memory:" or not path.isprintable():
        raise ValueError("must be the path of a file")
    return os.path.abspath(path)


def postgres_url(url: str) -> None:
    """`postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE`, as libpq understands it; the host may be left out,
    and there may be several."""
    form = "must be postgresql://HOST:PORT/DATABASE, perhaps with USER:PASSWORD@ before the host"
    where, _, options = url.partition("://")[2].partition("?")
    authority, _, database = where.partition("/")
    user, _, hosts = authority.rpartition("@")
    given = [option for option in options.split("&") if option]
    if not url.isprintable() or any(sign.isspace() for sign in url):
        raise ValueError(form)
    if "@" in user or "/" in database or not _HOSTS.fullmatch(hosts) or _STRAY_PERCENT.search(url):
        raise ValueError(f"{form}; signs such as / @ : ? % in a name or password are written %2F %40 %3A %3F %25")
    if not all(_OPTION.fullmatch(option) for option in given):
        raise ValueError("must have its options as ?OPTION=VALUE&OPTION=VALUE")
    if not database and not any(option.startswith(("dbname=", "service=")) for option in given):
        raise ValueError("must name a database, such as postgresql://db.example.net/edgeq")


def store_url(text: str) -> None:
    """What `sqlite_path` or `postgres_url` understands."""
    if is_postgres(text):
        postgres_url(text)
    else:
        sqlite_path(text)


def rate(text: str) -> float:
    """How often a second `100/s`, `5/m`, `1/h` or `1/10s` is. Raises ValueError."""
    count, _, period = text.partition("/")
    unit = period.strip()
    try:
        seconds = Duration.parse(unit if unit[:1].isdigit() else f"1{unit}")
        if not _COUNT.fullmatch(count.strip()) or not 0 < float(count) < RATE_MAX or not seconds:
            raise ValueError
    except ValueError:
        raise ValueError("must be a rate such as 100/s, 5/m or 1/10s") from None
    return float(count) / seconds


def priority(value: str | int) -> None:
    """A word, or a number within what a job's priority may be."""
    if not isinstance(value, str) and abs(value) > PRIORITY_MAX:
        raise ValueError(f"must be high, normal, low or a number from -{PRIORITY_MAX} to {PRIORITY_MAX}")


def may_be_a_file(text: str) -> None:
    """Any text. In `dict[str, Annotated[str, may_be_a_file]]` a key may be given as `KEY_file`, as a record's may."""


def some(items: Sized) -> None:
    """A list with something in it."""
    if not items:
        raise ValueError("must not be empty")


def _fits_mqtt(text: str) -> None:
    if len(text.encode()) > MQTT_TEXT_BYTES_MAX:
        raise ValueError(f"must be at most {MQTT_TEXT_BYTES_MAX} bytes")


def _whole_seconds(value: Duration) -> None:
    if not value.is_integer():  # a part of a second would silently become none
        raise ValueError("must be whole seconds")
