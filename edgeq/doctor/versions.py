"""Python, edgeq's libraries, and SQLite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from ..store.looking import SQLITE_VERSION, has_wal_bug
from ..version import edgeq_version
from .case import Case
from .finding import Finding, ok

_LIBRARIES = (
    "paho-mqtt", "peewee", "aiosqlite", "msgspec", "click", "rich", "microdot", "prometheus-client", "psycopg",
    "apprise",
)  # fmt: skip


def libraries(case: Case) -> Iterator[Finding]:
    """Versions."""
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # an extra
            continue
    python = ".".join(map(str, sys.version_info[:3]))
    yield ok(f"edgeq {edgeq_version()} on Python {python} with {', '.join(found)}")
    if has_wal_bug():
        # Two connections that write and checkpoint at one moment can damage a file. Of edgeq only one ever does.
        yield ok(
            f"SQLite {SQLITE_VERSION}; before 3.51.3 other programs must only read the database, never write to it"
        )
    else:
        yield ok(f"SQLite {SQLITE_VERSION}")
