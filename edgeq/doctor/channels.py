"""Where notifications and forwarded events go: whether the names can be found. Nothing is sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from .case import Case
from .finding import Finding, ok, warn


def resolved(case: Case) -> Iterator[Finding]:
    """Whether the hosts of channels, forwarders and the heartbeat have addresses."""
    asked: set[str] = set()
    for host, who in _hosts(case):
        if host in asked:
            continue
        asked.add(host)
        reason = _fault(host)
        if reason:
            yield warn(
                f"{host} of {who} can't be found: {reason}",
                "what goes there waits until it can",
                f"getent hosts {host}; resolvectl status",
            )
        else:
            yield ok(f"{host} of {who} can be found")


def _hosts(case: Case) -> Iterator[tuple[str, str]]:
    config = case.loaded.config
    for name, section in config.channels.items():
        if section.data.get("kind") == "apprise":
            continue  # its addresses have no hosts, but secrets, where others have them
        for key in ("host", "url"):
            if host := _host(section.data.get(key)):
                yield host, f"the channel {name}"
    for name, section in config.processors.items():
        if host := _host(section.data.get("to")):
            yield host, f"the processor {name}"
    beat = config.notifications.heartbeat
    if host := _host(getattr(beat, "url", beat)):
        yield host, "the heartbeat"


def _host(value: object) -> str:
    """The host in a URL, or the name of one; empty for what is neither, or names several."""
    if not isinstance(value, str) or "," in value:
        return ""
    try:
        return (urlsplit(value).hostname or "") if "://" in value else value
    except ValueError:
        return ""


def _fault(host: str) -> str:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError:
        return "it is no name of a host"
    return ""
