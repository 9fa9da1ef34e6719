"""The store: whether it can be opened, is whole and of this version. It is only read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EdgeqError, StoreMissing
from ..store import looking
from ..units import Size
from .case import Case
from .finding import SUDO, Finding, bad, ok, unknown, warn

if TYPE_CHECKING:
    from ..store.postgres.looking import Look as ServerLook

CHECK_SECONDS = 5.0
THOROUGH_SECONDS = 60.0
LOG_BYTES_MAX = 64 * 2**20
_CONNECTIONS_FREE = 10
_CONNECTIONS_OURS = 4


def opened(case: Case) -> Iterator[Finding]:
    """Whether the store opens."""
    path, url = case.database, case.loaded.config.store.url
    try:
        if path is not None:
            yield from _file(case, path)
            return
        try:
            from ..store.postgres.looking import look
        except ImportError:
            yield bad("PostgreSQL's driver isn't installed", "edgeq doesn't start", "pip install 'edgeq[postgres]'")
            return
        yield from _server(look(url))
    except StoreMissing as error:
        yield warn(str(error), "edgeq makes it at its first start; nothing is stored so far", "edgeq run")
    except EdgeqError as error:
        yield bad(f"the store can't be opened: {error}", "edgeq doesn't start on it", error.hint)


def log(case: Case) -> Iterator[Finding]:
    """How large SQLite's log is."""
    if case.database is None:
        return
    try:
        size = os.stat(f"{case.database}-wal").st_size
    except FileNotFoundError:
        return
    except OSError as error:
        yield unknown(f"the size of SQLite's log can't be seen: {error.strerror}", f"{case.database}-wal", SUDO)
        return
    if size > LOG_BYTES_MAX:
        yield warn(
            f"SQLite's log is {Size(size)} large",
            "another program reads the database without end, so the log can't be folded into it and fills the disk",
            f"sudo fuser -v {case.database}",
        )
    else:
        yield ok(f"SQLite's log is {Size(size // 1024 * 1024)} large")


def put_aside(case: Case) -> Iterator[Finding]:
    """What is left of a damaged store."""
    path = case.database
    if path is None:
        return
    if os.path.exists(f"{path}-suspect"):
        yield warn(
            "SQLite has found damage in the database", "the next start checks all of it", "sudo systemctl restart edgeq"
        )
    try:
        aside = sorted(
            each for each in path.parent.glob(f"{path.name}.damaged-*") if not each.name.endswith(("-wal", "-shm"))
        )
    except OSError:
        return
    for each in aside:
        yield warn(
            f"{each} was put aside because it was damaged",
            "what was in it and isn't elsewhere is missing; such a disk may be at its end",
            "edgeq db --help says how to recover what can be read",
        )


def _file(case: Case, path: Path) -> Iterator[Finding]:
    if path.exists() and not os.access(path, os.R_OK):
        yield unknown(f"{path} may not be read by this user", "whether it is whole can't be seen", SUDO)
        return
    seen = looking.look(str(path), THOROUGH_SECONDS if case.thorough else CHECK_SECONDS)
    yield ok(f"{path}: {seen.head} events up to now, {Size(seen.file_bytes)}, {Size(seen.free_bytes)} of it free")
    yield from _of_this_version(seen)
    if seen.damage:
        yield bad(
            f"{path} is damaged: {seen.damage}",
            "edgeq puts it aside at its next start, and begins with an empty one",
            "copy it first, with edgeq stopped; then look at the disk: sudo dmesg | grep -i error",
        )
    elif seen.damage is None:
        yield unknown("whether the database is whole wasn't read to its end", "it is large", "edgeq doctor --thorough")
    else:
        yield ok("the database is whole")


def _server(seen: ServerLook) -> Iterator[Finding]:
    yield ok(f"PostgreSQL {seen.version}, as {seen.user}: {seen.head} events up to now, {Size(seen.file_bytes)}")
    yield from _of_this_version(seen)
    if seen.disorder:
        yield bad(seen.disorder, "processors may miss events", "restore the database from a backup made by pg_dump")
    if seen.standby:
        yield bad("the server is a standby", "it takes no commits", "name the primary in store.url")
    if seen.refused:
        more = ", …" if len(seen.refused) > 3 else ""
        yield bad(
            f"{seen.user} has no right to {', '.join(seen.refused[:3])}{more}",
            "edgeq can't do its work there",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {seen.user};",
        )
    for text in seen.unsafe:
        yield warn(text, "that is a setting of the server", "SHOW config_file; in psql says where it is set")
    free = seen.connections_max - seen.connections
    taken = f"{seen.connections} of {seen.connections_max} connections are taken"
    if free < _CONNECTIONS_OURS:
        yield bad(taken, f"edgeq needs up to {_CONNECTIONS_OURS}", "raise max_connections, or end other programs")
    elif free < _CONNECTIONS_FREE:
        yield warn(taken, f"each edgeq needs up to {_CONNECTIONS_OURS}", "raise max_connections, or end other programs")
    else:
        yield ok(taken)


def _of_this_version(seen: looking.Look | ServerLook) -> Iterator[Finding]:
    if seen.copy:
        yield bad(
            "it is the incomplete copy of another store",
            "nothing opens it",
            "call edgeq db copy again, with the same two names",
        )
    if seen.strange:
        yield bad(
            f"it was written by a newer edgeq (it has {seen.strange[-1]})",
            "this version doesn't open it",
            "install that version or a later one",
        )
    elif seen.missing:
        yield warn(
            f"it has no tables of this version yet ({seen.missing[-1]})",
            "the next start of edgeq makes them; until then, commands of this version refuse it",
            "sudo systemctl restart edgeq",
        )
