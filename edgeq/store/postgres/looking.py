"""A look at a database on PostgreSQL that changes nothing in it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec
import psycopg

from ...errors import StoreError, StoreMissing
from ..meta import COPY_OF
from . import faults
from .connecting import ANSWER_SECONDS, READS, connect, place
from .schema import check_order, known
from .store import UNSAFE

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_FACTS = b"""
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
       pg_is_in_recovery(), pg_database_size(current_database()), current_user
"""
_REFUSED = b"""
SELECT tablename, r FROM pg_tables, unnest(%s::text[]) AS r
WHERE schemaname = current_schema() AND NOT has_table_privilege(format('%%I.%%I', schemaname, tablename), r)
ORDER BY 1, 2
"""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What is there. `missing`, `strange`, `head` and `copy` as of a file; `disorder` says why events could be missed,
    `refused` what the user may not do, `unsafe` which settings of the server may lose something, by what they are.
    `connections` of `connections_max` are taken."""

    version: str
    head: int
    missing: list[str]
    strange: list[str]
    copy: bool
    file_bytes: int
    standby: bool
    user: str
    connections: int
    connections_max: int
    disorder: str
    refused: list[str]
    unsafe: list[str]


def look(url: str) -> Look:
    """Look at the database. Raises StoreMissing; StoreError when the server can't be asked, or has no tables of
    edgeq."""
    try:
        with closing(connect(url, "doctor", READS, answer_seconds=ANSWER_SECONDS)) as connection:
            return _look(connection, url)
    except psycopg.Error as error:
        raise faults.refusal(error, place(url)) from error


def _look(connection: psycopg.Connection[Any], url: str) -> Look:
    (there,) = connection.execute(b"SELECT to_regclass('schema_migration') IS NOT NULL").fetchall()[0]
    if not there:
        raise StoreMissing(f"{place(url)} has no tables of edgeq yet")
    done, mine = [name for (name,) in connection.execute(b"SELECT name FROM schema_migration ORDER BY name")], known()
    connections, connections_max, standby, size, user = connection.execute(_FACTS).fetchall()[0]
    settings = dict(connection.execute(b"SELECT name, setting FROM pg_settings").fetchall())
    try:
        check_order(connection, url)
        disorder = ""
    except StoreError as error:
        disorder = str(error)
    return Look(
        version=connection.info.parameter_status("server_version") or "",
        head=int(connection.execute(b"SELECT coalesce(max(id), 0) FROM events").fetchall()[0][0]),
        missing=[name for name in mine if name not in done],
        strange=[name for name in done if name not in mine],
        copy=bool(connection.execute(b"SELECT 1 FROM meta WHERE key = %s", (COPY_OF,)).fetchall()),
        file_bytes=int(size),
        standby=standby,
        user=user,
        connections=connections,
        connections_max=connections_max,
        disorder=disorder,
        refused=[f"{right} on {table}" for table, right in connection.execute(_REFUSED, (list(_RIGHTS),))],
        unsafe=[text for name, text in UNSAFE.items() if settings[name] == "off"],
    )
